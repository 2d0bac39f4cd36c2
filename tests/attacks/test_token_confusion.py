"""Each kind of token, offered to each door: only its own opens, and nothing is lost at the others (RFC 8725 §2.8)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, OpenSession, Session
from tests.auth.test_access_tokens import decoded
from tests.support.answers import bearer, data_of, refused
from tests.support.mail import Mailbox

NEW_PASSWORD = "a-quite-different-gadget-17"


def of_access_token(session: Session, claim: str) -> str:
    return str(decoded(session.access_token.split(".")[1])[claim])


def code_of(session: Session, mailbox: Mailbox, path: str, about: str) -> str:
    """Of the mail that this asks for."""
    email = session.account.email
    if path == "email/change":
        email = f"new-{email}"
        letter: dict[str, object] = {"new_email": email, "current_password": session.account.password}
        data_of(session.post(path, letter), 202)
    elif path:
        data_of(session.client.post(f"/api/v1/auth/{path}", json={"email": email}), 202)
    return mailbox.wait_for(email, about=about).code


KINDS: dict[str, Callable[[Session, Mailbox], str]] = {
    "access token": lambda session, _: session.access_token,
    "refresh token": lambda session, _: session.refresh_token,
    "code for the address": lambda session, mailbox: code_of(session, mailbox, "", "Confirm your address"),
    "code for a password": lambda session, mailbox: code_of(session, mailbox, "password/forgot", "new password"),
    "code for another address": lambda session, mailbox: code_of(session, mailbox, "email/change", "new address"),
    # What somebody has who read a log, a list of sessions or the database: as tokens they are worth nothing.
    "id of the session": lambda session, _: of_access_token(session, "sid"),
    "id of the access token": lambda session, _: of_access_token(session, "jti"),
    "id of the account": lambda session, _: session.account.id,
    "hash of the refresh token": lambda session, _: hashlib.sha256(session.refresh_token.encode()).hexdigest(),
}


@dataclass(frozen=True)
class Consumer:
    takes: str | None
    """The kind that it accepts."""
    present: Callable[[Session, str], httpx2.Response]
    """Offer it a token; the session tells whose it is."""
    refuses_with: ErrorCode | None
    """None for a log-out: that an unknown session ended is true already."""


def get(path: str) -> Callable[[Session, str], httpx2.Response]:
    return lambda session, token: session.client.get(path, headers=bearer(token))


def post(path: str, name: str) -> Callable[[Session, str], httpx2.Response]:
    return lambda session, token: session.client.post(path, json={name: token})


CONSUMERS: dict[str, Consumer] = {
    "a guarded route": Consumer("access token", get("/api/v1/profile"), ErrorCode.INVALID_TOKEN),
    "a public route": Consumer("access token", get("/api/v1/products"), ErrorCode.INVALID_TOKEN),
    "log-out everywhere": Consumer(
        "access token",
        lambda session, token: session.client.post("/api/v1/auth/logout-all", headers=bearer(token)),
        ErrorCode.INVALID_TOKEN,
    ),
    "refresh": Consumer(
        "refresh token", post("/api/v1/auth/refresh", "refresh_token"), ErrorCode.INVALID_REFRESH_TOKEN
    ),
    "log-out": Consumer("refresh token", post("/api/v1/auth/logout", "refresh_token"), None),
    "verification": Consumer(
        "code for the address", post("/api/v1/auth/verify", "token"), ErrorCode.INVALID_ONE_TIME_TOKEN
    ),
    "a new password": Consumer(
        "code for a password",
        lambda session, token: session.client.post(
            "/api/v1/auth/password/reset", json={"token": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_ONE_TIME_TOKEN,
    ),
    "another address": Consumer(
        "code for another address", post("/api/v1/auth/email/confirm", "token"), ErrorCode.INVALID_ONE_TIME_TOKEN
    ),
    "log-in, as password": Consumer(
        None,
        lambda session, token: session.client.post(LOGIN, json={"email": session.account.email, "password": token}),
        ErrorCode.INVALID_CREDENTIALS,
    ),
    "password change, as password": Consumer(
        None,
        lambda session, token: session.post(
            "password/change", {"current_password": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_CREDENTIALS,
    ),
}
RIGHT = [(kind, name) for kind in KINDS for name, consumer in CONSUMERS.items() if consumer.takes == kind]
WRONG = [(kind, name) for kind in KINDS for name, consumer in CONSUMERS.items() if consumer.takes != kind]


@pytest.mark.parametrize(("kind", "consumer"), RIGHT)
def test_a_token_is_accepted_where_it_belongs(
    open_session: OpenSession, mailbox: Mailbox, kind: str, consumer: str
) -> None:
    """The positive control of the test below."""
    session = open_session()

    data_of(CONSUMERS[consumer].present(session, KINDS[kind](session, mailbox)))


@pytest.mark.parametrize(("kind", "consumer"), WRONG)
def test_a_token_of_another_kind_opens_nothing_and_is_not_spent(
    open_session: OpenSession, mailbox: Mailbox, kind: str, consumer: str
) -> None:
    session = open_session()
    token, door = KINDS[kind](session, mailbox), CONSUMERS[consumer]

    answer = door.present(session, token)

    if door.refuses_with is None:
        assert data_of(answer) is None
    else:
        refused(answer, door.refuses_with)
    data_of(session.profile())
    data_of(session.refresh())
    for name, taker in CONSUMERS.items():
        if taker.takes == kind and name not in {"log-out", "log-out everywhere"}:  # they end the session
            data_of(taker.present(session, token))

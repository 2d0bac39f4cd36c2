"""Each kind of token, offered to each door: only its own opens, and nothing is lost at the others (RFC 8725 §2.8)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, SECURITY, Guard, Guarded, Session
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


def api_key_of(guarded: Guarded) -> str:
    letter = {"name": "export", "permissions": [], "current_password": guarded.account.password}
    return str(data_of(guarded.ask("POST", f"{SECURITY}/api-keys", letter), 201)["key"])


KINDS: dict[str, Callable[[Guarded, Mailbox], str]] = {
    "access token": lambda guarded, _: guarded.session.access_token,
    "refresh token": lambda guarded, _: guarded.session.refresh_token,
    "code for the address": lambda guarded, mailbox: code_of(guarded.session, mailbox, "", "Confirm your address"),
    "code for a password": lambda guarded, mailbox: code_of(
        guarded.session, mailbox, "password/forgot", "new password"
    ),
    "code for another address": lambda guarded, mailbox: code_of(
        guarded.session, mailbox, "email/change", "new address"
    ),
    "token of a log-in under way": lambda guarded, _: guarded.begin_login(),
    "code of the app": lambda guarded, _: guarded.phone.code(),
    "recovery code": lambda guarded, _: guarded.recovery_codes[0],
    "API key": lambda guarded, _: api_key_of(guarded),
    "challenge of a passkey": lambda guarded, _: data_of(
        guarded.session.client.post(f"{LOGIN}/passkey/options", json={})
    )["challenge"],
    # What somebody has who read a log, a list of sessions or the database: as tokens they are worth nothing.
    "id of the session": lambda guarded, _: of_access_token(guarded.session, "sid"),
    "id of the access token": lambda guarded, _: of_access_token(guarded.session, "jti"),
    "id of the account": lambda guarded, _: guarded.account.id,
    "hash of the refresh token": lambda guarded, _: hashlib.sha256(guarded.session.refresh_token.encode()).hexdigest(),
}


@dataclass(frozen=True)
class Consumer:
    takes: str
    """The kinds that it accepts, with a comma in between."""
    present: Callable[[Guarded, str], httpx2.Response]
    """Offer it a token; who is guarded tells whose it is."""
    refuses_with: ErrorCode | None
    """None for a log-out: that an unknown session ended is true already."""
    refuses_keys_with: ErrorCode | None = None
    """An API key is good, and not for this."""


def get(path: str) -> Callable[[Guarded, str], httpx2.Response]:
    return lambda guarded, token: guarded.session.client.get(path, headers=bearer(token))


def post(path: str, name: str) -> Callable[[Guarded, str], httpx2.Response]:
    return lambda guarded, token: guarded.session.client.post(path, json={name: token})


CONSUMERS: dict[str, Consumer] = {
    "a guarded route": Consumer("access token,API key", get("/api/v1/profile"), ErrorCode.INVALID_TOKEN),
    "a public route": Consumer("access token,API key", get("/api/v1/products"), ErrorCode.INVALID_TOKEN),
    "log-out everywhere": Consumer(
        "access token",
        lambda guarded, token: guarded.session.client.post("/api/v1/auth/logout-all", headers=bearer(token)),
        ErrorCode.INVALID_TOKEN,
        ErrorCode.SESSION_REQUIRED,
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
        lambda guarded, token: guarded.session.client.post(
            "/api/v1/auth/password/reset", json={"token": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_ONE_TIME_TOKEN,
    ),
    "another address": Consumer(
        "code for another address", post("/api/v1/auth/email/confirm", "token"), ErrorCode.INVALID_ONE_TIME_TOKEN
    ),
    "log-in, as password": Consumer(
        "",
        lambda guarded, token: guarded.session.client.post(
            LOGIN, json={"email": guarded.account.email, "password": token}
        ),
        ErrorCode.INVALID_CREDENTIALS,
    ),
    "password change, as password": Consumer(
        "",
        lambda guarded, token: guarded.session.post(
            "password/change", {"current_password": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_CREDENTIALS,
    ),
    "the second step of a log-in": Consumer(
        "token of a log-in under way",
        lambda guarded, token: guarded.finish(token, guarded.phone.code()),
        ErrorCode.INVALID_LOGIN_CHALLENGE,
    ),
    "the second step, as code": Consumer(
        "code of the app",
        lambda guarded, token: guarded.finish(guarded.begin_login(), token),
        ErrorCode.INVALID_SECOND_FACTOR,
    ),
    "step-up, as recovery code": Consumer(
        "recovery code",
        lambda guarded, token: guarded.step_up(guarded.session, token, "recovery_code"),
        ErrorCode.INVALID_SECOND_FACTOR,
    ),
}
RIGHT = [(kind, name) for kind in KINDS for name, consumer in CONSUMERS.items() if kind in consumer.takes.split(",")]
WRONG = [
    (kind, name) for kind in KINDS for name, consumer in CONSUMERS.items() if kind not in consumer.takes.split(",")
]


@pytest.mark.parametrize(("kind", "consumer"), RIGHT)
def test_a_token_is_accepted_where_it_belongs(guard: Guard, mailbox: Mailbox, kind: str, consumer: str) -> None:
    """The positive control of the test below."""
    guarded = guard()

    data_of(CONSUMERS[consumer].present(guarded, KINDS[kind](guarded, mailbox)))


@pytest.mark.parametrize(("kind", "consumer"), WRONG)
def test_a_token_of_another_kind_opens_nothing_and_is_not_spent(
    guard: Guard, mailbox: Mailbox, kind: str, consumer: str
) -> None:
    guarded = guard()
    session = guarded.session
    token, door = KINDS[kind](guarded, mailbox), CONSUMERS[consumer]

    answer = door.present(guarded, token)

    if door.refuses_with is None:
        assert data_of(answer) is None
    else:
        refused(answer, (kind == "API key" and door.refuses_keys_with) or door.refuses_with)
    data_of(session.profile())
    data_of(session.refresh())
    for name, taker in CONSUMERS.items():
        if kind in taker.takes.split(",") and name not in {"log-out", "log-out everywhere"}:  # they end the session
            data_of(taker.present(guarded, token))

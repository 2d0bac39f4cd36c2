"""Each kind of token, offered to each door: only its own opens, and nothing is lost at the others (RFC 8725 §2.8)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, SECURITY, Guard, Guarded, Session
from tests.auth.test_access_tokens import decoded
from tests.auth.test_providers import CONFIRM, Browser
from tests.support.answers import bearer, data_of, refused
from tests.support.mail import Mailbox
from tests.support.oidc import GONE, House, Lies, Somebody

NEW_PASSWORD = "a-quite-different-gadget-17"


@dataclass
class Holder(Guarded):
    """Who has one of each kind."""

    mailbox: Mailbox
    provider: House

    @cached_property
    def browser(self) -> Browser:
        """Of somebody else's, who is new here."""
        return Browser(self.session.client, self.provider)

    @cached_property
    def sign_in(self) -> dict[str, str]:
        """One that is under way: what its end takes."""
        return self.browser.come_back(self.browser.begin())


@pytest.fixture
def holder(guard: Guard, mailbox: Mailbox, provider: House) -> Holder:
    guarded = guard()
    return Holder(guarded.session, guarded.phone, guarded.recovery_codes, mailbox, provider)


def of_access_token(session: Session, claim: str) -> str:
    return str(decoded(session.access_token.split(".")[1])[claim])


def code_of(holder: Holder, path: str, about: str) -> str:
    """Of the mail that this asks for."""
    session, email = holder.session, holder.account.email
    if path == "email/change":
        email = f"new-{email}"
        letter: dict[str, object] = {"new_email": email, "current_password": session.account.password}
        data_of(session.post(path, letter), 202)
    elif path:
        data_of(session.client.post(f"/api/v1/auth/{path}", json={"email": email}), 202)
    return holder.mailbox.wait_for(email, about=about).code


def api_key_of(guarded: Guarded) -> str:
    letter = {"name": "export", "permissions": [], "current_password": guarded.account.password}
    return str(data_of(guarded.ask("POST", f"{SECURITY}/api-keys", letter), 201)["key"])


def challenge_of_passkey(guarded: Guarded) -> str:
    return str(data_of(guarded.session.client.post(f"{LOGIN}/passkey/options", json={}))["challenge"])


def code_that_links(holder: Holder) -> str:
    email = holder.account.email
    browser = Browser(holder.session.client, holder.provider, Somebody(email=email))
    refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    return holder.mailbox.wait_for(email, about="signed in").code


def id_token(holder: Holder) -> str:
    grant = holder.provider.grants[holder.sign_in["code"]]
    # Without the address: longer than any token of ours it would be malformed, and nobody would look at it.
    return holder.provider.id_token(replace(grant, lies=Lies(claims={"email": GONE, "email_verified": GONE})))


def access_token_of_provider(holder: Holder) -> str:
    data_of(holder.browser.sign_in())
    return next(token for token, grant in holder.provider.access.items() if grant.who == holder.browser.who)


KINDS: dict[str, Callable[[Holder], str]] = {
    "access token": lambda holder: holder.session.access_token,
    "refresh token": lambda holder: holder.session.refresh_token,
    "code for the address": lambda holder: code_of(holder, "", "Confirm your address"),
    "code for a password": lambda holder: code_of(holder, "password/forgot", "new password"),
    "code for another address": lambda holder: code_of(holder, "email/change", "new address"),
    "code that links a provider": code_that_links,
    "token of a log-in under way": lambda holder: holder.begin_login(),
    "code of the app": lambda holder: holder.phone.code(),
    "recovery code": lambda holder: holder.recovery_codes[0],
    "API key": api_key_of,
    "challenge of a passkey": challenge_of_passkey,
    "token of a sign-in under way": lambda holder: holder.sign_in["browser_token"],
    "state of a sign-in under way": lambda holder: holder.sign_in["state"],
    "code of the provider": lambda holder: holder.sign_in["code"],
    "ID token of the provider": id_token,
    "access token of the provider": access_token_of_provider,
    # What somebody has who read a log, a list of sessions or the database: as tokens they are worth nothing.
    "id of the session": lambda holder: of_access_token(holder.session, "sid"),
    "id of the access token": lambda holder: of_access_token(holder.session, "jti"),
    "id of the account": lambda holder: holder.account.id,
    "hash of the refresh token": lambda holder: hashlib.sha256(holder.session.refresh_token.encode()).hexdigest(),
}


@dataclass(frozen=True)
class Consumer:
    takes: str
    """The kinds that it accepts, with a comma in between."""
    present: Callable[[Holder, str], httpx2.Response]
    """Offer it a token; who has it tells whose it is."""
    refuses_with: ErrorCode | None
    """None for a log-out: that an unknown session ended is true already."""
    refuses_keys_with: ErrorCode | None = None
    """An API key is good, and not for this."""

    def accepts(self, kind: str) -> bool:
        return kind in self.takes.split(",")

    def refusal_of(self, kind: str) -> ErrorCode | None:
        return (self.refuses_keys_with if kind == "API key" else None) or self.refuses_with


def get(path: str) -> Callable[[Holder, str], httpx2.Response]:
    return lambda holder, token: holder.session.client.get(path, headers=bearer(token))


def post(path: str, name: str) -> Callable[[Holder, str], httpx2.Response]:
    return lambda holder, token: holder.session.client.post(path, json={name: token})


CONSUMERS: dict[str, Consumer] = {
    "a guarded route": Consumer("access token,API key", get("/api/v1/profile"), ErrorCode.INVALID_TOKEN),
    "a public route": Consumer("access token,API key", get("/api/v1/products"), ErrorCode.INVALID_TOKEN),
    "log-out everywhere": Consumer(
        "access token",
        lambda holder, token: holder.session.client.post("/api/v1/auth/logout-all", headers=bearer(token)),
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
        lambda holder, token: holder.session.client.post(
            "/api/v1/auth/password/reset", json={"token": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_ONE_TIME_TOKEN,
    ),
    "another address": Consumer(
        "code for another address", post("/api/v1/auth/email/confirm", "token"), ErrorCode.INVALID_ONE_TIME_TOKEN
    ),
    "a link to a provider": Consumer(
        "code that links a provider", post(CONFIRM, "token"), ErrorCode.INVALID_ONE_TIME_TOKEN
    ),
    "the end of a sign-in": Consumer(
        "token of a sign-in under way",
        lambda holder, token: holder.browser.finish({**holder.sign_in, "browser_token": token}),
        ErrorCode.INVALID_PROVIDER_ANSWER,
    ),
    "log-in, as password": Consumer(
        "",
        lambda holder, token: holder.session.client.post(
            LOGIN, json={"email": holder.account.email, "password": token}
        ),
        ErrorCode.INVALID_CREDENTIALS,
    ),
    "password change, as password": Consumer(
        "",
        lambda holder, token: holder.session.post(
            "password/change", {"current_password": token, "new_password": NEW_PASSWORD}
        ),
        ErrorCode.INVALID_CREDENTIALS,
    ),
    "the second step of a log-in": Consumer(
        "token of a log-in under way",
        lambda holder, token: holder.finish(token, holder.phone.code()),
        ErrorCode.INVALID_LOGIN_CHALLENGE,
    ),
    "the second step, as code": Consumer(
        "code of the app",
        lambda holder, token: holder.finish(holder.begin_login(), token),
        ErrorCode.INVALID_SECOND_FACTOR,
    ),
    "step-up, as recovery code": Consumer(
        "recovery code",
        lambda holder, token: holder.step_up(holder.session, token, "recovery_code"),
        ErrorCode.INVALID_SECOND_FACTOR,
    ),
}
RIGHT = [(kind, name) for kind in KINDS for name, consumer in CONSUMERS.items() if consumer.accepts(kind)]
# What no door takes alone.
OF_A_SIGN_IN = {"state of a sign-in under way", "code of the provider"}


@pytest.mark.parametrize(("kind", "consumer"), RIGHT)
def test_a_token_is_accepted_where_it_belongs(holder: Holder, kind: str, consumer: str) -> None:
    """The positive control of the test below."""
    data_of(CONSUMERS[consumer].present(holder, KINDS[kind](holder)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_another_kind_opens_nothing_and_is_not_spent(
    holder: Holder, kind: str, tried: Callable[[int], None]
) -> None:
    session, token = holder.session, KINDS[kind](holder)
    wrong = {name: consumer for name, consumer in CONSUMERS.items() if not consumer.accepts(kind)}
    tried(len(wrong))

    answered = {}
    for name, consumer in wrong.items():
        answer = consumer.present(holder, token)
        answered[name] = None if answer.is_success else ErrorCode(answer.json()["code"])
        data_of(session.profile())

    assert answered == {name: consumer.refusal_of(kind) for name, consumer in wrong.items()}
    data_of(session.refresh())
    for name, consumer in CONSUMERS.items():
        if consumer.accepts(kind) and name not in {"log-out", "log-out everywhere"}:  # they end the session
            data_of(consumer.present(holder, token))
    if kind in OF_A_SIGN_IN:
        data_of(holder.browser.finish(holder.sign_in))

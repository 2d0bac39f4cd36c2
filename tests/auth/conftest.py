"""People with sessions, and with second factors."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD, Account
from tests.support.answers import bearer, data_of, refused
from tests.support.phone import Phone

LOGIN = "/api/v1/auth/login"
FINISH = "/api/v1/auth/login/second-factor"
STEP_UP = "/api/v1/auth/step-up"
SECURITY = "/api/v1/profile/security"


@dataclass(frozen=True)
class Session:
    """One log-in on one device."""

    client: httpx2.Client
    account: Account
    access_token: str
    refresh_token: str

    def profile(self) -> httpx2.Response:
        return self.client.get("/api/v1/profile", headers=bearer(self.access_token))

    def post(self, path: str, body: dict[str, object] | None = None) -> httpx2.Response:
        return self.client.post(f"/api/v1/auth/{path}", json=body, headers=bearer(self.access_token))

    def refresh(self) -> httpx2.Response:
        return self.client.post("/api/v1/auth/refresh", json={"refresh_token": self.refresh_token})

    def refreshed(self) -> "Session":
        letter = data_of(self.refresh())
        return Session(self.client, self.account, letter["access_token"], letter["refresh_token"])

    def log_out(self) -> httpx2.Response:
        return self.client.post("/api/v1/auth/logout", json={"refresh_token": self.refresh_token})


OpenSession = Callable[..., Session]


@pytest.fixture
def open_session(client: httpx2.Client, register: Callable[[], Account]) -> OpenSession:
    """Log in: as somebody new, or once more as somebody."""

    def log_in(account: Account | None = None) -> Session:
        account = account or register()
        answer = client.post(LOGIN, json={"email": account.email, "password": account.password})
        letter = data_of(answer)
        return Session(client, account, letter["access_token"], letter["refresh_token"])

    return log_in


def ask(session: Session, method: str, path: str, body: object = None) -> httpx2.Response:
    return session.client.request(method, path, json=body, headers=bearer(session.access_token))


def begin_totp(session: Session, password: str = PASSWORD) -> httpx2.Response:
    return ask(session, "POST", f"{SECURITY}/totp", {"current_password": password})


def confirm_totp(session: Session, code: str) -> httpx2.Response:
    return ask(session, "POST", f"{SECURITY}/totp/confirm", {"code": code})


@dataclass
class Guarded:
    """Somebody whose log-in takes two steps, and the session in which they set that up."""

    session: Session
    phone: Phone
    recovery_codes: list[str]

    @property
    def account(self) -> Account:
        return self.session.account

    def ask(self, method: str, path: str, body: object = None) -> httpx2.Response:
        return ask(self.session, method, path, body)

    def begin_login(self) -> str:
        """The `mfa_token`."""
        letter = {"email": self.account.email, "password": self.account.password}
        told = refused(self.session.client.post(LOGIN, json=letter), ErrorCode.SECOND_FACTOR_REQUIRED)
        return str(told["mfa_token"])

    def finish(self, mfa_token: str, code: str, method: str = "totp") -> httpx2.Response:
        return self.session.client.post(FINISH, json={"mfa_token": mfa_token, "method": method, "code": code})

    def log_in(self) -> Session:
        letter = data_of(self.finish(self.begin_login(), self.phone.code()))
        return Session(self.session.client, self.account, letter["access_token"], letter["refresh_token"])

    def step_up(self, session: Session, code: str, method: str = "totp") -> httpx2.Response:
        return ask(session, "POST", STEP_UP, {"method": method, "code": code})


Guard = Callable[..., Guarded]


@pytest.fixture
def guard(open_session: OpenSession, database_url: str) -> Guard:
    """Give somebody, new or not, a second factor."""

    def set_up(session: Session | None = None) -> Guarded:
        session = session or open_session()
        phone = Phone(data_of(begin_totp(session), 201)["secret"], database_url)
        return Guarded(session, phone, data_of(confirm_totp(session, phone.code()))["recovery_codes"])

    return set_up

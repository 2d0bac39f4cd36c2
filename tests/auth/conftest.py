"""People with sessions."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import pytest

from tests.conftest import Account
from tests.support.answers import bearer, data_of

LOGIN = "/api/v1/auth/login"


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

"""Sign-in with a provider: the first time, later, linked to an account that was there, and refused."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import SECURITY, OpenSession, Session, ask
from tests.conftest import PASSWORD, Account
from tests.support.answers import data_of, refused
from tests.support.mail import Mailbox
from tests.support.oidc import House, Lies, Somebody

PROVIDERS = "/api/v1/auth/providers"
CONFIRM = "/api/v1/auth/provider-links/confirm"
LINKS = f"{SECURITY}/providers"


@dataclass
class Browser:
    """Somebody in front of one, who is known to a provider."""

    client: httpx2.Client
    house: House
    who: Somebody = field(default_factory=Somebody)

    def begin(self) -> dict[str, Any]:  # Any: JSON
        told: dict[str, Any] = data_of(self.client.post(f"{PROVIDERS}/{self.house.name}/begin"))
        return told

    def come_back(self, begun: dict[str, Any], lies: Lies | None = None) -> dict[str, Any]:  # Any: JSON
        """The letter that the page posts."""
        return {**self.house.visit(begun["authorization_url"], self.who, lies), "browser_token": begun["browser_token"]}

    def finish(self, letter: dict[str, Any]) -> httpx2.Response:  # Any: JSON
        return self.client.post(f"{PROVIDERS}/{self.house.name}/finish", json=letter)

    def sign_in(self, lies: Lies | None = None) -> httpx2.Response:
        return self.finish(self.come_back(self.begin(), lies))

    def session(self) -> Session:
        letter = data_of(self.sign_in())
        mine = data_of(self.client.get("/api/v1/profile", headers={"Authorization": f"Bearer {letter['access_token']}"}))
        account = Account(mine["id"], mine["email"])
        return Session(self.client, account, letter["access_token"], letter["refresh_token"])


Browse = Callable[..., Browser]


@pytest.fixture
def browse(client: httpx2.Client, provider: House) -> Browse:
    return lambda who=None, house=provider: Browser(client, house, who or Somebody())


def test_the_providers_are_listed(client: httpx2.Client) -> None:
    assert data_of(client.get(PROVIDERS)) == [{"name": "acme", "title": "Acme"}, {"name": "other", "title": "Other"}]


def test_the_first_sign_in_opens_an_account_and_later_ones_find_it(browse: Browse) -> None:
    browser = browse()

    first = browser.session()
    again = browser.session()

    assert first.account.email == browser.who.email
    assert again.account == first.account
    (link,) = data_of(ask(again, "GET", LINKS))
    assert (link["provider"], link["title"]) == ("acme", "Acme")
    assert link["last_used_at"] > link["created_at"]
    assert data_of(ask(again, "GET", SECURITY))["providers"] == [link]
    assert data_of(ask(again, "GET", SECURITY))["has_password"] is False

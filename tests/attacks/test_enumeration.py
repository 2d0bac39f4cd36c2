"""Who has an account here: nothing that an outsider can ask tells it, by status, body or header.

By time: `make bench` reports it, with an interval of confidence.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import data_of, refused, told
from tests.support.mail import Mailbox
from tests.support.postgres import Kind
from tests.support.service import ADMIN, Service, own_place

WRONG = "not the password of anybody"


@dataclass(frozen=True)
class Street:
    """A service as it is in production, and the addresses that somebody has."""

    service: Service
    houses: dict[str, str]


def address() -> str:
    return f"{uuid4().hex}@example.com"


@pytest.fixture(scope="module")
def street(database_kind: Kind, mailbox: Mailbox) -> Iterator[Street]:
    env = {"AUTH__REQUIRE_VERIFIED_EMAIL": "true", "AUTH__LOGIN_WITH_USERNAME": "true", "MAIL__URL": mailbox.url}
    with own_place(database_kind, **env) as place, place.service() as service:
        admin = service.log_in()["access_token"]
        houses = {"nobody": address()}
        for kind in ("somebody", "disabled", "deleted", "invited", "unverified"):
            email = houses[kind] = address()
            letter = {"email": email} if kind == "invited" else {"email": email, "password": PASSWORD}
            more = {"is_verified": False} if kind == "unverified" else {}
            user = data_of(service.post("users", {**letter, **more}, token=admin), 201)
            path = f"/api/v1/users/{user['id']}"
            headers = {"Authorization": f"Bearer {admin}"}
            if kind == "disabled":
                data_of(service.client.patch(path, json={"is_active": False}, headers=headers))
            if kind == "deleted":
                data_of(service.client.delete(path, headers=headers))
        yield Street(service, houses)


Ask = Callable[[Service, str], httpx2.Response]
QUESTIONS: dict[str, Ask] = {
    "log in": lambda service, email: service.post("auth/login", {"email": email, "password": WRONG}),
    "log in with nothing": lambda service, email: service.post("auth/login", {"email": email, "password": ""}),
    "log in by the form": lambda service, email: service.client.post(
        "/api/v1/auth/token", data={"grant_type": "password", "username": email, "password": WRONG}
    ),
    "register": lambda service, email: service.post("auth/register", {"email": email, "password": PASSWORD}),
    "register with a name": lambda service, email: service.post(
        "auth/register", {"email": email, "password": PASSWORD, "username": f"u{uuid4().hex}"}
    ),
    "register in capitals": lambda service, email: service.post(
        "auth/register", {"email": email.upper(), "password": PASSWORD}
    ),
    "forget the password": lambda service, email: service.post("auth/password/forgot", {"email": email}),
    "ask for verification": lambda service, email: service.post("auth/verify/request", {"email": email}),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_is_answered_alike_for_everybody_and_for_nobody(street: Street, question: str) -> None:
    ask = QUESTIONS[question]

    # Twice: what the first one changed must not show in the second.
    answers = {kind: told(ask(street.service, email)) for kind, email in street.houses.items() for _ in range(2)}

    assert len(answers) == 6
    assert all(answer == answers["nobody"] for answer in answers.values())


@pytest.mark.parametrize("kind", ["disabled", "unverified"])
def test_the_right_password_tells_no_more_than_a_wrong_one(street: Street, kind: str) -> None:
    email = street.houses[kind]

    right, wrong = (street.service.post("auth/login", {"email": email, "password": word}) for word in (PASSWORD, WRONG))

    refused(right, ErrorCode.INVALID_CREDENTIALS)
    assert told(right) == told(wrong)


def test_the_one_who_knows_the_password_is_let_in(street: Street) -> None:
    """The positive control of this page: the addresses are those of accounts."""
    street.service.log_in(street.houses["somebody"])
    street.service.log_in(ADMIN)

"""Where an address is verified before its account can be used, as in production: nobody learns who has an account."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN
from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of, refused, refused_fields, told
from tests.support.mail import Mailbox
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import run_command, running_server

REGISTER = "/api/v1/auth/register"
TOKEN = "/api/v1/auth/token"
ADMIN = "admin@example.com"


@dataclass(frozen=True)
class Production:
    client: httpx2.Client
    admin: httpx2.Client
    mailbox: Mailbox

    def register(self, email: str, **more: object) -> httpx2.Response:
        return self.client.post(REGISTER, json={"email": email, "password": PASSWORD, **more})

    def log_in(self, email: str, password: str = PASSWORD) -> httpx2.Response:
        return self.client.post(LOGIN, json={"email": email, "password": password})

    def found(self, email: str) -> dict[str, Any]:  # Any: JSON
        page = data_of(self.admin.get("/api/v1/users", params={"email": email}))
        assert page["total"] == 1
        user: dict[str, Any] = page["items"][0]
        return user

    def verify(self, email: str) -> dict[str, Any]:  # Any: JSON
        answer = self.admin.patch(f"/api/v1/users/{self.found(email)['id']}", json={"is_verified": True})
        user: dict[str, Any] = data_of(answer)
        return user


@pytest.fixture(scope="module")
def production(database_kind: Kind, tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> Iterator[Production]:
    url = fresh_database(database_kind)
    env = {
        "DB__URL": url,
        "APP__ENV": "production",
        "AUTH__SECRET": uuid4().hex + uuid4().hex,
        "AUTH__REQUIRE_VERIFIED_EMAIL": "true",
        "HTTP__ALLOWED_HOSTS": "127.0.0.1",
        "MAIL__URL": mailbox.url,
        **PATIENT,
    }
    made = run_command(
        "create-admin", "--email", ADMIN, env=env, cwd=tmp_path_factory.mktemp("a"), stdin=f"{PASSWORD}\n"
    )
    assert made.returncode == 0, made.stdout + made.stderr
    with (
        running_server(env) as server,
        httpx2.Client(base_url=server.url, timeout=15, verify=False) as client,
        httpx2.Client(base_url=server.url, timeout=15, verify=False) as admin,
    ):
        letter = data_of(admin.post(LOGIN, json={"email": ADMIN, "password": PASSWORD}))
        admin.headers.update(bearer(letter["access_token"]))
        yield Production(client, admin, mailbox)
    drop_database(url)


def address() -> str:
    return f"{uuid4().hex}@example.com"


def test_a_registration_is_answered_alike_whether_the_address_was_free(production: Production) -> None:
    email = address()

    free = production.register(email)
    taken = production.register(email)
    spelled_otherwise = production.register(email.upper())
    production.verify(email)
    taken_and_verified = production.register(email)

    assert free.status_code == 202
    assert free.json()["code"] == 202
    assert free.json()["data"] is None
    assert told(free) == told(taken) == told(spelled_otherwise) == told(taken_and_verified)


def test_the_code_of_the_mail_opens_the_account(production: Production) -> None:
    email = address()
    production.register(email)
    code = production.mailbox.wait_for(email, about="Confirm your address").code
    refused(production.log_in(email), ErrorCode.INVALID_CREDENTIALS)

    data_of(production.client.post("/api/v1/auth/verify", json={"token": code}))

    data_of(production.log_in(email))


def test_who_registered_somebody_elses_address_does_not_keep_it(production: Production) -> None:
    """The owner of the mailbox registers later, or asks for a new password, and has the account to themselves."""
    email, thiefs, owners = address(), "the-password-of-a-thief-77", "the-password-of-the-owner-78"
    production.client.post(REGISTER, json={"email": email, "password": thiefs})
    production.register(email)
    code = production.mailbox.wait_for(email, about="You have an account").code

    reset = production.client.post("/api/v1/auth/password/reset", json={"token": code, "new_password": owners})

    data_of(reset)
    refused(production.log_in(email, thiefs), ErrorCode.INVALID_CREDENTIALS)
    data_of(production.log_in(email, owners))


def test_a_code_does_not_open_the_account_of_a_thief_to_whoever_types_it(production: Production) -> None:
    """Somebody else was quicker with the address: from the second registration on only a new password opens it."""
    email, thiefs = address(), "the-password-of-a-thief-77"
    production.client.post(REGISTER, json={"email": email, "password": thiefs})
    first = production.mailbox.wait_for(email, about="Confirm your address").code
    production.register(email)
    production.mailbox.wait_for(email, about="You have an account")

    refused(production.client.post("/api/v1/auth/verify", json={"token": first}), ErrorCode.INVALID_ONE_TIME_TOKEN)
    data_of(production.client.post("/api/v1/auth/verify/request", json={"email": email}), 202)
    production.mailbox.wait_for(email, about="You have an account", number=2)
    assert len(production.mailbox.mails_to(email, about="Confirm your address")) == 1
    refused(production.log_in(email, thiefs), ErrorCode.INVALID_CREDENTIALS)


def test_each_registration_sends_one_mail_to_the_owner_of_the_address(production: Production) -> None:
    email, last = address(), address()

    for each in (email, email, last):
        production.register(each)
    production.mailbox.wait_for(last)
    production.mailbox.wait_for(email, number=2)

    assert [mail.subject.partition(" for ")[0] for mail in production.mailbox.mails_to(email)] == [
        "Confirm your address",
        "You have an account at Undercroft",
    ]


def test_a_second_registration_changes_nothing(production: Production) -> None:
    email = address()
    production.register(email)

    production.client.post(REGISTER, json={"email": email, "password": "the-password-of-a-thief-77"})

    production.verify(email)
    refused(production.log_in(email, "the-password-of-a-thief-77"), ErrorCode.INVALID_CREDENTIALS)
    data_of(production.log_in(email))


def test_what_is_malformed_is_still_refused(production: Production) -> None:
    assert refused_fields(production.register("nobody")) == {"email"}
    weak = production.client.post(REGISTER, json={"email": address(), "password": "password1234"})
    refused(weak, ErrorCode.WEAK_PASSWORD)


@pytest.mark.parametrize("password", [PASSWORD, "wrong", ""])
def test_a_log_in_before_verification_is_answered_as_a_wrong_password_is(production: Production, password: str) -> None:
    verified, unverified = address(), address()
    for email in (verified, unverified):
        production.register(email)
    production.verify(verified)

    wrong = production.log_in(verified, "wrong")

    refused(wrong, ErrorCode.INVALID_CREDENTIALS)
    assert told(production.log_in(unverified, password)) == told(wrong)
    assert told(production.log_in(address(), password)) == told(wrong)


def test_the_form_knows_no_more(production: Production) -> None:
    email = address()
    production.register(email)

    unverified, unknown = (
        production.client.post(TOKEN, data={"username": name, "password": PASSWORD}) for name in (email, address())
    )

    assert (unknown.status_code, unknown.json()) == (400, {"error": "invalid_grant"})
    assert told(unverified) == told(unknown)


def test_after_verification_the_log_in_works(production: Production) -> None:
    email = address()
    production.register(email)
    assert production.found(email)["is_verified"] is False

    production.verify(email)

    token = data_of(production.log_in(email))["access_token"]
    profile = data_of(production.client.get("/api/v1/profile", headers=bearer(token)))
    assert (profile["email"], profile["is_verified"]) == (email, True)


def test_a_user_name_does_not_tell_whether_the_address_was_free(production: Production) -> None:
    """A name that was taken along with a free address, and only then, would tell whoever tries it next."""
    theirs, name_of_first, name_of_second = address(), uuid4().hex, uuid4().hex
    production.register(theirs)

    answers = [
        production.register(theirs, username=name_of_first),
        production.register(address(), username=name_of_second),
        production.register(address(), username=name_of_first),
        production.register(address(), username=name_of_second),
    ]

    assert all(told(answer) == told(answers[0]) for answer in answers)
    assert answers[0].status_code == 202


def test_a_user_name_belongs_to_whoever_proves_an_address_first(production: Production) -> None:
    first, second, name = address(), address(), uuid4().hex
    for email in (first, second):
        production.register(email, username=name)

    assert production.verify(second)["username"] == name
    assert production.verify(first)["username"] is None


def test_taking_the_verification_back_takes_the_tokens_along(production: Production) -> None:
    email = address()
    production.register(email)
    user = production.verify(email)
    letter = data_of(production.log_in(email))

    data_of(production.admin.patch(f"/api/v1/users/{user['id']}", json={"is_verified": False}))

    refused(production.client.get("/api/v1/profile", headers=bearer(letter["access_token"])), ErrorCode.INVALID_TOKEN)
    answer = production.client.post("/api/v1/auth/refresh", json={"refresh_token": letter["refresh_token"]})
    refused(answer, ErrorCode.INVALID_REFRESH_TOKEN)

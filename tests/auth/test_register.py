"""Registration where an account works at once."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID, uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD, Account
from tests.support.answers import at_once, data_of, refused, refused_fields

REGISTER = "/api/v1/auth/register"
LOGIN = "/api/v1/auth/login"


def letter(email: str, **more: object) -> dict[str, object]:
    return {"email": email, "password": PASSWORD, **more}


def somebody() -> str:
    return uuid4().hex


def test_a_new_account_is_shown_without_its_secrets(client: httpx2.Client) -> None:
    name = somebody()

    user = data_of(client.post(REGISTER, json=letter(f"{name}@example.com", username=name)), 201)

    assert user.keys() == {"id", "email", "username", "is_active", "is_verified", "roles", "created_at"}
    assert user["email"] == f"{name}@example.com"
    assert user["username"] == name
    assert user["is_active"] is True
    assert user["is_verified"] is False
    assert user["roles"] == ["user"]
    assert UUID(user["id"]).version == 7
    assert str(UUID(user["id"])) == user["id"]
    assert datetime.fromisoformat(user["created_at"]).utcoffset() is not None


def test_a_username_is_optional(client: httpx2.Client) -> None:
    user = data_of(client.post(REGISTER, json=letter(f"{somebody()}@example.com")), 201)

    assert user["username"] is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{0}@example.com", "{0}@example.com"),
        ("{0}@example.com", "{0}@EXAMPLE.com"),
        ("admin{0}@example.com", "Admin{0}@example.com"),
        ("admin{0}@example.com", "ａｄｍｉｎ{0}@example.com"),  # noqa: RUF001 - the full-width letters are the point
        ("{0}@example.com", "{0}＠ｅxample．com"),  # noqa: RUF001 - as above
        ("straße{0}@example.com", "STRASSE{0}@example.com"),
        ("{0}@müller.example", "{0}@xn--mller-kva.example"),
        ("{0}@xn--mller-kva.example", "{0}@MÜLLER.example"),
        ("{0}@straße.example", "{0}@xn--strae-oqa.example"),
        ("{0}@example.com", " {0}@example.com "),
        ("username_key{0}@example.com", "username_key{0}@example.com"),
    ],
)
def test_one_mailbox_is_one_account_however_it_is_spelled(client: httpx2.Client, first: str, second: str) -> None:
    who = somebody()
    data_of(client.post(REGISTER, json=letter(first.format(who))), 201)

    answer = client.post(REGISTER, json=letter(second.format(who)))

    refused(answer, ErrorCode.EMAIL_TAKEN)
    data_of(client.post(LOGIN, json={"email": second.format(who), "password": PASSWORD}))


def test_of_many_who_register_one_mailbox_at_once_one_gets_it(client: httpx2.Client) -> None:
    email = f"{somebody()}@example.com"

    answers = at_once([lambda: client.post(REGISTER, json=letter(email))] * 6)

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    for answer in answers:
        if answer.status_code == 409:
            refused(answer, ErrorCode.EMAIL_TAKEN)


def test_a_username_is_unique_without_regard_to_case_and_width(client: httpx2.Client) -> None:
    name = somebody()
    data_of(client.post(REGISTER, json=letter(f"{somebody()}@example.com", username=name)), 201)

    for spelling in (name, name.upper(), name.translate({ord("a"): "ａ", ord("0"): "０"})):  # noqa: RUF001 - the point
        refused(
            client.post(REGISTER, json=letter(f"{somebody()}@example.com", username=spelling)), ErrorCode.USERNAME_TAKEN
        )


@pytest.mark.parametrize(
    "password", ["password1234", "123456789012", "qwertyuiopas", "aaaaaaaaaaaaaaaa", "letmeinletmein"]
)
def test_a_password_that_is_easy_to_guess_is_refused(client: httpx2.Client, password: str) -> None:
    answer = client.post(REGISTER, json={"email": f"{somebody()}@example.com", "password": password})

    refused(answer, ErrorCode.WEAK_PASSWORD)


def test_ones_own_address_is_easy_to_guess(client: httpx2.Client) -> None:
    name = "brunhilde.von.quellstein"

    answer = client.post(REGISTER, json={"email": f"{name}@example.com", "password": name})

    refused(answer, ErrorCode.WEAK_PASSWORD)


@pytest.mark.parametrize("password", ["undercroft123", "Undercroft2026"])
def test_the_services_own_name_is_easy_to_guess(client: httpx2.Client, password: str) -> None:
    answer = client.post(REGISTER, json={"email": f"{somebody()}@example.com", "password": password})

    refused(answer, ErrorCode.WEAK_PASSWORD)


@pytest.mark.parametrize("password", ["short-9x!kq", "", "x" * 1025, 12345678901234, None])
def test_a_password_that_is_too_short_or_no_password_is_malformed(client: httpx2.Client, password: object) -> None:
    answer = client.post(REGISTER, json={"email": f"{somebody()}@example.com", "password": password})

    assert refused_fields(answer) == {"password"}
    assert not password or str(password) not in answer.text


@pytest.mark.parametrize(
    "email",
    [
        *("", "nobody", "nobody@", "@example.com", "a b@example.com", "a@b@example.com", "a@-.com", "a@example..com"),
        *("a\x00@example.com", "a\n@example.com", f"{'a' * 250}@example.com", f"a@{'b' * 250}.com", 7, None),
    ],
)
def test_what_is_no_address_is_refused(client: httpx2.Client, email: object) -> None:
    answer = client.post(REGISTER, json={"email": email, "password": PASSWORD})

    assert refused_fields(answer) == {"email"}


@pytest.mark.parametrize("username", ["ab", "x" * 65, "two words", "a/b", "tab\there", "\ufdfa" * 64, 7])
def test_what_is_no_username_is_refused(client: httpx2.Client, username: object) -> None:
    answer = client.post(REGISTER, json=letter(f"{somebody()}@example.com", username=username))

    assert refused_fields(answer) == {"username"}


def test_what_the_letter_does_not_know_is_refused(client: httpx2.Client) -> None:
    answer = client.post(REGISTER, json=letter(f"{somebody()}@example.com", roles=["admin"]))

    assert refused_fields(answer) == {"roles"}


def test_a_refused_registration_leaves_nothing_behind(client: httpx2.Client, register: Callable[[], Account]) -> None:
    name, email = somebody(), f"{somebody()}@example.com"
    data_of(client.post(REGISTER, json=letter(f"{somebody()}@example.com", username=name)), 201)
    refused(client.post(REGISTER, json=letter(email, username=name)), ErrorCode.USERNAME_TAKEN)

    data_of(client.post(REGISTER, json=letter(email)), 201)


def test_an_idempotency_key_is_accepted(client: httpx2.Client) -> None:
    email = f"{somebody()}@example.com"

    data_of(client.post(REGISTER, json=letter(email), headers={"Idempotency-Key": somebody()}), 201)

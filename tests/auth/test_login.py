"""Log-in with a password, by JSON and by the OAuth2 form, and changing the password."""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, OpenSession
from tests.conftest import PASSWORD, Account
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields, told

TOKEN = "/api/v1/auth/token"
NEW_PASSWORD = "violet-harbour-engine-47"


def test_a_log_in_gives_a_pair_of_tokens(client: httpx2.Client, register: Callable[[], Account]) -> None:
    account = register()

    letter = data_of(client.post(LOGIN, json={"email": account.email, "password": account.password}))

    assert letter.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert letter["token_type"] == "bearer"
    assert letter["expires_in"] == 600
    assert data_of(client.get("/api/v1/profile", headers=bearer(letter["access_token"])))["id"] == account.id


def test_nobody_learns_why_a_log_in_failed(
    client: httpx2.Client, admin: httpx2.Client, register: Callable[[], Account]
) -> None:
    there, disabled, deleted = register(), register(), register()
    data_of(admin.patch(f"/api/v1/users/{disabled.id}", json={"is_active": False}))
    data_of(admin.delete(f"/api/v1/users/{deleted.id}"))

    def attempt(email: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        answer = client.post(LOGIN, json={"email": email, "password": password})
        refused(answer, ErrorCode.INVALID_CREDENTIALS)
        return told(answer)

    unknown = attempt(f"{uuid4().hex}@example.com", PASSWORD)
    assert attempt(there.email, "wrong-but-long-enough") == unknown
    assert attempt(there.email, "short") == unknown
    assert attempt(there.email, "") == unknown
    assert attempt(disabled.email, PASSWORD) == unknown
    assert attempt(deleted.email, PASSWORD) == unknown
    assert attempt("no address at all", PASSWORD) == unknown


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"email": "a@example.com"}, {"password"}),
        ({"password": PASSWORD}, {"email"}),
        ({"email": "a@example.com", "password": PASSWORD, "otp": "1"}, {"otp"}),
        ({"email": ["a@example.com"], "password": {"$ne": ""}}, {"email", "password"}),
        ({"email": "a\x00@example.com", "password": PASSWORD}, {"email"}),
        ({"email": "a@example.com", "password": "x" * 1025}, {"password"}),
    ],
)
def test_a_malformed_log_in_names_the_field_and_echoes_nothing(
    client: httpx2.Client, body: dict[str, object], fields: set[str]
) -> None:
    answer = client.post(LOGIN, json=body)

    assert refused_fields(answer) == fields
    assert PASSWORD not in answer.text


def test_the_form_gives_the_body_that_the_standard_fixes(
    client: httpx2.Client, register: Callable[[], Account]
) -> None:
    """RFC 6749 §5.1."""
    account = register()

    answer = client.post(
        TOKEN, data={"grant_type": "password", "username": account.email, "password": account.password}
    )

    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert answer.json()["token_type"].lower() == "bearer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    data_of(client.get("/api/v1/profile", headers=bearer(answer.json()["access_token"])))


def test_the_form_does_without_a_grant_type_as_many_clients_do(
    client: httpx2.Client, register: Callable[[], Account]
) -> None:
    account = register()

    assert client.post(TOKEN, data={"username": account.email, "password": account.password}).status_code == 200


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"grant_type=password&username=nobody%40example.com&password=wrong", FORM, "invalid_grant"),
        (b"grant_type=password&username=nobody%40example.com&password=", FORM, "invalid_request"),
        (b"grant_type=password&username=nobody%40example.com", FORM, "invalid_request"),
        (b"grant_type=password&password=wrong", FORM, "invalid_request"),
        (b"", FORM, "invalid_request"),
        (b"\xff\xfe%%%&&==", FORM, "invalid_request"),
        (b"grant_type=client_credentials&username=a&password=b", FORM, "unsupported_grant_type"),
        (b"grant_type=refresh_token", FORM, "unsupported_grant_type"),
        (b"grant_type=password&username=a&username=b&password=c", FORM, "invalid_request"),
        (b"grant_type=password&username=a%00b&password=c", FORM, "invalid_request"),
        (b"grant_type=password&username=" + b"a" * 1000 + b"&password=c", FORM, "invalid_request"),
        (b"grant_type=password&username=a&password=" + b"c" * 1025, FORM, "invalid_request"),
        (b'{"username": "a", "password": "b"}', "application/json", "invalid_request"),
        (b"no parts", "multipart/form-data", "invalid_request"),
        (b"no parts", "multipart/form-data; boundary=x", "invalid_request"),
        (
            b'--x\r\nContent-Disposition: form-data; name="username"; filename="f"\r\n\r\na\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "invalid_request",
        ),
    ],
)
def test_the_form_is_refused_in_the_words_of_the_standard(
    client: httpx2.Client, body: bytes, content_type: str, error: str
) -> None:
    """RFC 6749 §5.2."""
    answer = client.post(TOKEN, content=body, headers={"Content-Type": content_type})

    assert (answer.status_code, answer.json()) == (400, {"error": error})
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_new_password_ends_all_sessions(client: httpx2.Client, open_session: OpenSession) -> None:
    here = open_session()
    there = open_session(here.account)

    data_of(here.post("password/change", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}))

    for session in (here, there):
        refused(session.profile(), ErrorCode.INVALID_TOKEN)
        refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)
    old, new = (
        client.post(LOGIN, json={"email": here.account.email, "password": password})
        for password in (PASSWORD, NEW_PASSWORD)
    )
    refused(old, ErrorCode.INVALID_CREDENTIALS)
    data_of(new)


def test_a_refused_change_of_the_password_changes_nothing(client: httpx2.Client, open_session: OpenSession) -> None:
    session = open_session()

    wrong = session.post("password/change", {"current_password": "not this one", "new_password": NEW_PASSWORD})
    weak = session.post("password/change", {"current_password": PASSWORD, "new_password": "password1234"})
    short = session.post("password/change", {"current_password": PASSWORD, "new_password": "short"})
    nobody = client.post(
        "/api/v1/auth/password/change", json={"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    )

    refused(wrong, ErrorCode.INVALID_CREDENTIALS)
    refused(weak, ErrorCode.WEAK_PASSWORD)
    assert refused_fields(short) == {"new_password"}
    refused(nobody, ErrorCode.NOT_AUTHENTICATED)
    data_of(session.profile())
    data_of(session.refresh())


def test_of_many_changes_at_once_with_one_old_password_one_counts(
    client: httpx2.Client, open_session: OpenSession
) -> None:
    session = open_session()
    wanted = [f"{NEW_PASSWORD}-{number}" for number in range(4)]

    def change(new: str) -> httpx2.Response:
        return session.post("password/change", {"current_password": PASSWORD, "new_password": new})

    answers = at_once([partial(change, new) for new in wanted])

    assert [answer.status_code for answer in answers].count(200) == 1
    for new, answer in zip(wanted, answers, strict=True):
        log_in = client.post(LOGIN, json={"email": session.account.email, "password": new})
        assert (log_in.status_code == 200) == (answer.status_code == 200)

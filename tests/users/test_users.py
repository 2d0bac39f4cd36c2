"""Accounts as administrators and their owners see them."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlmodel import col, select

from src.shared.errors import ErrorCode
from src.users.models import User
from tests.conftest import PASSWORD, Account
from tests.support.answers import data_of, refused, refused_fields
from tests.support.postgres import Kind
from tests.support.tables import execute
from tests.users.conftest import Hire, MakeRole

USERS = "/api/v1/users"
LOGIN = "/api/v1/auth/login"
Register = Callable[[], Account]
Login = Callable[[Account], httpx2.Client]


def listed(client: httpx2.Client, **filters: str | bool) -> list[dict[str, Any]]:  # Any: JSON
    page = data_of(client.get(USERS, params={"size": 100, **filters}))
    assert page.keys() == {"items", "total", "page", "size", "pages"}
    items: list[dict[str, Any]] = page["items"]  # Any: as above
    return items


def make(admin: httpx2.Client, email: str = "", **more: object) -> dict[str, Any]:  # Any: JSON
    letter = {"email": email or f"{uuid4().hex}@example.com", "password": PASSWORD, **more}
    user: dict[str, Any] = data_of(admin.post(USERS, json=letter), 201)  # Any: JSON
    return user


def test_an_administrator_creates_an_account_that_works_at_once(client: httpx2.Client, admin: httpx2.Client) -> None:
    user = make(admin, username=uuid4().hex)

    assert user.keys() == {"id", "email", "username", "is_active", "is_verified", "roles", "created_at"}
    assert user["is_verified"] is True
    assert user["roles"] == ["user"]
    data_of(client.post(LOGIN, json={"email": user["email"], "password": PASSWORD}))
    refused(admin.post(USERS, json={"email": user["email"].upper(), "password": PASSWORD}), ErrorCode.EMAIL_TAKEN)
    letter = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "username": user["username"].upper()}
    refused(admin.post(USERS, json=letter), ErrorCode.USERNAME_TAKEN)
    refused(admin.post(USERS, json=letter | {"password": "password1234"}), ErrorCode.WEAK_PASSWORD)


def test_a_malformed_letter_is_complained_about_once(admin: httpx2.Client) -> None:
    answer = admin.post(USERS, json={"email": "nobody", "password": "short"})

    errors = refused(answer, ErrorCode.INVALID_REQUEST)["errors"]
    assert [error["field"] for error in errors] == ["email", "password"]


@pytest.mark.parametrize("word", ["yes", "true", "0", 1])
def test_a_flag_is_true_or_false_and_no_word_for_it(admin: httpx2.Client, word: object) -> None:
    user = make(admin)

    answer = admin.patch(f"{USERS}/{user['id']}", json={"is_active": word})

    assert refused_fields(answer) == {"is_active"}


def test_an_account_is_created_once_for_one_key(admin: httpx2.Client) -> None:
    letter = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    key = {"Idempotency-Key": uuid4().hex}

    first, second = (admin.post(USERS, json=letter, headers=key) for _ in range(2))

    data_of(first, 201)
    assert (second.status_code, second.content) == (201, first.content)
    assert second.headers["Idempotency-Replayed"] == "true"


def test_creating_an_account_with_a_role_takes_the_right_to_give_it(
    admin: httpx2.Client, hire: Hire, make_role: MakeRole
) -> None:
    role = make_role("order:read")
    clerk, chief = hire("user:create", "order:read"), hire("user:create", "role:assign", "order:read")

    def create(somebody: httpx2.Client, role: str) -> httpx2.Response:
        letter = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "roles": ["user", role]}
        return somebody.post(USERS, json=letter)

    refused(create(clerk, role), ErrorCode.PERMISSION_DENIED)
    refused(create(chief, "admin"), ErrorCode.GRANT_NOT_HELD)
    refused(create(chief, "no such role"), ErrorCode.ROLE_NOT_FOUND)
    assert data_of(create(chief, role), 201)["roles"] == sorted(["user", role])


def test_the_list_is_filtered_and_sorted(admin: httpx2.Client, make_role: MakeRole) -> None:
    mark, role = uuid4().hex, make_role()
    first = make(admin, f"b-{mark}@example.com", roles=["user", role])
    second = make(admin, f"A-{mark}@example.com", is_verified=False)
    third = make(admin, f"c-{mark}@example.org")
    data_of(admin.patch(f"{USERS}/{third['id']}", json={"is_active": False}))

    def found(**filters: str | bool) -> list[str]:
        return [user["id"] for user in listed(admin, email=mark, **filters)]

    b, a, c = first["id"], second["id"], third["id"]
    assert found() == [b, a, c]
    assert found(sort="-created_at") == [c, a, b]
    assert found(sort="email") == [a, b, c]
    assert found(sort="-email") == [c, b, a]
    assert found(is_active=False) == [c]
    assert found(is_verified=False) == [a]
    assert found(is_verified=True, is_active=True) == [b]
    assert found(role=role) == [b]
    assert found(role="no such role") == []
    assert [user["id"] for user in listed(admin, email=f"{mark.upper()}@EXAMPLE.org")] == [c]
    assert refused_fields(admin.get(USERS, params={"sort": "password_hash"})) == {"query.sort"}
    assert refused_fields(admin.get(USERS, params={"emial": mark})) == {"query.emial"}


def test_the_filter_of_addresses_has_no_wildcards(admin: httpx2.Client) -> None:
    mark = uuid4().hex
    make(admin, f"x{mark}@example.com")
    underscore = make(admin, f"x_{mark}@example.com")

    assert [user["id"] for user in listed(admin, email=f"x_{mark}")] == [underscore["id"]]
    assert listed(admin, email=f"x%{mark}") == []


@pytest.mark.parametrize("part", ["jörg", "@müller", "JÖRG", "xn--mller-kva", "example"])
def test_an_address_is_found_by_its_letters_and_by_what_they_stand_for(admin: httpx2.Client, part: str) -> None:
    mark = uuid4().hex
    user = make(admin, f"jörg{mark}@müller.example")

    assert user["id"] in [one["id"] for one in listed(admin, email=part, sort="-created_at")]


def test_the_list_comes_in_pages(admin: httpx2.Client) -> None:
    mark = uuid4().hex
    made = [make(admin, f"{number}-{mark}@example.com")["id"] for number in range(3)]

    pages = [data_of(admin.get(USERS, params={"email": mark, "size": 2, "page": page})) for page in (1, 2, 3)]

    assert [user["id"] for page in pages for user in page["items"]] == made
    assert [(page["total"], page["pages"], page["page"], page["size"]) for page in pages] == [
        (3, 2, number, 2) for number in (1, 2, 3)
    ]


def test_a_user_in_the_list_shows_no_secrets(admin: httpx2.Client, register: Register) -> None:
    account = register()

    users = listed(admin, email=account.email)

    assert [user.keys() for user in users] == [{"id", "email", "username", "is_active", "is_verified", "created_at"}]


def test_the_routes_of_accounts_ask_for_their_permissions(
    client: httpx2.Client, hire: Hire, register: Register
) -> None:
    target, nobody = register(), hire()

    def attempt(somebody: httpx2.Client) -> dict[str, httpx2.Response]:
        return {
            "user:read": somebody.get(USERS),
            "user:read one": somebody.get(f"{USERS}/{target.id}"),
            "user:create": somebody.post(USERS, json={}),
            "user:update": somebody.patch(f"{USERS}/{target.id}", json={}),
            "user:delete": somebody.delete(f"{USERS}/{target.id}"),
            "role:assign": somebody.put(f"{USERS}/{target.id}/roles", json={"roles": []}),
            "role:read": somebody.get("/api/v1/roles"),
            "role:read permissions": somebody.get("/api/v1/permissions"),
        }

    for answer in attempt(client).values():
        refused(answer, ErrorCode.NOT_AUTHENTICATED)
    for needs, answer in attempt(nobody).items():
        assert refused(answer, ErrorCode.PERMISSION_DENIED)["required"] == [needs.partition(" ")[0]]
    for needs, answer in attempt(hire("user", "role:*")).items():
        assert answer.status_code == (422 if needs == "user:create" else 404 if needs == "role:assign" else 200), needs


def test_a_profile_is_ones_own(register: Register, login: Login) -> None:
    account, name = register(), uuid4().hex
    mine = login(account)

    changed = data_of(mine.patch("/api/v1/profile", json={"username": name}))

    assert changed == data_of(mine.get("/api/v1/profile"))
    assert (changed["id"], changed["username"], changed["roles"]) == (account.id, name, ["user"])
    other = login(register())
    refused(other.patch("/api/v1/profile", json={"username": name.upper()}), ErrorCode.USERNAME_TAKEN)
    assert data_of(mine.patch("/api/v1/profile", json={"username": None}))["username"] is None
    data_of(other.patch("/api/v1/profile", json={"username": name.upper()}))


@pytest.mark.parametrize("field", ["is_active", "is_verified", "roles", "email", "id", "auth_epoch"])
def test_a_profile_cannot_be_given_what_is_not_its_owners_to_give(register: Register, login: Login, field: str) -> None:
    answer = login(register()).patch("/api/v1/profile", json={field: True})

    assert refused_fields(answer) == {field}


def test_an_administrator_changes_an_account(admin: httpx2.Client, register: Register) -> None:
    account, name = register(), uuid4().hex
    user = f"{USERS}/{account.id}"

    changed = data_of(admin.patch(user, json={"username": name, "is_verified": True}))

    assert (changed["username"], changed["is_verified"], changed["is_active"]) == (name, True, True)
    assert data_of(admin.patch(user, json={})) == changed
    assert data_of(admin.get(user)) == changed
    refused(admin.patch(f"{USERS}/{register().id}", json={"username": name}), ErrorCode.USERNAME_TAKEN)


@pytest.mark.parametrize("user_id", [str(UUID(int=0)), "0198c0de-0000-7000-8000-000000000001"])
def test_nobody_is_not_found(admin: httpx2.Client, user_id: str) -> None:
    for answer in (
        admin.get(f"{USERS}/{user_id}"),
        admin.patch(f"{USERS}/{user_id}", json={"is_active": True}),
        admin.delete(f"{USERS}/{user_id}"),
        admin.put(f"{USERS}/{user_id}/roles", json={"roles": ["user"]}),
    ):
        refused(answer, ErrorCode.USER_NOT_FOUND)


@pytest.mark.parametrize("user_id", ["1", "me", "{id}", "ID", "nohyphens"])
def test_an_id_has_one_spelling(admin: httpx2.Client, register: Register, user_id: str) -> None:
    account = register()
    spelled = {"{id}": f"{{{account.id}}}", "ID": account.id.upper(), "nohyphens": account.id.replace("-", "")}

    answer = admin.get(f"{USERS}/{spelled.get(user_id, user_id)}")

    assert refused_fields(answer) == {"path.user_id"}


def test_a_deleted_account_is_nobody_any_more(
    client: httpx2.Client, admin: httpx2.Client, register: Register, login: Login, database_url: str
) -> None:
    account = register()
    name = uuid4().hex
    data_of(login(account).patch("/api/v1/profile", json={"username": name}))

    assert data_of(admin.delete(f"{USERS}/{account.id}")) is None

    refused(admin.get(f"{USERS}/{account.id}"), ErrorCode.USER_NOT_FOUND)
    refused(admin.delete(f"{USERS}/{account.id}"), ErrorCode.USER_NOT_FOUND)
    assert listed(admin, email=account.email) == []
    rows = execute(database_url, select(User.__table__).where(col(User.id) == UUID(account.id)))  # type: ignore[attr-defined] # SQLModel makes it
    assert len(rows) == 1
    kept = str(rows[0])
    assert account.email not in kept
    assert name not in kept
    # Address and name are free again.
    letter = {"email": account.email, "password": PASSWORD, "username": name}
    data_of(client.post("/api/v1/auth/register", json=letter), 201)


def test_an_account_is_deleted_once_for_one_key(admin: httpx2.Client, register: Register) -> None:
    user, key = f"{USERS}/{register().id}", {"Idempotency-Key": uuid4().hex}

    first, second = (admin.delete(user, headers=key) for _ in range(2))

    assert (first.status_code, second.status_code, second.content) == (200, 200, first.content)


def test_the_numbers_are_for_administrators(
    admin: httpx2.Client, hire: Hire, register: Register, login: Login, database_kind: Kind
) -> None:
    refused(login(register()).get("/api/v1/admin/stats"), ErrorCode.ROLE_REQUIRED)
    refused(hire("*").get("/api/v1/admin/stats"), ErrorCode.ROLE_REQUIRED)

    assert data_of(admin.get("/api/v1/admin/stats"))["users"].keys() == {"total", "active", "verified"}


def test_an_administrator_ends_the_sessions_of_somebody(
    admin: httpx2.Client, register: Register, login: Callable[[Account], httpx2.Client]
) -> None:
    account = register()
    phone, laptop = login(account), login(account)

    assert data_of(admin.delete(f"/api/v1/users/{account.id}/sessions")) is None

    for device in (phone, laptop):
        refused(device.get("/api/v1/profile"), ErrorCode.INVALID_TOKEN)
    data_of(login(account).get("/api/v1/profile"))
    refused(admin.delete(f"/api/v1/users/{uuid4()}/sessions"), ErrorCode.USER_NOT_FOUND)


def test_who_holds_less_does_not_end_an_administrators_sessions(
    admin: httpx2.Client, register: Register, login: Callable[[Account], httpx2.Client], hire: Hire
) -> None:
    boss = register()
    data_of(admin.put(f"/api/v1/users/{boss.id}/roles", json={"roles": ["admin"]}))
    device = login(boss)

    refused(hire("user:*").delete(f"/api/v1/users/{boss.id}/sessions"), ErrorCode.GRANT_NOT_HELD)

    data_of(device.get("/api/v1/profile"))

"""Patterns, Authentication and authorization: who may pass, and what wrong use says at import."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from src.auth import owner_or_perm, require_permissions, require_roles
from tests.conftest import Account

LogIn = Callable[[Account], httpx2.Client]

SECRET_WORDS = ("hash", "secret", "password", "key", "epoch", "token", "deleted")


@pytest.fixture
def account(register: Callable[[], Account]) -> Account:
    return register()


@pytest.fixture
def member(account: Account, login: LogIn) -> httpx2.Client:
    """Somebody with the rights that everybody has."""
    return login(account)


def call(somebody: httpx2.Client, method: str, path: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
    answer = somebody.request(method, path, json={"any": "thing"} if method == "POST" else None)
    return answer.status_code, answer.json()


PROTECTED = [("GET", "/profile"), ("POST", "/users"), ("GET", "/admin/stats"), ("GET", "/any")]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_without_a_login_nobody_passes(client: httpx2.Client, method: str, path: str) -> None:
    status, body = call(client, method, path)

    assert (status, body["code"], body["data"]) == (401, 10001, None)


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_a_token_that_is_none_of_ours_does_not_pass(client: httpx2.Client, method: str, path: str) -> None:
    client.headers["Authorization"] = "Bearer x.y.z"

    status, body = call(client, method, path)

    assert (status, body["code"]) == (401, 10003)


def test_whoever_is_logged_in_gets_the_profile(member: httpx2.Client, account: Account) -> None:
    status, body = call(member, "GET", "/profile")

    assert (status, body["code"], body["msg"]) == (200, 200, "success")
    assert (body["data"]["id"], body["data"]["email"]) == (account.id, account.email)


def test_a_profile_has_no_secret(member: httpx2.Client) -> None:
    _, body = call(member, "GET", "/profile")

    assert not [name for name in body["data"] if any(word in name for word in SECRET_WORDS)]


def test_without_the_permission_it_is_refused(member: httpx2.Client) -> None:
    status, body = call(member, "POST", "/users")

    assert (status, body["code"], body["data"]["required"]) == (403, 30001, ["user:create"])


def test_with_the_permission_it_is_done_and_no_value_is_null(admin: httpx2.Client) -> None:
    assert call(admin, "POST", "/users") == (200, {"code": 200, "msg": "success", "data": None})


def test_without_the_role_it_is_refused(member: httpx2.Client) -> None:
    status, body = call(member, "GET", "/admin/stats")

    assert (status, body["code"], body["data"]["required"]) == (403, 30002, ["admin"])


def test_with_the_role_it_is_done(admin: httpx2.Client) -> None:
    assert call(admin, "GET", "/admin/stats") == (200, {"code": 200, "msg": "success", "data": None})


def test_one_of_several_permissions_is_enough_where_any_will_do(admin: httpx2.Client, member: httpx2.Client) -> None:
    assert call(admin, "GET", "/any")[0] == 200
    assert call(member, "GET", "/any")[0] == 403


def test_the_owner_passes_and_so_does_who_holds_the_permission(
    member: httpx2.Client, account: Account, admin: httpx2.Client
) -> None:
    diary = f"/diaries/{account.id}"

    assert call(member, "GET", diary) == (200, {"code": 200, "msg": "success", "data": f"Dear {account.id}"})
    assert call(admin, "GET", diary)[0] == 200


def test_who_neither_owns_it_nor_holds_the_permission_is_refused(
    client: httpx2.Client, account: Account, register: Callable[[], Account], login: LogIn
) -> None:
    diary = f"/diaries/{account.id}"

    assert call(client, "GET", diary)[0] == 401
    assert call(login(register()), "GET", diary)[0] == 403


def test_the_body_of_the_pattern_is_checked_before_nobody_reads_it(admin: httpx2.Client) -> None:
    answer = admin.post("/users", json=["no", "object"])

    assert (answer.status_code, answer.json()["code"]) == (422, 40001)


async def owner() -> None: ...


WRONG: dict[str, Callable[[], object]] = {
    "no permission": require_permissions,
    "a permission without an action": lambda: require_permissions("user"),
    "a permission with two": lambda: require_permissions("user:create:all"),
    "an empty permission": lambda: require_permissions(""),
    "a wildcard": lambda: require_permissions("user:*"),
    "capitals": lambda: require_permissions("User:Create"),
    "one bad among good": lambda: require_permissions("user:create", "user create"),
    "a list of permissions": lambda: require_permissions(["user:create"]),  # type: ignore[arg-type] # that is the test
    "a bad match": lambda: require_permissions("user:create", match="some"),  # type: ignore[arg-type] # as above
    "no role": require_roles,
    "an empty role": lambda: require_roles(""),
    "a list of roles": lambda: require_roles(["admin"]),  # type: ignore[arg-type] # as above
    "a number as role": lambda: require_roles(1),  # type: ignore[arg-type] # as above
    "an owner that is no function": lambda: owner_or_perm("owner", "user:read"),  # type: ignore[arg-type] # as above
    "an owner without permission": lambda: owner_or_perm(owner, ()),
    "an owner with a bad permission": lambda: owner_or_perm(owner, "user"),
}


@pytest.mark.parametrize("use", WRONG.values(), ids=WRONG)
def test_wrong_use_fails_where_it_is_typed(use: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        use()

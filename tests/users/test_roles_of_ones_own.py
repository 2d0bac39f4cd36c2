"""Roles that an administrator makes: who may, what they can hold, and when a change counts."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import Account

Login = Callable[[Account], httpx2.Client]


@pytest.fixture
def role(admin: httpx2.Client) -> dict[str, Any]:
    answer = admin.post("/api/v1/roles", json={"name": f"r-{uuid4().hex}", "permissions": ["user:read", "product:*"]})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()["data"]
    return made


def give(admin: httpx2.Client, account: Account, *names: str) -> None:
    answer = admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": ["user", *names]})
    assert answer.status_code == 200, answer.text


def test_a_role_is_made_read_listed_changed_and_deleted(admin: httpx2.Client, role: dict[str, Any]) -> None:
    assert role["permissions"] == ["product:*", "user:read"]
    assert admin.get(f"/api/v1/roles/{role['id']}").json()["data"] == role
    assert role in admin.get("/api/v1/roles").json()["data"]

    changed = admin.patch(f"/api/v1/roles/{role['id']}", json={"description": "Reads", "permissions": ["user:read"]})
    assert changed.status_code == 200, changed.text
    assert changed.json()["data"] == role | {"description": "Reads", "permissions": ["user:read"]}

    assert admin.delete(f"/api/v1/roles/{role['id']}").status_code == 200
    assert admin.get(f"/api/v1/roles/{role['id']}").json()["code"] == 20004


def test_what_a_role_gives_counts_for_the_next_request_and_so_does_what_it_takes(
    admin: httpx2.Client, register: Callable[[], Account], login: Login, role: dict[str, Any]
) -> None:
    account = register()
    somebody = login(account)
    assert somebody.get("/api/v1/users").status_code == 403

    give(admin, account, role["name"])
    assert somebody.get("/api/v1/users").status_code == 200

    admin.patch(f"/api/v1/roles/{role['id']}", json={"permissions": []})
    assert somebody.get("/api/v1/users").json()["code"] == 10003  # every token from before the change is void
    assert login(account).get("/api/v1/users").json()["code"] == 30001


def test_deleting_a_role_takes_it_from_its_members(
    admin: httpx2.Client, register: Callable[[], Account], login: Login, role: dict[str, Any]
) -> None:
    account = register()
    give(admin, account, role["name"])

    assert admin.delete(f"/api/v1/roles/{role['id']}").status_code == 200

    member = login(account)
    assert member.get("/api/v1/users").status_code == 403
    assert member.get("/api/v1/profile").json()["data"]["roles"] == ["user"]


@pytest.mark.parametrize("name", ["admin", "user"])
def test_a_system_role_stays_as_it_is(admin: httpx2.Client, name: str) -> None:
    role_id = next(role["id"] for role in admin.get("/api/v1/roles").json()["data"] if role["name"] == name)

    for refused in (
        admin.patch(f"/api/v1/roles/{role_id}", json={"permissions": []}),
        admin.delete(f"/api/v1/roles/{role_id}"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (409, 20007)


def test_a_role_holds_only_what_its_maker_holds(
    admin: httpx2.Client, register: Callable[[], Account], login: Login
) -> None:
    maker, name = register(), f"maker-{uuid4().hex}"
    admin.post("/api/v1/roles", json={"name": name, "permissions": ["role:*", "user:read"]})
    give(admin, maker, name)
    somebody = login(maker)

    for permission in ("*", "user", "user:*", "user:update", "order:read"):
        refused = somebody.post("/api/v1/roles", json={"name": f"x-{uuid4().hex}", "permissions": [permission]})
        assert (refused.status_code, refused.json()["data"]) == (403, {"missing": [permission]})
    made = somebody.post("/api/v1/roles", json={"name": f"x-{uuid4().hex}", "permissions": ["user:read"]})
    assert made.status_code == 201

    stronger = admin.post("/api/v1/roles", json={"name": f"s-{uuid4().hex}", "permissions": ["order:read"]})
    refused = somebody.delete(f"/api/v1/roles/{stronger.json()['data']['id']}")
    assert refused.json()["code"] == 30003


def test_a_permission_that_no_route_asks_for_is_refused(admin: httpx2.Client) -> None:
    refused = admin.post("/api/v1/roles", json={"name": "typo", "permissions": ["usr:read", "user:read"]})

    assert (refused.status_code, refused.json()["code"]) == (422, 30004)
    assert refused.json()["data"] == {"unknown": ["usr:read"]}


def test_a_name_is_given_once(admin: httpx2.Client, role: dict[str, Any]) -> None:
    again = admin.post("/api/v1/roles", json={"name": role["name"], "permissions": []})
    renamed = admin.patch(f"/api/v1/roles/{role['id']}", json={"name": "admin"})

    assert [again.json()["code"], renamed.json()["code"]] == [20006, 20006]


def test_roles_are_for_those_who_may(register: Callable[[], Account], login: Login, role: dict[str, Any]) -> None:
    somebody = login(register())

    answers = [
        somebody.get("/api/v1/roles"),
        somebody.get(f"/api/v1/roles/{role['id']}"),
        somebody.post("/api/v1/roles", json={"name": "mine", "permissions": []}),
        somebody.patch(f"/api/v1/roles/{role['id']}", json={}),
        somebody.delete(f"/api/v1/roles/{role['id']}"),
    ]

    assert [answer.json()["code"] for answer in answers] == [30001] * len(answers)

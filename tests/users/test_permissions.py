"""The grammar of permissions, and the guards that are made of it."""

from typing import Any

import pytest

from src.auth import owner_or_perm, require_permissions, require_roles
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.users.permissions import PERMISSIONS, Grants, check_name, holds, missing

NOBODY = Grants(frozenset(), frozenset())


def holding(*permissions: str, roles: tuple[str, ...] = ()) -> Grants:
    return Grants(frozenset(roles), frozenset(permissions))


@pytest.mark.parametrize(
    ("held", "required", "enough"),
    [
        ("order:read", "order:read", True),
        ("order", "order:read", True),
        ("order:*", "order:read", True),
        ("*", "order:read", True),
        ("order:read", "order:update", False),
        ("order:update", "order:read", False),
        ("order:read", "orders:read", False),
        ("orders", "order:read", False),
        ("order", "orders:read", False),
        ("product:*", "order:read", False),
        ("order:rea", "order:read", False),
        ("order:read:all", "order:read", False),
        ("*:read", "order:read", False),
        ("*:*", "order:read", False),
        ("order:", "order:read", False),
        ("", "order:read", False),
        ("ORDER:READ", "order:read", False),
    ],
)
def test_what_is_held_satisfies_what_is_required(held: str, required: str, enough: bool) -> None:  # noqa: FBT001 - a table
    assert holds({held}, required) is enough
    assert holding(held).allow(required) is enough


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        (["*"], ["*", "user", "user:*", "user:read"], []),
        (["user"], ["user", "user:*", "user:read"], []),
        (["user:*"], ["user", "user:*", "user:read"], []),
        (["user:*"], ["*", "role:read"], ["*", "role:read"]),
        (["user:read"], ["user:read"], []),
        (["user:read"], ["user", "user:*", "user:delete"], ["user", "user:*", "user:delete"]),
        (sorted(PERMISSIONS), ["*"], ["*"]),
        ([], [], []),
    ],
)
def test_nobody_can_give_more_than_they_hold(held: list[str], wanted: list[str], lacking: list[str]) -> None:
    assert missing(held, wanted) == sorted(lacking)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_each_permission_of_the_registry_is_well_formed(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "user",
        "user:",
        ":read",
        "user:*",
        "*",
        "*:read",
        "user:read:all",
        "User:read",
        "user read",
        "user:read\n",
        "üser:read",
    ],
)
def test_a_route_cannot_require_what_is_no_permission(name: Any) -> None:  # Any: what a type checker would have seen
    with pytest.raises(ValueError, match="module:action"):
        require_permissions(name)
    with pytest.raises(ValueError, match="module:action"):
        owner_or_perm(lambda: None, [name])


def test_wrong_use_of_a_guard_is_told_when_it_is_written() -> None:
    with pytest.raises(TypeError):
        require_permissions()
    with pytest.raises(TypeError):
        require_roles()
    with pytest.raises(TypeError):
        require_roles("")
    with pytest.raises(TypeError):
        owner_or_perm(lambda: None, [])
    wrong: Any = "some"  # Any: what a type checker would have seen
    with pytest.raises(ValueError, match="'all' or 'any'"):
        require_permissions("user:read", match=wrong)


@pytest.mark.parametrize(
    ("held", "all_", "any_"),
    [
        ((), False, False),
        (("user:read",), False, True),
        (("role:read",), False, True),
        (("user:read", "role:read"), True, True),
        (("user", "role:*"), True, True),
        (("*",), True, True),
        (("order:read",), False, False),
    ],
)
async def test_a_guard_wants_all_permissions_or_any(held: tuple[str, ...], all_: bool, any_: bool) -> None:  # noqa: FBT001 - a table
    grants = holding(*held)

    assert await _passes(require_permissions("user:read", "role:read"), grants) is all_
    assert await _passes(require_permissions("user:read", "role:read", match="all"), grants) is all_
    assert await _passes(require_permissions("user:read", "role:read", match="any"), grants) is any_


async def test_a_refusal_names_what_is_required() -> None:
    guard = require_permissions("user:read", "role:read", match="any")

    with pytest.raises(BusinessException) as refusal:
        await guard(grants=NOBODY)

    assert refusal.value.code is ErrorCode.PERMISSION_DENIED
    assert refusal.value.data == {"required": ["user:read", "role:read"], "match": "any"}


async def test_one_of_the_roles_is_enough_and_a_permission_is_no_role() -> None:
    guard = require_roles("admin", "auditor")

    await guard(grants=holding(roles=("auditor", "user")))
    with pytest.raises(BusinessException) as refusal:
        await guard(grants=holding("*", roles=("user",)))

    assert refusal.value.code is ErrorCode.ROLE_REQUIRED


async def _passes(guard: Any, grants: Grants) -> bool:  # Any: the guard without what FastAPI adds
    try:
        await guard(grants=grants)
    except BusinessException:
        return False
    return True

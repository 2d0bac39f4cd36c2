"""Roles of a test's own, and people who have them."""

from collections.abc import Callable
from uuid import uuid4

import httpx2
import pytest
from sqlmodel import insert

from src.mixins import utc_now
from src.shared.types import new_id
from src.users.models import Role, RolePermission
from tests.conftest import Account
from tests.support.answers import data_of
from tests.support.tables import execute

MakeRole = Callable[..., str]
Hire = Callable[..., httpx2.Client]


@pytest.fixture
def make_role(database_url: str) -> MakeRole:
    """A role with these permissions; gives its name."""

    def make(*permissions: str) -> str:
        role_id, name, now = new_id(), f"role-{uuid4().hex}", utc_now()
        row = {"id": role_id, "name": name, "description": "", "is_system": False, "created_at": now, "updated_at": now}
        execute(database_url, insert(Role).values(row))
        for permission in permissions:
            execute(database_url, insert(RolePermission).values(role_id=role_id, permission=permission))
        return name

    return make


@pytest.fixture
def hire(
    admin: httpx2.Client,
    make_role: MakeRole,
    register: Callable[[], Account],
    login: Callable[[Account], httpx2.Client],
) -> Hire:
    """A client of somebody with these permissions."""

    def hire_somebody(*permissions: str, account: Account | None = None) -> httpx2.Client:
        account = account or register()
        roles = ["user", make_role(*permissions)]
        data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": roles}))
        return login(account)

    return hire_somebody

"""Giving and taking roles: what counts, at once, and what nobody can do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from src.users.permissions import PERMISSIONS
from tests.conftest import PASSWORD, PATIENT, Account
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import run_command, running_server
from tests.users.conftest import Hire, MakeRole

USERS = "/api/v1/users"
Register = Callable[[], Account]
Login = Callable[[Account], httpx2.Client]


def give(client: httpx2.Client, account: Account, *roles: str) -> httpx2.Response:
    return client.put(f"{USERS}/{account.id}/roles", json={"roles": list(roles)})


def test_roles_are_replaced(admin: httpx2.Client, register: Register, make_role: MakeRole) -> None:
    account, role = register(), make_role("order:read")

    answer = data_of(give(admin, account, role, role))

    assert answer == data_of(admin.get(f"{USERS}/{account.id}"))
    assert answer["roles"] == [role]
    assert data_of(give(admin, account))["roles"] == []
    assert data_of(give(admin, account, "user", role))["roles"] == sorted(["user", role])


def test_a_role_counts_for_the_next_request(
    admin: httpx2.Client, register: Register, login: Login, make_role: MakeRole
) -> None:
    account, role = register(), make_role("user:read")
    client = login(account)
    refused(client.get(USERS), ErrorCode.PERMISSION_DENIED)

    data_of(give(admin, account, "user", role))
    data_of(client.get(USERS))

    # What is taken away ends the tokens that were made while it was held.
    data_of(give(admin, account, "user"))
    refused(client.get(USERS), ErrorCode.INVALID_TOKEN)
    refused(login(account).get(USERS), ErrorCode.PERMISSION_DENIED)


def test_an_account_that_is_disabled_or_deleted_is_nobody_for_the_next_request(
    admin: httpx2.Client, register: Register, login: Login
) -> None:
    disabled, deleted = register(), register()
    clients = [login(disabled), login(deleted)]

    data_of(admin.patch(f"{USERS}/{disabled.id}", json={"is_active": False}))
    data_of(admin.delete(f"{USERS}/{deleted.id}"))

    for client in clients:
        refused(client.get("/api/v1/profile"), ErrorCode.INVALID_TOKEN)


def test_an_unknown_role_is_not_found_and_changes_nothing(admin: httpx2.Client, register: Register) -> None:
    account, unknown = register(), uuid4().hex

    assert refused(give(admin, account, unknown), ErrorCode.ROLE_NOT_FOUND) == {"missing": [unknown]}

    assert data_of(admin.get(f"{USERS}/{account.id}"))["roles"] == ["user"]


@pytest.mark.parametrize("roles", ["admin", [""], [None], ["x" * 65], ["a\x00b"], ["user"] * 33, None])
def test_what_is_no_list_of_roles_is_refused(admin: httpx2.Client, register: Register, roles: object) -> None:
    answer = admin.put(f"{USERS}/{register().id}/roles", json={"roles": roles})

    assert {field.partition(".")[0] for field in refused_fields(answer)} == {"roles"}


@pytest.mark.parametrize(
    ("held", "given", "lacking"),
    [
        (["order:read"], ["order:read"], []),
        (["order"], ["order:*"], []),
        (["order:*", "user:read"], ["order:read", "user:read"], []),
        (["order:read"], ["order:update"], ["order:update"]),
        (["order:read", "order:update"], ["order:*"], ["order:*"]),
        (sorted(PERMISSIONS), ["*"], ["*"]),
    ],
)
def test_one_can_give_and_take_what_one_holds(  # noqa: PLR0913, PLR0917 - fixtures and a table
    admin: httpx2.Client,
    hire: Hire,
    register: Register,
    make_role: MakeRole,
    held: list[str],
    given: list[str],
    lacking: list[str],
) -> None:
    chief, account, role = hire("role:assign", *(p for p in held if p != "role:assign")), register(), make_role(*given)

    answers = [give(chief, account, "user", role)]
    data_of(give(admin, account, "user", role))
    answers.append(give(chief, account, "user"))

    for answer in answers:
        if lacking:
            assert refused(answer, ErrorCode.GRANT_NOT_HELD) == {"missing": lacking}
        else:
            data_of(answer)


def test_nobody_makes_themselves_an_administrator(hire: Hire, register: Register) -> None:
    account = register()
    chief = hire(*sorted(PERMISSIONS), account=account)

    assert refused(give(chief, account, "user", "admin"), ErrorCode.GRANT_NOT_HELD) == {"missing": ["*"]}


def test_nobody_takes_the_role_of_an_administrator_who_is_none(
    admin: httpx2.Client, hire: Hire, register: Register
) -> None:
    boss = register()
    data_of(give(admin, boss, "admin"))

    refused(give(hire(*sorted(PERMISSIONS)), boss, "user"), ErrorCode.GRANT_NOT_HELD)


def test_roles_and_permissions_are_listed(admin: httpx2.Client, make_role: MakeRole) -> None:
    role = make_role("order:update", "order:read")

    roles = {one["name"]: one for one in data_of(admin.get("/api/v1/roles"))}
    permissions = data_of(admin.get("/api/v1/permissions"))

    assert all(one.keys() >= {"id", "name", "description", "is_system", "permissions"} for one in roles.values())
    assert (roles["admin"]["is_system"], roles["admin"]["permissions"]) == (True, ["*"])
    assert (roles["user"]["is_system"], roles["user"]["permissions"]) == (True, [])
    assert (roles[role]["is_system"], roles[role]["permissions"]) == (False, ["order:read", "order:update"])
    assert {one["name"] for one in permissions} == set(PERMISSIONS)


class Company:
    """A service with exactly two administrators."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.emails = ["one@example.com", "two@example.com"]

    def log_in(self, email: str) -> dict[str, str]:
        letter = {"email": email, "password": PASSWORD}
        return bearer(data_of(self.client.post("/api/v1/auth/login", json=letter))["access_token"])

    def admins(self) -> dict[str, str]:
        """id by e-mail, of those who can log in and are administrators."""
        found = {}
        for email in self.emails:
            profile = data_of(self.client.get("/api/v1/profile", headers=self.log_in(email)))
            if "admin" in profile["roles"]:
                found[email] = profile["id"]
        return found


@pytest.fixture
def company(database_kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with ExitStack() as stack:
        url = fresh_database(database_kind)
        stack.callback(drop_database, url)
        env = {"DB__URL": url, **PATIENT}
        server = stack.enter_context(running_server(env))
        company = Company(stack.enter_context(httpx2.Client(base_url=server.url, timeout=15, verify=False)))
        for email in company.emails:
            made = run_command(
                "create-admin", "--email", email, env=env, cwd=tmp_path_factory.mktemp("c"), stdin=f"{PASSWORD}\n"
            )
            assert made.returncode == 0, made.stdout + made.stderr
        yield company


def test_the_last_administrator_stays(company: Company) -> None:
    """However many try at once, in whatever way, to remove each other or themselves."""
    admins = company.admins()
    one, two = admins
    tokens = {email: company.log_in(email) for email in admins}

    def demote(by: str, whom: str) -> httpx2.Response:
        return company.client.put(f"{USERS}/{admins[whom]}/roles", json={"roles": ["user"]}, headers=tokens[by])

    for _ in range(5):
        answers = at_once([partial(demote, one, two), partial(demote, two, one)])
        assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 403], [200, 409])
        (left,) = company.admins()
        removed = two if left == one else one
        tokens = {email: company.log_in(email) for email in admins}
        again = {"roles": ["user", "admin"]}
        data_of(company.client.put(f"{USERS}/{admins[removed]}/roles", json=again, headers=tokens[left]))
        tokens = {email: company.log_in(email) for email in admins}

    def resign(email: str) -> httpx2.Response:
        return demote(email, email)

    def disable(email: str) -> httpx2.Response:
        return company.client.patch(f"{USERS}/{admins[email]}", json={"is_active": False}, headers=tokens[email])

    answers = at_once([partial(resign, one), partial(disable, two)])
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    left = one if answers[1].status_code == 200 else two
    tokens = {left: company.log_in(left)}

    refused(resign(left), ErrorCode.LAST_ADMIN)
    refused(disable(left), ErrorCode.LAST_ADMIN)
    refused(company.client.delete(f"{USERS}/{admins[left]}", headers=tokens[left]), ErrorCode.LAST_ADMIN)
    data_of(company.client.get(USERS, headers=tokens[left]))

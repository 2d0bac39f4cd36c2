"""Ways to more rights through roles, their names, and accounts that have more of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from src.users.permissions import PERMISSIONS
from tests.attacks.people import API, Person, Town, town, town_of
from tests.attacks.queues import ADMIN_ROLE, in_a_queue
from tests.attacks.snapshot import changed, snapshot
from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import at_once, data_of, refused
from tests.support.mail import Mailbox
from tests.support.oidc import House
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import run_command, running_server

pytestmark = pytest.mark.long

__all__ = ["town"]

ROLES, USERS = f"{API}/roles", f"{API}/users"
# Every action on roles, and no wildcard.
CHIEF = ("role:read", "role:create", "role:update", "role:delete", "role:assign", "user:read")
MORE = ["*", "user", "user:*", "user:update", "role", "role:*", "order:read", "product"]
# What a careless comparison, or another service, would take for one of those above.
LOOK_ALIKES = [
    " user:read",
    "user:read ",
    "user: read",
    "USER:READ",
    "User:read",
    "user:read\x00",
    "user:read\x00:x",
    "user:read\n",
    "user:read\u200b",
    "\ufeffuser:read",
    "us\u0435r:read",  # a Cyrillic e
    "\uff55ser:read",  # full width
    "user\uff1aread",
    "\u202euser:read",
    "\uff0a",
    "user:\u2217",
    "",
    " ",
    " *",
    "* ",
    "**",
    "*:*",
    "*:read",
    "*.*",
    ".*",
    "%",
    "user:",
    ":read",
    ":",
    "user:**",
    "user:*:*",
    "user:read:all",
    "user:read,*",
    "user:read *",
    "users:read",
    "user.read",
    "user:rea_",
    "admin",
    "role:assign' OR '1'='1",
    "x" * 128,
    "x" * 129,
]
# What looks like a role that there is, or is one.
TAKEN = ["admin", "user"]
NO_NAMES = [
    "Admin",
    "ADMIN",
    " admin",
    "admin ",
    "admin\x00",
    "admin\n",
    "admin\u200b",
    "\u00e1dmin",
    "a\u0301dmin",
    "\u0430dmin",
    "\uff41dmin",
    "adm\u0131n",
    "*",
    "",
    "-admin",
    "user:*",
]


def create(town: Town, by: Person, *permissions: str, name: str = "") -> httpx2.Response:
    letter = {"name": name or f"x-{uuid4().hex}", "permissions": list(permissions)}
    return town.ask(by, "POST", ROLES, json=letter)


def edit(town: Town, by: Person, role_id: str, **changes: object) -> httpx2.Response:
    return town.ask(by, "PATCH", f"{ROLES}/{role_id}", json=changes)


def give(town: Town, by: Person, user_id: str, *roles: str) -> httpx2.Response:
    return town.ask(by, "PUT", f"{USERS}/{user_id}/roles", json={"roles": list(roles)})


def hire(town: Town, by: Person, *roles: str) -> httpx2.Response:
    letter = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "roles": list(roles)}
    return town.ask(by, "POST", USERS, json=letter)


def change(town: Town, by: Person, user_id: str, **changes: object) -> httpx2.Response:
    return town.ask(by, "PATCH", f"{USERS}/{user_id}", json=changes)


def role_id_of(town: Town, name: str) -> str:
    return next(str(role["id"]) for role in data_of(town.ask(town.admin, "GET", ROLES)) if role["name"] == name)


def permissions_of(town: Town, role_id: str) -> list[str]:
    found: list[str] = data_of(town.ask(town.admin, "GET", f"{ROLES}/{role_id}"))["permissions"]
    return found


# --- What a role holds


@pytest.mark.parametrize("permission", MORE)
def test_no_role_is_made_that_holds_more_than_its_maker(town: Town, permission: str, database_url: str) -> None:
    chief, own = town.holder(*CHIEF), town.role_of(*CHIEF)
    weak = data_of(create(town, chief, "user:read"), 201)
    before = snapshot(database_url)

    for answer in (
        create(town, chief, permission),
        create(town, chief, "user:read", permission, "user:read", permission),
        edit(town, chief, weak["id"], permissions=["user:read", permission]),
        edit(town, chief, weak["id"], permissions=[permission]),
        edit(town, chief, role_id_of(town, own), permissions=[*CHIEF, permission]),
    ):
        assert refused(answer, ErrorCode.GRANT_NOT_HELD) == {"missing": [permission]}

    assert changed(before, snapshot(database_url)) == []
    data_of(create(town, town.admin, permission), 201)
    data_of(edit(town, chief, weak["id"], permissions=["user:read", "role:read"]))


@pytest.mark.either
@pytest.mark.parametrize("permission", LOOK_ALIKES)
def test_a_permission_has_one_spelling(town: Town, permission: str, database_url: str) -> None:
    """Refused to administrators too: what would it mean, once it was stored?"""
    chief = town.holder(*CHIEF)
    mine = data_of(create(town, chief, "user:read"), 201)
    before = snapshot(database_url)

    for by in (chief, town.admin):
        for answer in (
            create(town, by, permission),
            create(town, by, "user:read", permission),
            edit(town, by, mine["id"], permissions=[permission]),
        ):
            assert answer.json()["code"] in {ErrorCode.INVALID_REQUEST, ErrorCode.PERMISSION_UNKNOWN}, answer.text

    assert changed(before, snapshot(database_url)) == []


def test_all_permissions_together_are_no_wildcard(town: Town) -> None:
    nearly = town.holder(*sorted(PERMISSIONS))

    for permission in ("*", "role", "role:*", "user", "user:*"):
        assert refused(create(town, nearly, permission), ErrorCode.GRANT_NOT_HELD) == {"missing": [permission]}
    assert data_of(create(town, nearly, *PERMISSIONS), 201)["permissions"] == sorted(PERMISSIONS)


def test_a_permission_that_is_named_twice_is_held_once(town: Town) -> None:
    made = data_of(create(town, town.holder(*CHIEF), "user:read", "user:read"), 201)

    assert made["permissions"] == ["user:read"]
    assert permissions_of(town, made["id"]) == ["user:read"]


def test_a_role_that_holds_more_is_not_weakened_or_deleted(town: Town, database_url: str) -> None:
    chief, strong = town.holder(*CHIEF), town.new_role("user:read", "order:update")
    weak = data_of(create(town, chief, "user:read"), 201)
    before = snapshot(database_url)

    refused(edit(town, chief, strong["id"], permissions=["user:read"]), ErrorCode.GRANT_NOT_HELD)
    refused(edit(town, chief, strong["id"], permissions=[]), ErrorCode.GRANT_NOT_HELD)
    refused(town.ask(chief, "DELETE", f"{ROLES}/{strong['id']}"), ErrorCode.GRANT_NOT_HELD)

    assert changed(before, snapshot(database_url)) == []
    data_of(edit(town, chief, weak["id"], permissions=[]))
    data_of(town.ask(chief, "DELETE", f"{ROLES}/{weak['id']}"))


@pytest.mark.parametrize("name", TAKEN)
def test_a_system_role_is_nobodys_to_change(town: Town, name: str, database_url: str) -> None:
    role_id, chief = role_id_of(town, name), town.holder(*CHIEF)
    before = snapshot(database_url)

    for by in (chief, town.admin):
        for answer in (
            edit(town, by, role_id, permissions=["user:read"]),
            edit(town, by, role_id, permissions=[]),
            edit(town, by, role_id, name=f"x-{uuid4().hex}"),
            edit(town, by, role_id, description="mine"),
            town.ask(by, "DELETE", f"{ROLES}/{role_id}"),
        ):
            refused(answer, ErrorCode.SYSTEM_ROLE)

    assert changed(before, snapshot(database_url)) == []


# --- What a role is called


def refusal(name: str, by: Person, town: Town) -> ErrorCode:
    if name not in TAKEN:
        return ErrorCode.INVALID_REQUEST
    # Code demands this one by its name.
    return ErrorCode.GRANT_NOT_HELD if name == "admin" and by is not town.admin else ErrorCode.ROLE_NAME_TAKEN


@pytest.mark.parametrize("name", [*TAKEN, *NO_NAMES])
def test_no_role_is_called_like_one_of_the_house(town: Town, name: str, database_url: str) -> None:
    chief = town.holder(*CHIEF)
    mine = data_of(create(town, chief, "user:read"), 201)
    before = snapshot(database_url)

    for by in (chief, town.admin):
        for answer in (
            town.ask(by, "POST", ROLES, json={"name": name, "permissions": []}),
            edit(town, by, mine["id"], name=name),
        ):
            refused(answer, refusal(name, by, town))

    assert changed(before, snapshot(database_url)) == []
    fresh = f"x-{uuid4().hex}"
    assert data_of(edit(town, chief, mine["id"], name=fresh))["name"] == fresh


def test_who_holds_less_does_not_swap_the_names_of_roles(town: Town) -> None:
    """Roles are given by their names: who exchanges two of them waits until an administrator gives the weak one."""
    clerk, strong, weak = town.holder("role:update", "user:read"), town.new_role("*"), town.new_role("user:read")

    refused(edit(town, clerk, strong["id"], name=f"x-{uuid4().hex}"), ErrorCode.GRANT_NOT_HELD)

    data_of(edit(town, clerk, weak["id"], name=f"x-{uuid4().hex}"))
    data_of(edit(town, town.admin, strong["id"], name=f"x-{uuid4().hex}"))


# --- Who has a role


def test_nobody_gives_or_takes_what_they_do_not_hold(town: Town, database_url: str) -> None:
    chief, other, boss = town.holder(*CHIEF, "user:create"), town.member(), town.new_actor("admin")
    assert boss is not None
    own, strong = town.role_of(*CHIEF, "user:create"), town.new_role("order:*")["name"]
    data_of(give(town, town.admin, other.id, "user", strong))
    before = snapshot(database_url)

    for answer in (
        give(town, chief, chief.id, "user", own, "admin"),
        give(town, chief, chief.id, "admin", "admin"),
        give(town, chief, chief.id, "user", own, strong),
        give(town, chief, other.id, "user", strong, "admin"),
        give(town, chief, other.id, "user"),
        give(town, chief, other.id),
        give(town, chief, boss.id, "user"),
        give(town, chief, boss.id),
        hire(town, chief, "admin"),
        hire(town, chief, "user", strong),
    ):
        refused(answer, ErrorCode.GRANT_NOT_HELD)
    for name in ("Admin", "ADMIN", "admin ", "\u0430dmin", "\uff41dmin", "%", "adm_n"):
        refused(give(town, chief, chief.id, "user", own, name), ErrorCode.ROLE_NOT_FOUND)
        refused(hire(town, chief, name), ErrorCode.ROLE_NOT_FOUND)

    assert changed(before, snapshot(database_url)) == []
    assert data_of(give(town, chief, other.id, "user", strong, own))["roles"] == sorted(["user", strong, own])
    assert data_of(hire(town, chief, "user", own), 201)["roles"] == sorted(["user", own])


@pytest.mark.parametrize("roles", [["admin"], ["user"], ["user", "user"]])
def test_who_makes_accounts_gives_them_no_roles(town: Town, roles: list[str], database_url: str) -> None:
    clerk = town.holder("user:create")
    before = snapshot(database_url)

    refused(hire(town, clerk, *roles), ErrorCode.PERMISSION_DENIED)

    assert changed(before, snapshot(database_url)) == []
    assert data_of(hire(town, clerk), 201)["roles"] == ["user"]


# --- What was taken away while a request was under way


@pytest.mark.parametrize("deed", ["roles of an account", "permissions of a role", "an account"])
def test_what_was_taken_meanwhile_is_not_taken_back_by_who_lost_it(
    town: Town, deed: str, database_kind: Kind, database_url: str
) -> None:
    """Requests that were let in before, and wait for the end of what takes their right away, are judged after it."""
    for _ in range(1 if database_kind == "postgres" else 10):
        role = town.new_role("role:assign", "role:update", "user:update")
        chief = town.member(role["name"])
        take, give_back, lock = _deeds(town, chief, role)[deed]
        data_of(give_back())  # while it is theirs; and who they are is remembered now

        if database_kind == "postgres":
            taken, *others = in_a_queue(database_url, [take, give_back], lock=lock)
        else:
            taken, *others = at_once([take, give_back, give_back, give_back])

        data_of(taken)
        assert not _may_assign(town, chief), [other.text for other in others]


def _deeds(
    town: Town,
    chief: Person,
    role: dict[str, Any],  # Any: JSON
) -> dict[str, tuple[Callable[[], httpx2.Response], Callable[[], httpx2.Response], str]]:
    """Taking something from the chief, the chief's taking it back, and what both wait for."""
    return {
        "roles of an account": (
            partial(give, town, town.admin, chief.id, "user"),
            partial(give, town, chief, chief.id, "user", role["name"]),
            ADMIN_ROLE,
        ),
        "permissions of a role": (
            partial(edit, town, town.admin, role["id"], permissions=[]),
            partial(edit, town, chief, role["id"], permissions=role["permissions"]),
            ADMIN_ROLE,
        ),
        "an account": (
            partial(change, town, town.admin, chief.id, is_active=False),
            partial(change, town, chief, chief.id, is_active=True),
            f"SELECT id FROM users WHERE id = '{chief.id}' FOR UPDATE",
        ),
    }


def _may_assign(town: Town, chief: Person) -> bool:
    """After logging in once more, if that can be done."""
    answer = town.client.post(f"{API}/auth/login", json={"email": chief.email, "password": PASSWORD})
    if answer.status_code == 401:
        return False
    again = replace(chief, token=data_of(answer)["access_token"])
    answer = give(town, again, str(uuid4()), "user")
    assert answer.json()["code"] in {ErrorCode.USER_NOT_FOUND, ErrorCode.PERMISSION_DENIED}, answer.text
    return bool(answer.json()["code"] == ErrorCode.USER_NOT_FOUND)


def test_who_lost_nothing_meanwhile_gets_what_they_wait_for(town: Town, database_kind: Kind, database_url: str) -> None:
    """The control of the one above: a queue alone refuses nobody."""
    if database_kind == "sqlite":
        pytest.skip("a file has no queue that can be watched")
    role = town.new_role("role:assign", "role:update", "user:update")
    chief, own = town.member(role["name"]), role["name"]
    harmless, give_back = (
        partial(give, town, town.admin, town.account()[0], "user"),
        partial(give, town, chief, chief.id, "user", own),
    )

    for answer in in_a_queue(database_url, [harmless, give_back], lock=ADMIN_ROLE):
        data_of(answer)
    assert _may_assign(town, chief)


# --- Accounts that hold more than who changes them


@pytest.mark.parametrize("role", ["admin", "strong"])
@pytest.mark.parametrize("flag", ["is_active", "is_verified"])
def test_who_holds_less_does_not_switch_off_who_holds_more(town: Town, role: str, flag: str, database_url: str) -> None:
    """It takes away what `PUT /users/{id}/roles` would not let them take."""
    clerk, boss = town.holder("user:update", "user:read"), _superior(town, role)
    before = snapshot(database_url)

    refused(change(town, clerk, boss, **{flag: False}), ErrorCode.GRANT_NOT_HELD)

    assert changed(before, snapshot(database_url)) == []
    data_of(change(town, clerk, town.account()[0], **{flag: False}))
    data_of(change(town, town.admin, boss, **{flag: False}))


@pytest.mark.parametrize("role", ["admin", "strong"])
@pytest.mark.parametrize("flag", ["is_active", "is_verified"])
def test_who_holds_less_does_not_switch_on_who_holds_more(town: Town, role: str, flag: str, database_url: str) -> None:
    """An administrator who was let go, say, and who knows the password still."""
    clerk, boss, peer = town.holder("user:update", "user:read"), _superior(town, role), town.account()[0]
    data_of(change(town, town.admin, boss, **{flag: False}))
    data_of(change(town, town.admin, peer, **{flag: False}))
    before = snapshot(database_url)

    refused(change(town, clerk, boss, **{flag: True}), ErrorCode.GRANT_NOT_HELD)

    assert changed(before, snapshot(database_url)) == []
    data_of(change(town, clerk, peer, **{flag: True}))
    data_of(change(town, town.admin, boss, **{flag: True}))


@pytest.mark.parametrize("role", ["admin", "strong"])
def test_who_holds_less_does_not_delete_who_holds_more(town: Town, role: str, database_url: str) -> None:
    clerk, boss = town.holder("user:delete", "user:read"), _superior(town, role)
    before = snapshot(database_url)

    refused(town.ask(clerk, "DELETE", f"{USERS}/{boss}"), ErrorCode.GRANT_NOT_HELD)

    assert changed(before, snapshot(database_url)) == []
    data_of(town.ask(clerk, "DELETE", f"{USERS}/{town.account()[0]}"))
    data_of(town.ask(town.admin, "DELETE", f"{USERS}/{boss}"))


def _superior(town: Town, role: str) -> str:
    return town.account("admin" if role == "admin" else town.role_of("order:update"))[0]


# --- Roles that code demands by their names: see apps_guarded.py


@pytest.fixture(scope="module")
def house(
    database_kind: Kind, tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox, provider: House
) -> Iterator[Town]:
    """A service with such routes."""
    with ExitStack() as stack:
        url = fresh_database(database_kind)
        stack.callback(drop_database, url)
        env, email, folder = {"DB__URL": url, **PATIENT}, "root@example.com", tmp_path_factory.mktemp("house")
        made = run_command("create-admin", "--email", email, env=env, cwd=folder, stdin=f"{PASSWORD}\n")
        assert made.returncode == 0, made.stdout + made.stderr
        server = stack.enter_context(running_server(env, "tests.attacks.apps_guarded:app"))
        yield stack.enter_context(town_of(server, email, mailbox, url, provider))


def enters(house: Town, person: Person, room: str) -> bool:
    """With a token of after whatever happened."""
    answer = house.ask(house.log_in(person.email), "GET", f"/rooms/{room}")
    if answer.is_success:
        return True
    refused(answer, ErrorCode.ROLE_REQUIRED)
    return False


def test_a_name_that_code_demands_is_no_way_in(house: Town) -> None:
    """The whole attack: make a role of that name, which holds nothing, and give it to oneself."""
    chief, own = house.holder(*CHIEF), house.role_of(*CHIEF)

    create(house, chief, name="auditor")
    give(house, chief, chief.id, "user", own, "auditor")

    assert not enters(house, chief, "auditor")


def test_a_role_that_code_demands_is_made_by_who_may_do_everything(house: Town) -> None:
    refused(create(house, house.holder(*sorted(PERMISSIONS)), name="inspector"), ErrorCode.GRANT_NOT_HELD)

    data_of(create(house, house.holder("*"), name="inspector"), 201)
    auditor = house.member("inspector")
    assert enters(house, auditor, "inspector")
    assert not enters(house, auditor, "warden")


def test_a_role_is_renamed_to_what_code_demands_by_who_may_do_everything(house: Town) -> None:
    chief = house.holder(*CHIEF)
    role = data_of(create(house, chief), 201)
    data_of(edit(house, chief, role["id"], name=f"x-{uuid4().hex}"))

    refused(edit(house, chief, role["id"], name="warden"), ErrorCode.GRANT_NOT_HELD)

    assert data_of(edit(house, house.holder("*"), role["id"], name="warden"))["name"] == "warden"


def test_a_role_that_code_demands_is_given_by_who_has_it_or_may_do_everything(house: Town) -> None:
    house.new_role(name="registrar")
    chief, own = house.holder(*CHIEF, "user:create"), house.role_of(*CHIEF, "user:create")
    member, registrar = house.member(), house.member("registrar", own)

    refused(give(house, chief, chief.id, "user", own, "registrar"), ErrorCode.GRANT_NOT_HELD)
    refused(give(house, chief, member.id, "user", "registrar"), ErrorCode.GRANT_NOT_HELD)
    refused(hire(house, chief, "registrar"), ErrorCode.GRANT_NOT_HELD)
    assert not enters(house, member, "registrar")

    data_of(give(house, registrar, member.id, "user", "registrar"))
    assert enters(house, member, "registrar")
    data_of(hire(house, registrar, "registrar"), 201)
    data_of(give(house, house.holder("*"), house.account()[0], "registrar"))


def test_a_role_that_code_demands_is_taken_by_who_has_it_or_may_do_everything(house: Town) -> None:
    house.new_role(name="bursar")
    chief, own = house.holder(*CHIEF), house.role_of(*CHIEF)
    one, two, bursar = house.member("bursar"), house.member("bursar"), house.member("bursar", own)

    refused(give(house, chief, one.id, "user"), ErrorCode.GRANT_NOT_HELD)
    assert enters(house, one, "bursar")

    data_of(give(house, bursar, one.id, "user"))
    data_of(give(house, house.holder("*"), two.id, "user"))
    assert not enters(house, one, "bursar")
    assert not enters(house, two, "bursar")


@pytest.mark.parametrize("name", ["notary", "steward"])
def test_a_role_that_code_demands_is_not_taken_from_all_at_once(house: Town, name: str) -> None:
    """By deleting it, or by calling it something else."""
    role_id = house.new_role(name=name)["id"]
    chief, member = house.holder(*CHIEF), house.member(name)

    if name == "notary":
        refused(house.ask(chief, "DELETE", f"{ROLES}/{role_id}"), ErrorCode.GRANT_NOT_HELD)
    else:
        refused(edit(house, chief, role_id, name=f"x-{uuid4().hex}"), ErrorCode.GRANT_NOT_HELD)

    assert enters(house, member, name)
    data_of(edit(house, chief, role_id, description="It may be described"))

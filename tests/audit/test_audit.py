"""The audit log: what is written in it, who reads it, and that nobody else writes it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import ColumnClause, column, delete, insert, table, text
from sqlalchemy.exc import DBAPIError

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.mail import Mailbox
from tests.support.postgres import Kind
from tests.support.service import Place, Service, own_place
from tests.support.tables import execute

NEW_PASSWORD = "violet-harbour-engine-47"
AGENT = "canary/1.0 " + "x" * 400
Entry = dict[str, Any]  # Any: JSON


@pytest.fixture(scope="module")
def place(database_kind: Kind, mailbox: Mailbox) -> Iterator[Place]:
    with own_place(database_kind, MAIL__URL=mailbox.url, AUTH__LOGIN_FAILURES_PER_ACCOUNT="3") as place:
        yield place


class Company:
    """A service with an administrator, and what its log has."""

    def __init__(self, service: Service) -> None:
        self.service, self.client = service, service.client
        self.client.headers["User-Agent"] = AGENT
        self.admin = service.log_in()["access_token"]

    def entries(self, **filters: str) -> list[Entry]:
        page = data_of(self.service.get("audit", token=self.admin, size="100", **filters))
        entries: list[Entry] = page["items"]
        return entries

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> tuple[httpx2.Response, str]:
        """(answer, id of the request)"""
        own_id = uuid4().hex
        headers = {"X-Request-ID": own_id} | (bearer(token) if token else {})
        return self.client.request(method, f"/api/v1/{path}", json=body, headers=headers), own_id

    def join(self) -> tuple[str, str, str]:
        """(id, address, access token)"""
        email = self.service.register()
        token = self.service.log_in(email)["access_token"]
        return data_of(self.service.get("profile", token=token))["id"], email, token


@pytest.fixture(scope="module")
def company(place: Place) -> Iterator[Company]:
    with place.service() as service:
        yield Company(service)


def role(company: Company) -> str:
    name = f"r{uuid4().hex[:12]}"
    body = {"name": name, "permissions": ["user:read"]}
    made: Entry = data_of(company.service.post("roles", body, token=company.admin), 201)
    return str(made["id"])


def product(company: Company) -> str:
    body = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 100, "currency": "EUR", "stock": 5}
    made: Entry = data_of(company.service.post("products", body, token=company.admin), 201)
    return str(made["id"])


# What is done (method, path, body), as whom, and what the log then says (action, outcome, after).
Deed = Callable[[Company, str, str], tuple[str, str, object]]
MINE, ADMINS, NOBODYS = "mine", "an administrator's", "nobody's"
DEEDS: dict[str, tuple[Deed, str, str, str, Entry]] = {
    "log in": (
        lambda _, __, email: ("POST", "auth/login", {"email": email, "password": PASSWORD}),
        NOBODYS,
        "login.accepted",
        "done",
        {},
    ),
    "fail to log in": (
        lambda _, __, email: ("POST", "auth/login", {"email": email, "password": "wrong"}),
        NOBODYS,
        "login.refused",
        "refused",
        {},
    ),
    "log out everywhere": (lambda *_: ("POST", "auth/logout-all", None), MINE, "sessions.ended", "done", {}),
    "change the password": (
        lambda *_: ("POST", "auth/password/change", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}),
        MINE,
        "password.changed",
        "done",
        {},
    ),
    "fail to change the password": (
        lambda *_: ("POST", "auth/password/change", {"current_password": "wrong", "new_password": NEW_PASSWORD}),
        MINE,
        "password.not_confirmed",
        "refused",
        {},
    ),
    "ask for another address": (
        lambda *_: ("POST", "auth/email/change", {"current_password": PASSWORD, "new_email": "n@example.com"}),
        MINE,
        "email.change_requested",
        "done",
        {},
    ),
    "close the account": (
        lambda *_: ("POST", "profile/delete", {"current_password": PASSWORD}),
        MINE,
        "account.deleted",
        "done",
        {},
    ),
    "pause": (
        lambda *_: ("POST", "profile/deactivate", {"current_password": PASSWORD}),
        MINE,
        "account.updated",
        "done",
        {"is_active": False},
    ),
    "what is denied": (
        lambda *_: ("GET", "users", None),
        MINE,
        "access.denied",
        "refused",
        {"code": 30001, "last_of_its_minute": False},
    ),
    "what a role is missing for": (
        lambda *_: ("GET", "admin/stats", None),
        MINE,
        "access.denied",
        "refused",
        {"code": 30002, "last_of_its_minute": False},
    ),
    "create an account": (
        lambda *_: ("POST", "users", {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}),
        ADMINS,
        "account.created",
        "done",
        {"invited": False},
    ),
    "invite": (
        lambda *_: ("POST", "users", {"email": f"{uuid4().hex}@example.com"}),
        ADMINS,
        "account.created",
        "done",
        {"invited": True},
    ),
    "disable": (
        lambda _, user, __: ("PATCH", f"users/{user}", {"is_active": False}),
        ADMINS,
        "account.updated",
        "done",
        {"is_active": False},
    ),
    "delete": (lambda _, user, __: ("DELETE", f"users/{user}", None), ADMINS, "account.deleted", "done", {}),
    "give roles": (
        lambda _, user, __: ("PUT", f"users/{user}/roles", {"roles": ["admin", "user"]}),
        ADMINS,
        "roles.assigned",
        "done",
        {"roles": ["admin", "user"]},
    ),
    "change a role": (
        lambda company, *_: ("PATCH", f"roles/{role(company)}", {"permissions": ["audit:read"]}),
        ADMINS,
        "role.updated",
        "done",
        {"permissions": ["audit:read"]},
    ),
    "delete a role": (
        lambda company, *_: ("DELETE", f"roles/{role(company)}", None),
        ADMINS,
        "role.deleted",
        "done",
        {},
    ),
    "change a product": (
        lambda company, *_: ("PATCH", f"products/{product(company)}", {"price_minor": 150}),
        ADMINS,
        "product.updated",
        "done",
        {"price_minor": 150},
    ),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_deed_is_in_the_log_once_with_all_that_is_known_of_it(company: Company, deed: str) -> None:
    user, email, own = company.join()
    do, whose, action, outcome, after = DEEDS[deed]
    method, path, body = do(company, user, email)

    answer, request_id = company.ask(method, path, body, token={MINE: own, ADMINS: company.admin, NOBODYS: ""}[whose])

    assert answer.is_success == (outcome == "done"), answer.text
    (entry,) = company.entries(request_id=request_id)
    assert (entry["action"], entry["outcome"], entry["source"]) == (action, outcome, "http")
    assert after.items() <= entry["after"].items()
    assert (entry["address"], entry["user_agent"]) == ("127.0.0.1", AGENT[:255])
    if whose == MINE:
        assert entry["actor_id"] == user
    told = str(entry)
    assert email not in told  # it outlives the account
    assert PASSWORD not in told
    assert NEW_PASSWORD not in told


def test_a_change_says_what_was_before(company: Company) -> None:
    answer, request_id = company.ask(
        "PATCH", f"products/{product(company)}", {"price_minor": 150, "name": "Lamp"}, token=company.admin
    )
    data_of(answer)

    (entry,) = company.entries(request_id=request_id)
    assert (entry["before"], entry["after"]) == ({"price_minor": 100}, {"price_minor": 150})
    assert entry["target_type"] == "product"


def test_what_was_rolled_back_is_not_in_the_log(company: Company) -> None:
    body = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 100, "currency": "EUR", "stock": 5}
    first, first_id = company.ask("POST", "products", body, token=company.admin)
    second, second_id = company.ask("POST", "products", body, token=company.admin)

    data_of(first, 201)
    refused(second, ErrorCode.SKU_TAKEN)
    assert len(company.entries(request_id=first_id)) == 1
    assert company.entries(request_id=second_id) == []


def test_of_one_denial_so_many_are_noted_and_no_more(company: Company) -> None:
    user, _, own = company.join()

    for _ in range(15):
        refused(company.service.get("roles", token=own), ErrorCode.PERMISSION_DENIED)

    noted = company.entries(actor_id=user, action="access.denied")
    # The minute may have turned meanwhile.
    assert 10 <= len(noted) <= 15
    assert any(entry["after"]["last_of_its_minute"] for entry in noted) or len(noted) > 10


def test_a_limit_that_is_reached_is_noted_once(company: Company) -> None:
    user, email, _ = company.join()

    for _ in range(5):
        company.ask("POST", "auth/login", {"email": email, "password": "wrong"})

    noted = company.entries(target_id=user, action="login.refused")
    assert [entry["after"] for entry in noted] == [{"limits_reached": ["login-account"]}, {}, {}]


def test_the_log_is_filtered_and_comes_in_pages(company: Company) -> None:
    user, _, own = company.join()
    company.ask("GET", "users", token=own)

    assert {entry["action"] for entry in company.entries(actor_id=user)} >= {"login.accepted", "access.denied"}
    assert {entry["action"] for entry in company.entries(actor_id=user, action="login.")} == {"login.accepted"}
    assert {entry["outcome"] for entry in company.entries(outcome="refused")} == {"refused"}
    assert company.entries(since="2100-01-01T00:00:00Z") == []
    assert company.entries(until="2001-01-01T00:00:00Z") == []
    page = data_of(company.service.get("audit", token=company.admin, size="2"))
    assert len(page["items"]) == 2
    assert page["items"][0]["seq"] > page["items"][1]["seq"]
    assert page["total"] > 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("actor_id", "nobody"),
        ("outcome", "perhaps"),
        ("since", "yesterday"),
        ("since", "2026-01-01T00:00:00"),
        ("until", "0000-00-00"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59-12:00"),
        ("target_id", "a\x00b"),
        ("surplus", "1"),
    ],
)
def test_a_filter_that_is_none_is_refused(company: Company, name: str, value: str) -> None:
    assert refused_fields(company.service.get("audit", token=company.admin, **{name: value})) == {f"query.{name}"}


def test_the_log_is_for_those_who_may_read_it(company: Company) -> None:
    user, email, own = company.join()
    refused(company.service.get("audit", token=own), ErrorCode.PERMISSION_DENIED)
    refused(company.service.get("audit"), ErrorCode.NOT_AUTHENTICATED)

    name = f"auditor{uuid4().hex[:12]}"
    data_of(company.service.post("roles", {"name": name, "permissions": ["audit:read"]}, token=company.admin), 201)
    data_of(company.ask("PUT", f"users/{user}/roles", {"roles": [name]}, token=company.admin)[0])

    data_of(company.service.get("audit", token=company.service.log_in(email)["access_token"]))


def test_the_command_line_is_in_the_log_too(company: Company, place: Place) -> None:
    user, email, _ = company.join()

    assert place.run("deactivate", "--email", email)[0] == 0

    (entry,) = company.entries(target_id=user, action="account.updated")
    assert (entry["source"], entry["actor_id"], entry["after"]) == ("command", None, {"is_active": False})


def test_those_who_write_at_once_make_one_chain(company: Company, place: Place) -> None:
    def create() -> httpx2.Response:
        body = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 100, "currency": "EUR", "stock": 5}
        return company.service.post("products", body, token=company.admin)

    for answer in at_once([partial(create)] * 24):
        data_of(answer, 201)

    code, said = place.run("verify-audit")
    assert code == 0, said


@pytest.mark.parametrize("deed", ["UPDATE audit_entries SET outcome = 'done'", "DELETE FROM audit_entries"])
def test_the_database_refuses_to_change_an_entry(company: Company, place: Place, deed: str) -> None:
    before = company.entries()

    with pytest.raises(DBAPIError, match="append-only"):
        execute(place.database_url, text(deed))

    assert [entry["digest"] for entry in company.entries()][-len(before) :] == [entry["digest"] for entry in before]


# What somebody does who owns the database, and where the log is then seen to be broken.
TAMPERING = {
    "a changed entry": (["UPDATE audit_entries SET outcome = 'refused' WHERE seq = 2"], "entry 2 is not"),
    "another address": (["UPDATE audit_entries SET address = '192.0.2.1' WHERE seq = 1"], "entry 1 is not"),
    "an entry that is gone": (["DELETE FROM audit_entries WHERE seq = 2"], "entry 2 is missing"),
    "the first one gone": (["DELETE FROM audit_entries WHERE seq = 1"], "entry 1 is missing"),
    "the last one gone": (["DELETE FROM audit_entries WHERE seq = 6"], "it had an entry 6"),
    "two that changed places": (
        [
            "UPDATE audit_entries SET seq = 100 WHERE seq = 1",
            "UPDATE audit_entries SET seq = 1 WHERE seq = 2",
            "UPDATE audit_entries SET seq = 2 WHERE seq = 100",
        ],
        "entry 1 is not",
    ),
    "the end cut off, and the head with it": (
        [
            "DELETE FROM audit_entries WHERE seq > 4",
            "UPDATE audit_head SET seq = 4, digest = (SELECT digest FROM audit_entries WHERE seq = 4)",
        ],
        "it had an entry 6",
    ),
}


@dataclass(frozen=True)
class Vault:
    """A log without its guards, whose owner may do anything."""

    place: Place
    head: str
    tables: dict[str, list[dict[str, Any]]]  # Any: columns of any type

    def put_back(self) -> None:
        for name, rows in self.tables.items():
            execute(self.place.database_url, delete(table(name)))
            columns: list[ColumnClause[Any]] = [column(each) for each in rows[0]]  # Any: as above
            execute(self.place.database_url, insert(table(name, *columns)).values(rows))


@pytest.fixture(scope="module")
def vault(database_kind: Kind) -> Iterator[Vault]:
    with own_place(database_kind) as place:
        for name in ("one", "two"):
            code, output = place.run("create-admin", "--email", f"{name}@example.com", stdin=f"{PASSWORD}\n")
            assert code == 0, output
        code, output = place.run("verify-audit")
        assert code == 0, output
        _drop_triggers(place.database_url)
        tables = {
            name: [dict(row._mapping) for row in execute(place.database_url, text(f"SELECT * FROM {name}"))]
            for name in ("audit_entries", "audit_head")
        }
        yield Vault(place, output.split()[-1], tables)


@pytest.mark.parametrize("how", TAMPERING)
def test_whoever_changes_the_log_is_found_out(vault: Vault, how: str) -> None:
    statements, said = TAMPERING[how]
    for statement in statements:
        execute(vault.place.database_url, text(statement))

    code, output = vault.place.run("verify-audit", "--head", vault.head)
    vault.put_back()

    assert code == 1
    assert said in output


def test_a_log_that_was_put_back_is_intact(vault: Vault) -> None:
    code, output = vault.place.run("verify-audit", "--head", vault.head)

    assert code == 0, output


def _drop_triggers(url: str) -> None:
    if url.startswith("sqlite"):
        for deed in ("update", "delete"):
            execute(url, text(f"DROP TRIGGER audit_entries_no_{deed}"))
    else:
        execute(url, text("DROP TRIGGER audit_entries_append_only ON audit_entries"))


def test_a_log_that_another_key_wrote_is_not_ours(database_kind: Kind) -> None:
    with own_place(database_kind) as place:
        other = uuid4().hex + uuid4().hex
        assert place.run("verify-audit")[0] == 0
        assert place.run("verify-audit", AUTH__SECRET=other)[0] == 1
        previous = place.env["AUTH__SECRET"]
        assert place.run("verify-audit", AUTH__SECRET=other, AUTH__PREVIOUS_SECRETS=previous)[0] == 0


def test_a_deleted_person_is_in_the_log_without_a_name(company: Company) -> None:
    user, email, own = company.join()
    named = f"n{uuid4().hex[:16]}"
    data_of(company.ask("PATCH", "profile", {"username": named}, token=own)[0])
    data_of(company.ask("DELETE", f"users/{user}", token=company.admin)[0])

    of_them = company.entries(target_id=user)

    assert {entry["action"] for entry in of_them} >= {"account.registered", "account.updated", "account.deleted"}
    assert email not in str(of_them)
    assert named not in str(of_them)

"""Somebody else's id on each route that takes one: it tells what an id of nothing tells, and nothing happens to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.attacks.people import API, Person, Town, town
from tests.attacks.snapshot import changed, snapshot
from tests.auth.test_providers import Browser
from tests.support import oidc
from tests.support.answers import data_of, refused, told
from tests.support.truth import Schema, resolve

pytestmark = pytest.mark.either

__all__ = ["town"]

PATH, QUERY, BODY = "path", "query", "body"
# Goods, which anybody may read, and RFC 6749's name of a program, which we do not read.
PUBLIC = {"product_id", "client_id"}
OF_BROWSERS = "credential"
"""What a browser says of a passkey: its id is the passkey's own, and tests/auth/test_passkeys.py shows somebody else's."""


@dataclass(frozen=True)
class Case:
    """A thing of `owner`'s, as `send` asks for it by its id."""

    operation: str
    name: str
    thing: Callable[[Town, Person], str]
    send: Callable[[Town, Person, str], httpx2.Response]
    where: str = PATH
    strangers: tuple[tuple[str, ...], ...] = ((),)
    """Who asks in vain, by what they hold."""
    rightful: tuple[str, ...] | None = None
    """Who may, by what they hold; None is the owner."""
    owner_holds: tuple[str, ...] = ()


def call(operation: str, **how: Any) -> Callable[[Town, Person, str], httpx2.Response]:  # Any: as httpx has it
    method, _, path = operation.partition(" ")
    before, _, rest = path.partition("{")
    after = rest.partition("}")[2]
    return lambda town, who, given: town.ask(who, method, f"{before}{given}{after}", **how)


def of(
    operation: str, name: str, thing: Callable[[Town, Person], str], **more: Any
) -> Case:  # Any: fields, or as above
    how = {key: more.pop(key) for key in ("json", "headers") if key in more}
    return Case(operation, name, thing, call(operation, **how), **more)


def _order(town: Town, owner: Person) -> str:
    return town.order(owner)


def _session(town: Town, owner: Person) -> str:
    return town.session(owner)[0]


def _myself(_: Town, owner: Person) -> str:
    return owner.id


def _role(town: Town, _: Person) -> str:
    return str(town.new_role("order:read")["id"])


def _orders_of(town: Town, who: Person, customer_id: str) -> httpx2.Response:
    return town.ask(who, "GET", f"{API}/orders", params={"customer_id": customer_id})


def _paid_order(town: Town, owner: Person) -> str:
    return town.order(owner, "pay")


def _fulfilled_order(town: Town, owner: Person) -> str:
    return town.order(owner, "pay", "fulfil")


def _event(town: Town, _: Person) -> str:
    return town.dead_event()


def _with_an_order(town: Town, owner: Person) -> str:
    town.order(owner)
    return owner.id


def _invited(town: Town, _: Person) -> str:
    return town.invited()[0]


def _entries_by(name: str) -> Callable[[Town, Person, str], httpx2.Response]:
    return lambda town, who, given: town.ask(who, "GET", f"{API}/audit", params={name: given})


def _webhook(town: Town, owner: Person) -> str:
    return town.webhook(owner)


_pairs: list[tuple[str, str]] = []
"""Of a webhook and a delivery of it."""


def _delivery(town: Town, owner: Person) -> str:
    webhook_id = town.webhook(owner)
    _pairs.append((webhook_id, town.delivery(webhook_id)))
    return _pairs[-1][1]


def _webhook_with_a_delivery(town: Town, owner: Person) -> str:
    _delivery(town, owner)
    return _pairs[-1][0]


def _of_deliveries(method: str, end: str, *, by_webhook: bool) -> Callable[[Town, Person, str], httpx2.Response]:
    """What was made last is the other one's."""

    def send(town: Town, who: Person, given: str) -> httpx2.Response:
        webhook_id, delivery_id = (given, _pairs[-1][1]) if by_webhook else (_pairs[-1][0], given)
        return town.ask(who, method, f"{API}/webhooks/{webhook_id}/deliveries/{delivery_id}{end}")

    return send


# Holders of near misses ask, too: reading is not writing, and one's own module is not another's.
_USERS = ((), ("role:*", "order:*"))
_ROLES = ((), ("user:*", "order:*"))
_HOOKS: dict[str, Any] = {  # Any: fields of a case
    "strangers": ((), ("webhook:*", "order:*"), ("*",)),
    "owner_holds": ("webhook:*",),
}
CASES = [
    of(f"DELETE {API}/auth/sessions/{{session_id}}", "session_id", _session, strangers=((), ("user:*",), ("*",))),
    of(
        f"DELETE {API}/profile/security/api-keys/{{key_id}}",
        "key_id",
        lambda town, owner: town.api_key(owner)[0],
        strangers=((), ("user:*",), ("*",)),
    ),
    *(
        of(
            f"{method} {API}/profile/security/passkeys/{{passkey_id}}",
            "passkey_id",
            lambda town, owner: town.passkey(owner)[1],
            strangers=((), ("user:*",), ("*",)),
            **how,
        )
        for method, how in (("PATCH", {"json": {"name": "mine"}}), ("DELETE", {}))
    ),
    of(
        f"DELETE {API}/profile/security/providers/{{link_id}}",
        "link_id",
        lambda town, owner: town.provider_link(owner),
        strangers=((), ("user:*",), ("*",)),
    ),
    of(f"GET {API}/orders/{{order_id}}", "order_id", _order, strangers=((), ("order:update", "user:*"))),
    of(f"POST {API}/orders/{{order_id}}/cancel", "order_id", _order, strangers=((), ("order:read", "user:*"))),
    of(f"GET {API}/orders/{{order_id}}/timeline", "order_id", _order, strangers=((), ("order:update", "user:*"))),
    *(
        of(
            f"POST {API}/orders/{{order_id}}/{step}",
            "order_id",
            order,
            strangers=((), ("order:read", "user:*")),
            rightful=("order:update",),
        )
        for step, order in (("pay", _order), ("fulfil", _paid_order), ("return", _fulfilled_order))
    ),
    of(
        f"POST {API}/orders/{{order_id}}/payments",
        "order_id",
        _order,
        json={"source": "tok_approve"},
        headers={"Idempotency-Key": "mine"},
        strangers=((), ("order:read", "user:*")),
    ),
    of(f"GET {API}/orders/{{order_id}}/payments", "order_id", _order, strangers=((), ("order:update", "user:*"))),
    of(
        f"GET {API}/payments/{{payment_id}}",
        "payment_id",
        lambda town, owner: town.payment(owner),
        strangers=((), ("order:update", "user:*")),
    ),
    of(
        f"POST {API}/outbox/{{event_id}}/retry",
        "event_id",
        _event,
        strangers=((), ("outbox:read", "order:*")),
        rightful=("outbox:retry",),
    ),
    Case(f"GET {API}/orders", "customer_id", _with_an_order, _orders_of, QUERY, ((), ("order:update", "user:*"))),
    of(
        f"GET {API}/users/{{user_id}}",
        "user_id",
        _myself,
        strangers=(*_USERS, ("user:update",)),
        rightful=("user:read",),
    ),
    of(
        f"PATCH {API}/users/{{user_id}}",
        "user_id",
        _myself,
        json={"is_active": False},
        strangers=(*_USERS, ("user:read",)),
        rightful=("user:update",),
    ),
    of(
        f"DELETE {API}/users/{{user_id}}",
        "user_id",
        _myself,
        strangers=(*_USERS, ("user:read", "user:update")),
        rightful=("user:delete",),
    ),
    of(
        f"DELETE {API}/users/{{user_id}}/sessions",
        "user_id",
        _myself,
        strangers=(*_USERS, ("user:read", "user:delete")),
        rightful=("user:update",),
    ),
    of(
        f"DELETE {API}/users/{{user_id}}/api-keys",
        "user_id",
        _myself,
        strangers=(*_USERS, ("user:read", "user:delete")),
        rightful=("user:update",),
    ),
    of(
        f"DELETE {API}/users/{{user_id}}/second-factors",
        "user_id",
        lambda town, _: town.guarded()[0].id,
        strangers=(*_USERS, ("user:read", "user:delete")),
        rightful=("user:update",),
    ),
    of(
        f"POST {API}/users/{{user_id}}/invitation",
        "user_id",
        _invited,
        strangers=(*_USERS, ("user:read", "user:update")),
        rightful=("user:create",),
    ),
    *(
        Case(f"GET {API}/audit", name, _myself, _entries_by(name), QUERY, ((), ("user:*", "role:*")), ("audit:read",))
        for name in ("actor_id", "target_id", "request_id")
    ),
    of(
        f"PUT {API}/users/{{user_id}}/roles",
        "user_id",
        _myself,
        json={"roles": []},
        strangers=((), ("user:*",), ("role:read", "role:update")),
        rightful=("role:assign",),
    ),
    of(f"GET {API}/roles/{{role_id}}", "role_id", _role, strangers=_ROLES, rightful=("role:read",)),
    of(
        f"PATCH {API}/roles/{{role_id}}",
        "role_id",
        _role,
        json={"description": "mine"},
        strangers=(*_ROLES, ("role:read", "role:assign")),
        rightful=("role:update",),
    ),
    of(
        f"PUT {API}/roles/{{role_id}}/second-factor",
        "role_id",
        _role,
        json={"required": True},
        strangers=(*_ROLES, ("role:read", "role:assign")),
        rightful=("role:update", "order:read"),
    ),
    *(
        of(f"{method} {API}/webhooks/{{webhook_id}}{end}", "webhook_id", _webhook, **_HOOKS, **how)
        for method, end, how in (
            ("GET", "", {}),
            ("PATCH", "", {"json": {"description": "mine"}}),
            ("DELETE", "", {}),
            ("POST", "/secret", {}),
            ("POST", "/test", {}),
            ("GET", "/deliveries", {}),
        )
    ),
    *(
        Case(
            f"{method} {API}/webhooks/{{webhook_id}}/deliveries/{{delivery_id}}{end}",
            "webhook_id" if by_webhook else "delivery_id",
            _webhook_with_a_delivery if by_webhook else _delivery,
            _of_deliveries(method, end, by_webhook=by_webhook),
            **_HOOKS,
        )
        for method, end in (("GET", ""), ("POST", "/redeliver"))
        for by_webhook in (True, False)
    ),
    of(
        f"DELETE {API}/roles/{{role_id}}",
        "role_id",
        _role,
        strangers=(*_ROLES, ("role:read", "role:update")),
        rightful=("role:delete", "order:read"),
    ),
]


def ids_of(town: Town) -> set[tuple[str, str, str]]:
    """(operation, where, name) of each id that the document asks for."""
    return {
        (operation, where, name)
        for operation, documented in town.operations().items()
        for where, name, schema in _inputs(town.document, documented)
        if name.rpartition("_")[2] in {"id", "ids"} or _is_id(town.document, schema)
    }


def _inputs(document: Schema, operation: Schema) -> Iterator[tuple[str, str, Schema]]:
    for parameter in operation.get("parameters", ()):
        yield parameter["in"], parameter["name"], parameter["schema"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, schema in _properties(document, content["schema"]):
            yield BODY, name, schema


def _properties(document: Schema, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Of an object and of all that is in it."""
    if "$ref" in schema:
        yield from _properties(document, resolve(document, schema["$ref"]))
    for part in (*schema.get("anyOf", ()), *schema.get("allOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from _properties(document, part)
    for name, part in schema.get("properties", {}).items():
        if name == OF_BROWSERS:
            continue
        yield name, part
        yield from _properties(document, part)


def _is_id(document: Schema, schema: Schema) -> bool:
    if "$ref" in schema:
        return _is_id(document, resolve(document, schema["$ref"]))
    parts = (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ()))
    return schema.get("format") == "uuid" or any(_is_id(document, part) for part in parts)


def test_each_id_that_a_route_takes_has_a_case_or_is_public(town: Town) -> None:
    asked_for = {(operation, where, name) for operation, where, name in ids_of(town) if name not in PUBLIC}

    assert asked_for == {(case.operation, case.where, case.name) for case in CASES}
    # The control: path, query and body are looked through.
    assert {where for _, where, _ in ids_of(town)} == {PATH, QUERY, BODY}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operation}-{case.name}" for case in CASES])
def test_somebody_elses_id_tells_what_an_id_of_nothing_tells(
    town: Town, case: Case, database_url: str, tried: Callable[[int], None]
) -> None:
    tried(len(case.strangers))
    owner = town.holder(*case.owner_holds) if case.owner_holds else town.member()
    thing = case.thing(town, owner)
    strangers = {held: town.holder(*held) if held else town.member() for held in case.strangers}
    rightful = owner if case.rightful is None else town.holder(*case.rightful)
    before = snapshot(database_url)

    answers = {
        held: [told(case.send(town, stranger, given)) for given in (thing, str(uuid4()))]
        for held, stranger in strangers.items()
    }

    assert all(theirs == nothing for theirs, nothing in answers.values()), answers
    assert changed(before, snapshot(database_url)) == []
    assert case.send(town, rightful, thing).is_success


def test_somebody_elses_order_is_not_listed_either(town: Town) -> None:
    owner, other = town.member(), town.member()
    town.order(owner)

    assert data_of(_orders_of(town, other, owner.id)) == data_of(_orders_of(town, other, str(uuid4())))
    assert data_of(_orders_of(town, other, owner.id))["total"] == 0
    assert data_of(town.ask(other, "GET", f"{API}/orders"))["total"] == 0
    for reader in (owner, town.holder("order:read")):
        assert data_of(_orders_of(town, reader, owner.id))["total"] == 1


def test_who_holds_nothing_is_told_the_same_of_themselves_as_of_others(town: Town) -> None:
    """An id of one's own opens no route of administrators."""
    member = town.member()

    for operation in ("GET", "PATCH", "DELETE"):
        mine, nothing = (
            town.ask(member, operation, f"{API}/users/{user_id}", json={} if operation == "PATCH" else None)
            for user_id in (member.id, str(uuid4()))
        )
        assert told(mine) == told(nothing)
    assert data_of(town.ask(member, "GET", f"{API}/profile"))["id"] == member.id


def test_a_subject_of_one_provider_is_nobody_at_another(town: Town, providers: oidc.Town) -> None:
    known = Browser(town.client, town.provider)
    account = known.session().account
    other = Browser(town.client, providers.house("other"), known.who)

    refused(other.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    other.who = replace(other.who, email=f"{uuid4().hex}@example.com")

    assert other.session().account.id != account.id
    assert known.session().account.id == account.id

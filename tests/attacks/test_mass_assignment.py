"""Fields that nobody asked for on each write: who sends them is refused, administrators too, and nothing is changed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import SQLModel

import src.http.app  # noqa: F401 - with it, all tables
from src.shared.errors import ErrorCode
from tests.attacks.people import API, BODIES, MATRIX, Sample, Town, town
from tests.attacks.snapshot import changed, snapshot
from tests.support.answers import data_of, refused, refused_fields
from tests.support.truth import Schema, resolve

pytestmark = pytest.mark.either

__all__ = ["town"]

JSON = "application/json"
# What frameworks and other services know, and what our tables have.
PRIVILEGED = {
    *("is_superuser", "is_staff", "is_admin", "admin", "superuser", "role", "role_id", "roles", "scopes", "scope"),
    *("permissions", "grants", "groups", "owner_id", "customer_id", "user_id", "id", "_id", "pk", "uuid"),
    *("password_hash", "hashed_password", "email_verified", "verified", "active", "isAdmin", "isActive", "userId"),
    *("total", "price", "discount", "stock_minor", "available", "expected_version", "held", "visible_to", "session"),
    *("__proto__", "__class__", "constructor", "model_config", "metadata"),
    *(column.name for table in SQLModel.metadata.tables.values() for column in table.columns),
}
# What a letter that is stored may have of it, and who may send it. Everything else is the service's to say.
GIVEN = {
    f"POST {API}/users": {"is_verified", "roles", "username", "email"},
    f"PATCH {API}/users/{{user_id}}": {"is_active", "is_verified", "username"},
    f"PUT {API}/users/{{user_id}}/roles": {"roles"},
    f"POST {API}/auth/register": {"username", "email"},
    f"POST {API}/auth/login": {"email"},
    f"POST {API}/auth/password/forgot": {"email"},
    f"POST {API}/auth/verify/request": {"email"},
    f"PATCH {API}/profile": {"username"},
    f"POST {API}/profile/security/api-keys": {"name", "permissions"},
    f"POST {API}/profile/security/passkeys": {"name"},
    f"PATCH {API}/profile/security/passkeys/{{passkey_id}}": {"name"},
    f"POST {API}/auth/providers/{{provider}}/finish": {"state"},
    f"POST {API}/profile/security/providers/{{provider}}/finish": {"state"},
    f"POST {API}/roles": {"name", "description", "permissions"},
    f"PATCH {API}/roles/{{role_id}}": {"name", "description", "permissions"},
    f"POST {API}/products": {"sku", "name", "description", "price_minor", "currency", "status"},
    f"PATCH {API}/products/{{product_id}}": {"name", "description", "price_minor", "currency", "status"},
    f"POST {API}/products/{{product_id}}/stock": {"reason"},
    f"POST {API}/orders": {"product_id", "quantity"},
    f"POST {API}/orders/{{order_id}}/payments": {"source"},
    f"POST {API}/webhooks": {"url", "description", "event_types"},
    f"PATCH {API}/webhooks/{{webhook_id}}": {"url", "description", "event_types", "is_enabled"},
}
OF_BROWSERS = "credential"
"""Where a letter has what a browser says of a passkey: it may say more one day, and none of it is stored as it is."""
# They answer before anything is changed: the mail comes later.
ANSWERED_FIRST = {f"POST {API}/auth/{path}" for path in ("password/forgot", "verify/request", "email/change")}
WRITES = [name for name, told in MATRIX["requests"].items() if "json" in told]


def letter_of(town: Town, operation: str) -> Schema | None:
    """The schema of the JSON that the operation takes."""
    content = town.operations()[operation].get("requestBody", {}).get("content", {})
    schema: Schema | None = content.get(JSON, {}).get("schema")
    return schema


def objects(
    document: Schema, schema: Schema, value: Any, *where: str | int
) -> Iterator[tuple[tuple[str | int, ...], set[str]]]:  # Any: JSON
    """Where each object of a letter is, and the fields that it may have."""
    while "$ref" in schema:
        schema = resolve(document, schema["$ref"])
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        yield where, set(properties)
        for name, part in value.items():
            if name != OF_BROWSERS:
                yield from objects(document, properties[name], part, *where, name)
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from objects(document, schema.get("items", {}), part, *where, index)


def with_field(value: Any, where: tuple[str | int, ...], name: str) -> Any:  # Any: JSON
    """The letter with one field more in the object that is there."""
    if not where:
        return {**value, name: _VALUES.get(name, True)}
    head, *rest = where
    inner = with_field(value[head], tuple(rest), name)
    if isinstance(value, dict):
        return {**value, head: inner}
    return [inner if index == head else item for index, item in enumerate(value)]


_VALUES: dict[str, object] = {
    "id": str(uuid4()),
    "roles": ["admin"],
    "permissions": ["*"],
    "total_minor": 0,
    "status": "active",
    "version": 99,
    "auth_epoch": 0,
    "deleted_at": None,
}


def test_each_write_is_tried(town: Town) -> None:
    writes = {name for name in town.operations() if letter_of(town, name) is not None}

    assert writes == set(WRITES)
    assert {name.partition(" ")[0].lower() for name in writes} == set(BODIES)


def test_a_letter_knows_no_more_of_what_is_privileged_than_it_must(town: Town) -> None:
    """A new field with such a name is written down here, by somebody who asked who may send it."""
    known = {
        operation: {
            name for _, fields in objects(town.document, schema, _sample(town, operation).json) for name in fields
        }
        & PRIVILEGED
        for operation in WRITES
        if (schema := letter_of(town, operation))
    }

    assert {operation: fields for operation, fields in known.items() if fields} == GIVEN


def _sample(town: Town, operation: str) -> Sample:
    return town.sample(operation, town.admin)


@pytest.mark.parametrize("operation", WRITES)
def test_a_field_too_many_is_refused_and_nothing_is_changed(town: Town, operation: str, database_url: str) -> None:
    schema, who = letter_of(town, operation), town.new_actor("admin")
    assert schema is not None
    assert who is not None
    sample = town.sample(operation, who)
    before = snapshot(database_url)

    accepted = []
    for where, fields in objects(town.document, schema, sample.json):
        for name in sorted(PRIVILEGED - fields):
            answer = town.send(who, replace(sample, json=with_field(sample.json, where, name)))
            if answer.is_success or refused_fields(answer) != {".".join(map(str, (*where, name)))}:
                accepted.append((where, name, answer.text))

    assert accepted == []
    assert changed(before, snapshot(database_url)) == []
    # The control: without it, the same letter does what it says.
    assert town.send(who, sample).is_success
    assert (changed(before, snapshot(database_url)) == []) is (operation in ANSWERED_FIRST)


@pytest.mark.parametrize(
    "spelling", ["is_verified", "IS_VERIFIED", "isVerified", " is_verified", "is_verified ", "is‌_verified"]
)
def test_a_field_has_one_spelling(town: Town, spelling: str) -> None:
    email = f"{uuid4().hex}@example.com"
    letter = {"email": email, "password": f"quarry-{uuid4().hex}", spelling: False}

    answer = town.ask(town.admin, "POST", f"{API}/users", json=letter)

    if spelling == "is_verified":
        assert data_of(answer, 201)["is_verified"] is False
    else:
        assert refused_fields(answer) == {spelling}


def test_a_privileged_field_that_a_letter_knows_is_for_those_who_may(town: Town) -> None:
    clerk, member = town.holder("user:create", "user:update"), town.member()
    letter = {"email": f"{uuid4().hex}@example.com", "password": f"quarry-{uuid4().hex}"}
    user = f"{API}/users/{town.account()[0]}"

    refused(town.ask(clerk, "POST", f"{API}/users", json=letter | {"roles": ["admin"]}), ErrorCode.PERMISSION_DENIED)
    refused(town.ask(clerk, "POST", f"{API}/users", json=letter | {"roles": ["user"]}), ErrorCode.PERMISSION_DENIED)
    for field in ("is_active", "is_verified"):
        refused(town.ask(member, "PATCH", user, json={field: False}), ErrorCode.PERMISSION_DENIED)
        refused(town.ask(member, "PATCH", f"{API}/users/{member.id}", json={field: True}), ErrorCode.PERMISSION_DENIED)
        assert data_of(town.ask(clerk, "PATCH", user, json={field: False}))[field] is False
    assert data_of(town.ask(clerk, "POST", f"{API}/users", json=letter), 201)["roles"] == ["user"]


def test_a_write_without_a_letter_takes_nothing_from_one(town: Town) -> None:
    owner, other = town.member(), town.member()
    order_id = town.order(owner)
    order = data_of(town.ask(owner, "GET", f"{API}/orders/{order_id}"))

    cancelled = data_of(
        town.ask(owner, "POST", f"{API}/orders/{order_id}/cancel", json={"total_minor": 0, "customer_id": other.id})
    )

    assert cancelled == order | {"status": "cancelled", "version": order["version"] + 1}
    assert data_of(town.ask(other, "GET", f"{API}/orders"))["total"] == 0

"""API keys: what a machine may do with one, and when it may no more."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4
from zlib import crc32

import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.auth.models import ApiKey, AuthSession
from src.auth.tokens import new_api_key
from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, SECURITY, Guard, OpenSession, Session, ask
from tests.conftest import PASSWORD, PATIENT, Account
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.mail import Mailbox
from tests.support.postgres import Kind
from tests.support.service import Service, own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

KEYS = f"{SECURITY}/api-keys"
AUDIT, ROLES = "/api/v1/audit", "/api/v1/roles"


def create(session: Session, *permissions: str, **differently: object) -> httpx2.Response:
    letter = {"name": "nightly export", "permissions": list(permissions), "current_password": PASSWORD}
    return ask(session, "POST", KEYS, letter | differently)


@dataclass
class Machine:
    """What calls with a key."""

    client: httpx2.Client
    id: str
    key: str

    def ask(self, method: str, path: str, body: object = None) -> httpx2.Response:
        return self.client.request(method, path, json=body, headers=bearer(self.key))


def machine(session: Session, *permissions: str, **differently: object) -> Machine:
    made = data_of(create(session, *permissions, **differently), 201)
    return Machine(session.client, made["id"], made["key"])


Holder = Callable[..., Session]


@pytest.fixture
def holder(open_session: OpenSession, admin: httpx2.Client) -> Holder:
    """Somebody who holds these permissions through a role of their own."""

    def make(*permissions: str) -> Session:
        account = open_session().account
        role = f"r-{uuid4().hex}"
        data_of(admin.post(ROLES, json={"name": role, "permissions": list(permissions)}), 201)
        data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": ["user", role]}))
        return open_session(account)

    return make


def test_a_key_is_told_once_and_kept_as_a_hash(
    holder: Holder, database_url: str, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session = holder("audit:read")

    made = data_of(create(session, "audit:read", expires_in_days=30), 201)

    assert re.fullmatch(r"uck_[0-9A-Za-z]{49}", made["key"])
    (listed,) = data_of(ask(session, "GET", KEYS))
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["permissions"], listed["last_letters"]) == (["audit:read"], made["key"][-4:])
    lasts = datetime.fromisoformat(listed["expires_at"]) - datetime.fromisoformat(listed["created_at"])
    assert lasts == timedelta(days=30)
    assert data_of(ask(session, "GET", SECURITY))["api_keys"] == [listed]
    rows = execute(database_url, select(ApiKey).where(col(ApiKey.id) == UUID(made["id"])))
    assert made["key"] not in str(rows)
    mail = mailbox.wait_for(session.account.email, about="API key")
    assert made["last_letters"] in mail.text
    assert "nightly export" not in mail.text  # whoever chose it may write to somebody else's mailbox
    entries = data_of(admin.get(AUDIT, params={"target_id": session.account.id, "action": "api_key.created"}))["items"]
    assert entries[0]["after"] == {"key_id": made["id"], "permissions": ["audit:read"]}


def test_a_key_takes_the_password_and_permissions_that_its_owner_holds(holder: Holder) -> None:
    session = holder("audit:read")

    refused(create(session, "audit:read", current_password="not-the-password-99"), ErrorCode.INVALID_CREDENTIALS)
    assert refused(create(session, "audit:read", "user:read"), ErrorCode.GRANT_NOT_HELD) == {"missing": ["user:read"]}
    refused(create(session, "*"), ErrorCode.GRANT_NOT_HELD)
    assert refused(create(session, "cake:eat"), ErrorCode.PERMISSION_UNKNOWN) == {"unknown": ["cake:eat"]}
    assert refused_fields(create(session, "audit:read", name=" ")) == {"name"}
    for days in (0, 366, True, "7", 1.5):
        assert refused_fields(create(session, "audit:read", expires_in_days=days)) == {"expires_in_days"}


def test_a_key_does_what_its_permissions_say_and_no_more(holder: Holder) -> None:
    session = holder("audit:read", "role:*")
    narrow, wide = machine(session, "role:read"), machine(session, "role:*", "audit:read")

    data_of(narrow.ask("GET", "/api/v1/profile"))
    data_of(narrow.ask("GET", ROLES))
    refused(narrow.ask("GET", AUDIT), ErrorCode.PERMISSION_DENIED)
    refused(machine(session).ask("GET", ROLES), ErrorCode.PERMISSION_DENIED)
    refused(narrow.ask("POST", ROLES, {"name": f"r-{uuid4().hex}", "permissions": []}), ErrorCode.PERMISSION_DENIED)
    data_of(wide.ask("GET", AUDIT))
    data_of(wide.ask("POST", ROLES, {"name": f"r-{uuid4().hex}", "permissions": ["audit:read"]}), 201)
    # It gives no more than it holds, whatever its owner holds.
    letter = {"name": f"r-{uuid4().hex}", "permissions": ["user:read"]}
    refused(wide.ask("POST", ROLES, letter), ErrorCode.GRANT_NOT_HELD)


def test_a_key_places_an_order_as_its_owner(open_session: OpenSession, admin: httpx2.Client) -> None:
    session = open_session()
    product = {"sku": uuid4().hex, "name": "Storm lamp", "price_minor": 3490, "currency": "EUR", "stock": 10}
    bought = data_of(admin.post("/api/v1/products", json=product), 201)["id"]
    chief = Session(session.client, Account("", ""), admin.headers["Authorization"].removeprefix("Bearer "), "")
    reader = machine(chief, "order:read")

    letter = {"items": [{"product_id": bought, "quantity": 1}]}
    headers = bearer(reader.key) | {"Idempotency-Key": uuid4().hex}
    order = data_of(session.client.post("/api/v1/orders", json=letter, headers=headers), 201)

    assert order["id"] in {each["id"] for each in data_of(reader.ask("GET", "/api/v1/orders"))["items"]}
    refused(ask(session, "GET", f"/api/v1/orders/{order['id']}"), ErrorCode.ORDER_NOT_FOUND)


def test_a_key_has_no_role_and_changes_no_way_to_log_in(open_session: OpenSession, admin: httpx2.Client) -> None:
    chief = Session(open_session().client, Account("", ""), admin.headers["Authorization"].removeprefix("Bearer "), "")
    own = machine(chief, "*")

    refused(own.ask("GET", "/api/v1/admin/stats"), ErrorCode.ROLE_REQUIRED)
    letter = {"current_password": PASSWORD, "new_password": "violet-harbour-engine-47"}
    closed = [
        ("POST", "/api/v1/auth/password/change", letter),
        ("POST", "/api/v1/auth/email/change", {"current_password": PASSWORD, "new_email": "else@example.com"}),
        ("POST", "/api/v1/auth/logout-all", None),
        ("GET", "/api/v1/auth/sessions", None),
        ("DELETE", f"/api/v1/auth/sessions/{uuid4()}", None),
        ("POST", "/api/v1/auth/step-up", {"method": "totp", "code": "123456"}),
        ("POST", "/api/v1/profile/deactivate", {"current_password": PASSWORD}),
        ("POST", "/api/v1/profile/delete", {"current_password": PASSWORD}),
        ("GET", SECURITY, None),
        ("POST", f"{SECURITY}/totp", {"current_password": PASSWORD}),
        ("POST", f"{SECURITY}/totp/confirm", {"code": "123456"}),
        ("POST", KEYS, {"name": "more", "permissions": ["*"], "current_password": PASSWORD}),
        ("GET", KEYS, None),
        ("PATCH", "/api/v1/profile", {"username": "somebody"}),
        ("DELETE", f"/api/v1/users/{uuid4()}/second-factors", None),
        ("PUT", f"{ROLES}/{uuid4()}/second-factor", {"required": False}),
        ("DELETE", f"{KEYS}/{own.id}", None),
    ]
    for method, path, body in closed:
        refused(own.ask(method, path, body), ErrorCode.SESSION_REQUIRED)
    for method, path in (("DELETE", f"{SECURITY}/totp"), ("POST", f"{SECURITY}/recovery-codes")):
        refused(own.ask(method, path), ErrorCode.SESSION_REQUIRED)


def test_what_the_owner_loses_the_key_loses_with_the_next_request(holder: Holder, admin: httpx2.Client) -> None:
    session = holder("audit:read")
    own = machine(session, "audit:read")
    data_of(own.ask("GET", AUDIT))

    data_of(admin.put(f"/api/v1/users/{session.account.id}/roles", json={"roles": ["user"]}))

    refused(own.ask("GET", AUDIT), ErrorCode.PERMISSION_DENIED)
    data_of(own.ask("GET", "/api/v1/profile"))


@pytest.mark.parametrize("way", ["revoked", "revoked by an administrator", "expired", "disabled", "deleted"])
def test_a_key_that_ended_is_none_with_the_next_request(
    holder: Holder, admin: httpx2.Client, database_url: str, way: str
) -> None:
    session = holder("audit:read")
    own, user = machine(session, "audit:read"), f"/api/v1/users/{session.account.id}"
    data_of(own.ask("GET", AUDIT))

    match way:
        case "revoked":
            data_of(ask(session, "DELETE", f"{KEYS}/{own.id}"))
            refused(ask(session, "DELETE", f"{KEYS}/{own.id}"), ErrorCode.API_KEY_NOT_FOUND)
        case "revoked by an administrator":
            data_of(admin.delete(f"{user}/api-keys"))
            # Whoever has one may be waiting to use it: all that they are asks again who they are.
            refused(session.profile(), ErrorCode.INVALID_TOKEN)
            data_of(session.refreshed().profile())
        case "expired":
            mine = col(ApiKey.id) == UUID(own.id)
            execute(database_url, update(ApiKey).where(mine).values(expires_at=datetime.now(UTC)))
        case "disabled":
            # Nor does it come back.
            for is_active in (False, True):
                data_of(admin.patch(user, json={"is_active": is_active}))
        case _:
            data_of(admin.delete(user))
            assert execute(database_url, select(func.count()).where(col(ApiKey.id) == UUID(own.id)))[0][0] == 0

    refused(own.ask("GET", AUDIT), ErrorCode.INVALID_TOKEN)


def test_a_key_outlives_the_sessions_of_its_owner(holder: Holder) -> None:
    session = holder("audit:read")
    own = machine(session, "audit:read")

    data_of(session.post("logout-all"))

    data_of(own.ask("GET", AUDIT))


def test_somebody_elses_key_does_not_exist(holder: Holder, open_session: OpenSession) -> None:
    own = machine(holder("audit:read"), "audit:read")

    refused(ask(open_session(), "DELETE", f"{KEYS}/{own.id}"), ErrorCode.API_KEY_NOT_FOUND)

    data_of(own.ask("GET", AUDIT))


@pytest.mark.parametrize(
    "forge",
    [
        lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
        lambda key: f"{key}A",
        lambda key: key[:-1],
        lambda key: key.upper(),
        lambda _: "uck_" + "A" * 49,
        lambda _: new_api_key(),
        lambda key: key.removeprefix("uck_"),
    ],
)
def test_what_is_no_key_of_ours_is_refused(holder: Holder, forge: Callable[[str], str]) -> None:
    own = machine(holder("audit:read"), "audit:read")

    forged = Machine(own.client, own.id, forge(own.key))

    refused(forged.ask("GET", "/api/v1/profile"), ErrorCode.INVALID_TOKEN)


def test_a_scanner_knows_a_key_by_its_checksum() -> None:
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    key = new_api_key()

    checksum = 0
    for letter in key[-6:]:
        checksum = checksum * 62 + letters.index(letter)

    assert checksum == crc32(key[4:-6].encode())


async def test_the_last_use_of_a_key_is_noted_with_its_address(holder: Holder) -> None:
    session = holder("audit:read")
    own = machine(session, "audit:read")
    assert data_of(ask(session, "GET", KEYS))[0]["last_used_at"] is None

    data_of(own.ask("GET", AUDIT))

    async def noted() -> bool:
        (listed,) = data_of(ask(session, "GET", KEYS))
        return listed["last_used_at"] is not None and listed["last_used_address"] == "127.0.0.1"

    await eventually(noted)


def test_of_twenty_new_keys_at_once_none_is_one_too_many(database_kind: Kind) -> None:
    with own_place(database_kind, AUTH__API_KEYS_PER_ACCOUNT="3") as place, place.service() as service:
        session = _chief(service)

        answers = at_once([partial(create, session, "audit:read")] * 20)

        made = [answer for answer in answers if answer.is_success]
        assert len(made) == 3
        assert {answer.json()["code"] for answer in answers if not answer.is_success} <= {
            ErrorCode.TOO_MANY_API_KEYS,
            ErrorCode.SERVICE_UNAVAILABLE,
        }
        assert refused(create(session, "audit:read"), ErrorCode.TOO_MANY_API_KEYS) == {"limit": 3}


def _chief(service: Service) -> Session:
    letter: dict[str, Any] = service.log_in()
    return Session(service.client, Account("", ""), letter["access_token"], letter["refresh_token"])


def test_a_key_calls_so_often_a_minute_and_others_go_on(database_kind: Kind) -> None:
    with own_place(database_kind, AUTH__API_KEY_REQUESTS_PER_MINUTE="30") as place, place.service() as service:
        session = _chief(service)
        busy, other = machine(session, "audit:read"), machine(session, "audit:read")

        answers = [busy.ask("GET", "/api/v1/profile") for _ in range(62)]

        good = sum(answer.is_success for answer in answers)
        assert 30 <= good <= 60  # a minute may have ended meanwhile
        told = refused(next(answer for answer in answers if not answer.is_success), ErrorCode.TOO_MANY_ATTEMPTS)
        assert 0 < told["retry_after_seconds"] <= 60
        data_of(other.ask("GET", "/api/v1/profile"))
        data_of(session.profile())


# --- With a second factor


def test_a_key_that_was_made_without_a_second_factor_lacks_what_takes_one(
    holder: Holder, guard: Guard, admin: httpx2.Client
) -> None:
    session = holder("audit:read")
    before = machine(session, "audit:read")
    roles = data_of(admin.get(f"/api/v1/users/{session.account.id}"))["roles"]
    role_id = next(each["id"] for each in data_of(admin.get(ROLES)) if each["name"] in set(roles) - {"user"})
    data_of(before.ask("GET", AUDIT))

    data_of(admin.put(f"{ROLES}/{role_id}/second-factor", json={"required": True}))

    refused(before.ask("GET", AUDIT), ErrorCode.PERMISSION_DENIED)
    guarded = guard(session.refreshed())
    after = machine(guarded.session, "audit:read")
    data_of(after.ask("GET", AUDIT))
    refused(before.ask("GET", AUDIT), ErrorCode.PERMISSION_DENIED)
    # Nor does one outlive the factor that it was made with.
    data_of(guarded.ask("DELETE", f"{SECURITY}/totp"))
    refused(after.ask("GET", AUDIT), ErrorCode.PERMISSION_DENIED)


def test_a_proof_of_long_ago_makes_no_key(guard: Guard, database_url: str) -> None:
    guarded = guard()
    execute(
        database_url,
        update(AuthSession)
        .where(col(AuthSession.user_id) == UUID(guarded.account.id))
        .values(second_factor_at=datetime.now(UTC) - timedelta(seconds=901)),
    )

    refused(create(guarded.session), ErrorCode.STEP_UP_REQUIRED)


def test_a_key_is_none_whose_owner_may_not_log_in(database_kind: Kind, mailbox: Mailbox) -> None:
    env = {"AUTH__REQUIRE_VERIFIED_EMAIL": "true", "MAIL__URL": mailbox.url}
    with own_place(database_kind, **env) as place, place.service() as service:
        chief, email = _chief(service), f"{uuid4().hex}@example.com"
        made = data_of(ask(chief, "POST", "/api/v1/users", {"email": email, "password": PASSWORD}), 201)
        letter = data_of(service.client.post(LOGIN, json={"email": email, "password": PASSWORD}))
        own = machine(Session(service.client, Account(made["id"], email), letter["access_token"], ""))
        data_of(own.ask("GET", "/api/v1/profile"))

        data_of(ask(chief, "PATCH", f"/api/v1/users/{made['id']}", {"is_verified": False}))

        refused(own.ask("GET", "/api/v1/profile"), ErrorCode.INVALID_TOKEN)


@pytest.mark.parametrize("way", ["disabled", "logged out", "sessions ended"])
def test_no_key_comes_about_for_who_was_shut_out_meanwhile(database_kind: Kind, way: str) -> None:
    """It waits for its turn to check the password; what shuts its owner out does not."""
    with own_place(database_kind, AUTH__PASSWORD_HASH_CONCURRENCY="1", **PATIENT) as place, place.service() as service:
        chief, email = _chief(service), service.register()
        letter = service.log_in(email)
        session = Session(service.client, Account("", email), letter["access_token"], letter["refresh_token"])
        user_id = data_of(session.profile())["id"]
        crowd: list[Callable[[], httpx2.Response]] = [
            partial(service.client.post, LOGIN, json={"email": f"{n}@example.com", "password": "x"}) for n in range(12)
        ]

        def shut_out() -> httpx2.Response:
            match way:
                case "disabled":
                    return ask(chief, "PATCH", f"/api/v1/users/{user_id}", {"is_active": False})
                case "logged out":
                    return session.post("logout-all")
                case _:
                    return ask(chief, "DELETE", f"/api/v1/users/{user_id}/sessions")

        calls: list[Callable[[], httpx2.Response]] = [*crowd, partial(create, session), shut_out]
        *_, made, ended = at_once(calls)

        data_of(ended)
        if way == "disabled":
            data_of(ask(chief, "PATCH", f"/api/v1/users/{user_id}", {"is_active": True}))
        if made.is_success:
            # It was first; a key outlives sessions, and not its owner's account.
            status = Machine(service.client, "", made.json()["data"]["key"]).ask("GET", "/api/v1/profile").status_code
            assert status == (401 if way == "disabled" else 200)
        else:
            refused(made, ErrorCode.INVALID_TOKEN)


def test_log_in_takes_no_key(holder: Holder) -> None:
    session = holder("audit:read")
    own = machine(session, "audit:read")

    letter = {"email": session.account.email, "password": own.key}

    refused(session.client.post(LOGIN, json=letter), ErrorCode.INVALID_CREDENTIALS)

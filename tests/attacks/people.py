"""People with every kind of right, the things that are asked for, and requests that succeed by the right person."""

import base64
import hmac
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, insert
from sqlmodel import col

from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from src.webhooks.models import DeliveryState, WebhookDelivery
from tests.auth.test_providers import Browser
from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of, refused
from tests.support.authenticator import Authenticator
from tests.support.mail import Mailbox
from tests.support.oidc import House, Somebody
from tests.support.phone import Phone
from tests.support.receiver import HOST as RECEIVERS
from tests.support.server import Server
from tests.support.tables import execute
from tests.support.truth import Schema, checks

API = "/api/v1"
_PLANTED: Final = "planted:"
BODIES: Final = ("post", "put", "patch")
MATRIX: Final[dict[str, dict[str, Any]]] = tomllib.loads(  # Any: TOML
    Path(__file__).with_name("matrix.toml").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Person:
    id: str
    email: str
    token: str
    refresh_token: str
    password: str = PASSWORD


@dataclass(frozen=True)
class Sample:
    """A request that succeeds by the right person."""

    method: str
    path: str
    json: Any = None  # Any: JSON
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Town:
    """A running service, its administrator, and whoever and whatever a test wants made in it."""

    def __init__(  # noqa: PLR0913 - a service has these around it
        self,
        client: httpx2.Client,
        document: Schema,
        admin_email: str,
        mailbox: Mailbox,
        database_url: str,
        *,
        provider: House,
    ) -> None:
        self.client, self.document, self.mailbox, self.database_url = client, document, mailbox, database_url
        self.provider = provider
        self.admin = self.log_in(admin_email)
        self._roles: dict[tuple[str, ...], str] = {}
        self._actors: dict[str, Person | None] = {}
        self.recovery_code = ""

    def ask(self, whom: Person | None, method: str, path: str, **how: Any) -> httpx2.Response:  # Any: as httpx has it
        """`whom`: who asks; None is somebody without a token."""
        headers = {**how.pop("headers", {}), **(bearer(whom.token) if whom else {})}
        return self.client.request(method, path, headers=headers, **how)

    def send(self, whom: Person | None, sample: Sample) -> httpx2.Response:
        return self.ask(
            whom, sample.method, sample.path, json=sample.json, data=sample.form, headers=dict(sample.headers)
        )

    def operations(self) -> dict[str, Schema]:
        """By names like `GET /api/v1/users/{user_id}`."""
        return {
            f"{method.upper()} {path}": operation
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        }

    # --- People

    def log_in(self, email: str, password: str = PASSWORD) -> Person:
        letter = {"email": email, "password": password}
        opened = data_of(self.client.post(f"{API}/auth/login", json=letter))
        me = data_of(self.client.get(f"{API}/profile", headers=bearer(opened["access_token"])))
        return Person(me["id"], email, opened["access_token"], opened["refresh_token"], password)

    def account(self, *roles: str) -> tuple[str, str]:
        """id and e-mail of somebody new, who has never logged in."""
        letter = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD, "roles": ["user", *roles]}
        made = data_of(self.ask(self.admin, "POST", f"{API}/users", json=letter), 201)
        return made["id"], made["email"]

    def member(self, *roles: str) -> Person:
        return self.log_in(self.account(*roles)[1])

    def holder(self, *permissions: str) -> Person:
        """Somebody new who holds these, and a role of these alone."""
        return self.member(self.role_of(*permissions))

    def guarded(self) -> tuple[Person, str]:
        """Somebody new with a second factor, proven a moment ago, and a recovery code."""
        person = self.member()
        return person, self.confirm_totp(person, self.begin_totp(person))

    def begin_totp(self, person: Person) -> Phone:
        letter = {"current_password": person.password}
        told = data_of(self.ask(person, "POST", f"{API}/profile/security/totp", json=letter), 201)
        return Phone(told["secret"], self.database_url)

    def confirm_totp(self, person: Person, phone: Phone) -> str:
        """A recovery code."""
        letter = {"code": phone.code()}
        told = data_of(self.ask(person, "POST", f"{API}/profile/security/totp/confirm", json=letter))
        return str(told["recovery_codes"][0])

    def totp_code(self, person: Person) -> str:
        """Of their app. Who is shared stays without one: the code is somebody else's."""
        owner = self._spent(person)
        phone = self.begin_totp(owner)
        self.confirm_totp(owner, phone)
        return phone.code()

    def first_totp_code(self, person: Person) -> str:
        """That sets up their app; as above."""
        return self.begin_totp(self._spent(person)).code()

    def passkey(self, person: Person) -> tuple[Authenticator, str]:
        """Of theirs, and its id; of somebody else's where they are shared."""
        owner, authenticator = self._spent(person), Authenticator()
        letter = {"name": "laptop", "credential": authenticator.create(self.passkey_options(owner))}
        made = data_of(self.ask(owner, "POST", f"{API}/profile/security/passkeys", json=letter), 201)
        return authenticator, made["id"]

    def passkey_options(self, owner: Person) -> dict[str, Any]:  # Any: JSON
        letter = {"current_password": owner.password}
        told = data_of(self.ask(owner, "POST", f"{API}/profile/security/passkey-options", json=letter))
        return dict(told)

    def new_passkey(self, person: Person) -> str:
        return json.dumps(Authenticator().create(self.passkey_options(self._spent(person))))

    def passkey_login(self) -> str:
        authenticator, _ = self.passkey(self.member())
        return json.dumps(authenticator.get(data_of(self.client.post(f"{API}/auth/login/passkey/options", json={}))))

    def passkey_step_up(self, person: Person) -> str:
        owner = self._spent(person)
        authenticator, _ = self.passkey(owner)
        options = data_of(self.ask(owner, "POST", f"{API}/auth/step-up/passkey/options"))
        return json.dumps(authenticator.get(options))

    def provider_login(self) -> str:
        """Of somebody who is new here."""
        browser = Browser(self.client, self.provider)
        return json.dumps(browser.come_back(browser.begin()))

    def provider_linking(self, person: Person) -> str:
        """For the session of theirs; of somebody else's where they are shared."""
        return json.dumps(self._linking(self._spent(person)))

    def _linking(self, owner: Person) -> dict[str, Any]:  # Any: JSON
        path, letter = f"{API}/profile/security/providers/{self.provider.name}", {"current_password": owner.password}
        begun = data_of(self.ask(owner, "POST", f"{path}/begin", json=letter))
        return Browser(self.client, self.provider).come_back(begun)

    def provider_link(self, person: Person) -> str:
        """The id of one of theirs; as above."""
        owner = self._spent(person)
        path = f"{API}/profile/security/providers/{self.provider.name}/finish"
        return str(data_of(self.ask(owner, "POST", path, json=self._linking(owner)), 201)["id"])

    def provider_code(self) -> str:
        """Of somebody who has an account, and came by the provider."""
        email = self.account()[1]
        browser = Browser(self.client, self.provider, Somebody(email=email))
        refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
        return self.mailbox.wait_for(email, about="signed in").code

    def _spent(self, person: Person) -> Person:
        return self.member() if person in (self.admin, *self._actors.values()) else person

    def api_key(self, owner: Person) -> tuple[str, str]:
        """(id, key)"""
        letter = {"name": "export", "permissions": [], "current_password": owner.password}
        made = data_of(self.ask(owner, "POST", f"{API}/profile/security/api-keys", json=letter), 201)
        return made["id"], made["key"]

    def machine(self) -> Person:
        owner = self.member()
        return replace(owner, token=self.api_key(owner)[1])

    def challenge(self) -> str:
        """The `mfa_token` of somebody whose recovery code is `recovery_code`."""
        person, self.recovery_code = self.guarded()
        answer = self.client.post(f"{API}/auth/login", json={"email": person.email, "password": PASSWORD})
        return str(refused(answer, ErrorCode.SECOND_FACTOR_REQUIRED)["mfa_token"])

    def role_of(self, *permissions: str) -> str:
        if permissions not in self._roles:
            self._roles[permissions] = self.new_role(*permissions)["name"]
        return self._roles[permissions]

    def new_role(self, *permissions: str, name: str = "") -> dict[str, Any]:  # Any: JSON
        letter = {"name": name or f"r-{uuid4().hex}", "permissions": list(permissions)}
        role: dict[str, Any] = data_of(self.ask(self.admin, "POST", f"{API}/roles", json=letter), 201)  # Any: as above
        return role

    def actor(self, name: str) -> Person | None:
        """The same for all who ask: do not spend it."""
        if name not in self._actors:
            self._actors[name] = self.new_actor(name)
        return self._actors[name]

    def new_actor(self, name: str) -> Person | None:
        kind = MATRIX["actors"][name]
        return self.holder(*kind) if isinstance(kind, list) else _KINDS[name](self)

    # --- Things

    def sample(self, operation: str, owner: Person) -> Sample:
        """With things made for it alone, which are `owner`'s where they belong to somebody."""
        told = MATRIX["requests"].get(operation, {})
        method, _, path = operation.partition(" ")
        things = _Things(self, owner, told.get("made_by", {}))
        return Sample(
            method,
            path.format_map(things),
            json=_filled(told.get("json"), things),
            form=_filled(told.get("form"), things),
            headers={"Idempotency-Key": uuid4().hex} if told.get("key") else {},
        )

    def product(self, **differently: object) -> str:
        letter = {"sku": uuid4().hex, "name": "Storm lamp", "price_minor": 3490, "currency": "EUR", "stock": 10}
        made = data_of(self.ask(self.admin, "POST", f"{API}/products", json=letter | differently), 201)
        return str(made["id"])

    def order(self, owner: Person, *steps: str) -> str:
        """Moved along by `steps`: pay, fulfil."""
        letter = {"items": [{"product_id": self.product(), "quantity": 2}]}
        key = {"Idempotency-Key": uuid4().hex}
        order_id = str(data_of(self.ask(owner, "POST", f"{API}/orders", json=letter, headers=key), 201)["id"])
        for step in steps:
            data_of(self.ask(self.admin, "POST", f"{API}/orders/{order_id}/{step}"))
        return order_id

    def payment(self, owner: Person) -> str:
        path, key = f"{API}/orders/{self.order(owner)}/payments", {"Idempotency-Key": uuid4().hex}
        return str(data_of(self.ask(owner, "POST", path, json={"source": "tok_approve"}, headers=key), 201)["id"])

    def dead_event(self) -> str:
        """Given up long ago."""
        event_id, now = uuid4(), datetime.now(UTC)
        row = {
            "id": event_id,
            "kind": "mail",
            "aggregate": f"{_PLANTED}{event_id}",
            "payload": b"",
            "created_at": now,
            "available_at": now,
            "attempts": 12,
            "last_error": "SMTPDataError",
            "dead_at": now,
        }
        execute(self.database_url, insert(OutboxEvent).values(row))
        return str(event_id)

    def webhook(self, owner: Person) -> str:
        """Theirs, or of somebody who may have one."""
        letter = {"url": f"http://{RECEIVERS}:59999/hook", "event_types": ["webhook.test"]}
        made = self.ask(owner, "POST", f"{API}/webhooks", json=letter)
        if not made.is_success:
            made = self.ask(self.holder("webhook:*"), "POST", f"{API}/webhooks", json=letter)
        return str(data_of(made, 201)["id"])

    def delivery(self, webhook_id: str) -> str:
        """That failed."""
        delivery = WebhookDelivery(
            endpoint_id=UUID(webhook_id),
            event_id=uuid4(),
            event_type="webhook.test",
            aggregate="webhook.test",
            body=b"{}",
            state=DeliveryState.FAILED,
        )
        execute(self.database_url, insert(WebhookDelivery).values(delivery.model_dump(exclude={"position"})))
        return str(delivery.id)

    def invited(self) -> tuple[str, str]:
        """id and e-mail of somebody who has no password yet."""
        made = data_of(self.ask(self.admin, "POST", f"{API}/users", json={"email": f"{uuid4().hex}@example.com"}), 201)
        return made["id"], made["email"]

    def address_code(self) -> str:
        """Of somebody who just registered."""
        email = f"{uuid4().hex}@example.com"
        data_of(self.client.post(f"{API}/auth/register", json={"email": email, "password": PASSWORD}), 201)
        return self.mailbox.wait_for(email).code

    def new_address_code(self) -> str:
        """Of somebody who wants to move."""
        mover, email = self.member(), f"{uuid4().hex}@example.com"
        letter = {"new_email": email, "current_password": PASSWORD}
        data_of(self.ask(mover, "POST", f"{API}/auth/email/change", json=letter), 202)
        return self.mailbox.wait_for(email).code

    def session(self, owner: Person) -> tuple[str, Person]:
        """One more log-in: the session's id, and its owner with the tokens of it."""
        again = self.log_in(owner.email, owner.password)
        mine = data_of(self.ask(again, "GET", f"{API}/auth/sessions"))
        return next(str(session["id"]) for session in mine if session["current"]), again


def _forged(town: Town) -> Person:
    """The administrator's token, right in all but the key."""
    signed = town.admin.token.rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(b"another key", signed.encode(), "sha256")).rstrip(b"=").decode()
    return replace(town.admin, token=f"{signed}.{signature}")


def _disabled(town: Town) -> Person:
    person = town.member()
    data_of(town.ask(town.admin, "PATCH", f"{API}/users/{person.id}", json={"is_active": False}))
    return person


def _deleted(town: Town) -> Person:
    person = town.member()
    data_of(town.ask(town.admin, "DELETE", f"{API}/users/{person.id}"))
    return person


def _logged_out(town: Town) -> Person:
    person = town.member()
    data_of(town.client.post(f"{API}/auth/logout", json={"refresh_token": person.refresh_token}))
    return person


_KINDS: dict[str, Callable[[Town], Person | None]] = {
    "nobody": lambda _: None,
    "forged": _forged,
    "disabled": _disabled,
    "deleted": _deleted,
    "logged_out": _logged_out,
    "owner": lambda town: town.member(),
    "other": lambda town: town.member(),
    "proven": lambda town: town.guarded()[0],
    "machine": lambda town: town.machine(),
    "admin": lambda town: town.member("admin"),
}

MAKERS: dict[str, Callable[[Town, Person], str]] = {
    "user_id": lambda town, _: town.account()[0],
    "key_id": lambda town, owner: town.api_key(owner)[0],
    "guarded_id": lambda town, _: town.guarded()[0].id,
    "totp_code": lambda town, owner: town.totp_code(owner),
    "first_totp_code": lambda town, owner: town.first_totp_code(owner),
    "new_passkey": lambda town, owner: town.new_passkey(owner),
    "passkey_id": lambda town, owner: town.passkey(owner)[1],
    "passkey_login": lambda town, _: town.passkey_login(),
    "passkey_step_up": lambda town, owner: town.passkey_step_up(owner),
    "provider": lambda town, _: town.provider.name,
    "provider_login": lambda town, _: town.provider_login(),
    "provider_linking": lambda town, owner: town.provider_linking(owner),
    "provider_code": lambda town, _: town.provider_code(),
    "link_id": lambda town, owner: town.provider_link(owner),
    "mfa_token": lambda town, _: town.challenge(),
    "recovery_code": lambda town, _: town.recovery_code,
    "invited_id": lambda town, _: town.invited()[0],
    "password_code": lambda town, _: town.mailbox.wait_for(town.invited()[1]).code,
    "address_code": lambda town, _: town.address_code(),
    "new_address_code": lambda town, _: town.new_address_code(),
    "role_id": lambda town, _: str(town.new_role()["id"]),
    "role_name": lambda town, _: str(town.new_role()["name"]),
    "product_id": lambda town, _: town.product(),
    "order_id": lambda town, owner: town.order(owner),
    "paid_order_id": lambda town, owner: town.order(owner, "pay"),
    "fulfilled_order_id": lambda town, owner: town.order(owner, "pay", "fulfil"),
    "payment_id": lambda town, owner: town.payment(owner),
    "event_id": lambda town, _: town.dead_event(),
    "webhook_id": lambda town, owner: town.webhook(owner),
    "webhook_url": lambda *_: f"http://{RECEIVERS}:59999/hook",
    "delivery_id": lambda town, owner: town.delivery(town.webhook(owner)),
    "session_id": lambda town, owner: town.session(owner)[0],
    "refresh_token": lambda town, owner: town.session(owner)[1].refresh_token,
    "email": lambda *_: f"{uuid4().hex}@example.com",
    "owner_email": lambda _, owner: owner.email,
    "password": lambda *_: PASSWORD,
    "new_password": lambda *_: f"quarry-{uuid4().hex}",
    "word": lambda *_: f"w-{uuid4().hex}",
}


_JSON: Final = "json:"


class _Things(dict[str, str]):
    """Each is made when it is first named."""

    def __init__(self, town: Town, owner: Person, made_by: Mapping[str, str]) -> None:
        super().__init__()
        self._town, self._owner, self._made_by = town, owner, made_by

    def __missing__(self, name: str) -> str:
        thing = self[name] = MAKERS[self._made_by.get(name, name)](self._town, self._owner)
        return thing


def _filled(value: Any, things: _Things) -> Any:  # Any: JSON
    match value:
        case str() if value.startswith(_JSON):
            return json.loads(value.removeprefix(_JSON).format_map(things))
        case str():
            return value.format_map(things)
        case list():
            return [_filled(item, things) for item in value]
        case dict():
            return {name: _filled(item, things) for name, item in value.items()}
        case _:
            return value


@contextmanager
def town_of(server: Server, admin_email: str, mailbox: Mailbox, database_url: str, provider: House) -> Iterator[Town]:
    """Each answer in it is held against the document."""
    # Plain HTTP over loopback: loading certificates would take longer than most tests.
    with httpx2.Client(base_url=server.url, timeout=15, verify=False) as client:
        document: Schema = client.get("/openapi.json").raise_for_status().json()
        client.event_hooks = {"response": [checks(lambda: document)]}
        yield Town(client, document, admin_email, mailbox, database_url, provider=provider)
    execute(database_url, delete(OutboxEvent).where(col(OutboxEvent.aggregate).startswith(_PLANTED)))


@pytest.fixture(scope="module")
def town(server: Server, admin_email: str, mailbox: Mailbox, database_url: str, provider: House) -> Iterator[Town]:
    """For tests that import it: with people of its own for each of their files."""
    with town_of(server, admin_email, mailbox, database_url, provider) as town:
        yield town

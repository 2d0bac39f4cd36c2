"""A service with webhooks, people who have some, and receivers that hear of what happens."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Executable, Row, Update, delete, select, update
from sqlmodel import col

from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from src.webhooks.models import DeliveryState, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.support import orders
from tests.support.answers import bearer, data_of, refused
from tests.support.postgres import Kind
from tests.support.receiver import ALLOWED, Receiver, running_receiver
from tests.support.service import Place, Service, own_place
from tests.support.tables import execute
from tests.support.waiting import wait_for

QUICK = {
    "OUTBOX__POLL_SECONDS": "0.05",
    "WEBHOOKS__FIRST_DELAY_SECONDS": "0.02",
    "WEBHOOKS__MAX_DELAY_SECONDS": "0.05",
}
PENDING = col(WebhookDelivery.state) == DeliveryState.PENDING
Letter = dict[str, Any]  # Any: JSON


@dataclass
class Office:
    """A running service, its administrator, and what stands in its tables."""

    place: Place
    service: Service
    token: str = ""
    _product: str = field(default="", repr=False)

    def ask(
        self, method: str, path: str, json: object = None, *, token: str = "", **headers: str
    ) -> Any:  # Any: answer
        return self.service.client.request(
            method, f"/api/v1/webhooks{path}", json=json, headers={**bearer(token or self.token), **headers}
        )

    def register(self, receiver: Receiver | str, *, token: str = "", **differently: object) -> Letter:
        """The webhook, with its secret."""
        url = receiver if isinstance(receiver, str) else receiver.url
        made: Letter = data_of(self.ask("POST", "", {"url": url, **differently}, token=token), 201)
        return made

    def read(self, webhook: Mapping[str, Any], *, token: str = "") -> Letter:
        told: Letter = data_of(self.ask("GET", f"/{webhook['id']}", token=token))
        return told

    def deliveries(self, webhook: Mapping[str, Any], *, token: str = "", **query: str) -> list[Letter]:
        filters = "&".join(f"{name}={value}" for name, value in {"size": "100", **query}.items())
        listed: list[Letter] = data_of(self.ask("GET", f"/{webhook['id']}/deliveries?{filters}", token=token))["items"]
        return listed

    def delivery(self, webhook: Mapping[str, Any], delivery: Mapping[str, Any], *, token: str = "") -> Letter:
        told: Letter = data_of(self.ask("GET", f"/{webhook['id']}/deliveries/{delivery['id']}", token=token))
        return told

    def wait_for_state(self, webhook: Mapping[str, Any], *states: str) -> list[Letter]:
        """Of all its deliveries, the newest first."""
        wait_for(lambda: [each["state"] for each in self.deliveries(webhook)] == list(states))
        return self.deliveries(webhook)

    def wait_for_attempts(self, webhook: Mapping[str, Any], delivery: Mapping[str, Any], number: int) -> None:
        """That ended."""
        wait_for(lambda: len(self.delivery(webhook, delivery)["attempts"]) >= number)

    def wait_for_failure(self, webhook: Mapping[str, Any]) -> None:
        wait_for(lambda: self.read(webhook)["consecutive_failures"] > 0)

    def place_order(self, *, token: str = "") -> str:
        if not self._product:
            letter = {
                "sku": uuid4().hex,
                "name": "Storm lamp",
                "price_minor": 3490,
                "currency": "EUR",
                "stock": 100_000,
            }
            self._product = data_of(self.service.post("products", letter, token=self.token), 201)["id"]
        return orders.place_order(self.service, token or self.token, self._product)

    def move(self, order_id: str, *steps: str) -> None:
        for step in steps:
            data_of(self.service.post(f"orders/{order_id}/{step}", token=self.token))

    def somebody(self, *permissions: str) -> tuple[str, str]:
        """Somebody new who holds these: id and access token."""
        name = f"r-{len(permissions)}-{'-'.join(permissions).replace(':', '_').replace('*', 'all')}"
        email = self.service.register()
        opened = self.service.log_in(email)["access_token"]
        me = data_of(self.service.get("profile", token=opened))["id"]
        letter = {"name": name, "permissions": list(permissions)}
        made = self.service.post("roles", letter, token=self.token)
        if not made.is_success:
            refused(made, ErrorCode.ROLE_NAME_TAKEN)
        self.give(me, "user", name)
        return me, self.service.log_in(email)["access_token"]

    def give(self, user_id: str, *roles: str) -> None:
        put = self.service.client.put(
            f"/api/v1/users/{user_id}/roles", json={"roles": list(roles)}, headers=bearer(self.token)
        )
        data_of(put)

    def rows(self, query: Executable) -> Sequence[Row[Any]]:  # Any: columns of several types
        return execute(self.place.database_url, query)

    def change(self, statement: Update) -> None:
        execute(self.place.database_url, statement)

    def wait_until_told(self) -> None:
        """All that was announced has become deliveries."""
        open_events = select(col(OutboxEvent.position)).where(
            col(OutboxEvent.delivered_at).is_(None), col(OutboxEvent.kind).startswith("order.")
        )
        wait_for(lambda: not self.rows(open_events))

    def wait_until_settled(self) -> None:
        self.wait_until_told()
        pending = select(col(WebhookDelivery.position)).where(PENDING)
        wait_for(lambda: not self.rows(pending), within_seconds=60)

    def end_leases(self) -> None:
        past = update(WebhookDelivery).where(PENDING, col(WebhookDelivery.leased_until).is_not(None))
        self.change(past.values(leased_until=WebhookDelivery.created_at))

    def clear(self) -> None:
        for table in (WebhookAttempt, WebhookDelivery, WebhookEndpoint, OutboxEvent):
            execute(self.place.database_url, delete(table))


@pytest.fixture(scope="module")
def opened(database_kind: Kind) -> Iterator[Office]:
    with own_place(database_kind, **QUICK, **ALLOWED) as place, place.service() as service:
        yield Office(place, service, service.log_in()["access_token"])


@pytest.fixture
def office(opened: Office) -> Iterator[Office]:
    """With no webhook, and nothing told."""
    opened.clear()
    yield opened
    opened.clear()


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:
        yield lambda *args, **how: stack.enter_context(running_receiver(*args, **how))


@pytest.fixture
def receiver(make_receiver: Callable[..., Receiver]) -> Receiver:
    return make_receiver()

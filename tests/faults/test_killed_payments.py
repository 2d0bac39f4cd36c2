"""kill -9 after the provider has approved and before we have committed: nothing is lost, and nothing is paid twice."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Lock
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.cli.payment_provider import Booked
from tests.core.conftest import ORDERS, PRODUCTS
from tests.faults.kills import SETTINGS, MortalService
from tests.support.answers import bearer, data_of
from tests.support.invariants import check_books
from tests.support.payments import Bank, running_bank
from tests.support.ports import reserved_port
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import ADMIN, Place, Service, own_place
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="how all processes are found and killed"),
]
AT_ONCE = 3
PRICE = 1250


@dataclass
class Till:
    """Who pays, and what they were told."""

    url: str
    token: str = ""
    orders: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    def place(self, product_id: str) -> str:
        items = [{"product_id": product_id, "quantity": 1}]
        order_id = str(data_of(self._post(ORDERS, {"items": items}, uuid4().hex), 201)["id"])
        self.orders.append(order_id)
        self.keys[order_id] = uuid4().hex
        return order_id

    def pay(self, order_id: str, source: str) -> httpx2.Response:
        return self._post(f"{ORDERS}/{order_id}/payments", {"source": source}, self.keys[order_id])

    def pay_a_mortal(self, order_id: str, source: str) -> None:
        try:
            self.pay(order_id, source)
        except httpx2.HTTPError:
            return

    def payments(self, order_id: str) -> list[dict[str, Any]]:  # Any: JSON
        page: list[dict[str, Any]] = data_of(self._get(f"{ORDERS}/{order_id}/payments"))["items"]  # Any: as above
        return page

    def status(self, order_id: str) -> str:
        return str(data_of(self._get(f"{ORDERS}/{order_id}"))["status"])

    def _get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=bearer(self.token), timeout=20, verify=False)

    def _post(self, path: str, letter: object, key: str) -> httpx2.Response:
        headers = {"Idempotency-Key": key} | bearer(self.token)
        return httpx2.post(self.url + path, json=letter, headers=headers, timeout=20, verify=False)


@dataclass
class Executioner:
    """Kills the service when money has moved, while nobody but the provider knows."""

    service: MortalService
    spared: float = inf
    """So many approvals go well before."""
    killed: int = 0
    _lock: Lock = field(default_factory=Lock)

    async def __call__(self, _booked: Booked) -> None:
        await asyncio.to_thread(self._strike)

    def spare(self, approvals: float) -> None:
        with self._lock:
            self.spared = approvals

    def _strike(self) -> None:
        with self._lock:
            self.spared -= 1
            if self.spared < 0 and self.service.is_alive():
                self.service.kill()
                self.killed += 1


@contextmanager
def _shop(kind: Kind, bank: Bank) -> Iterator[tuple[Place, MortalService, Till, str]]:
    # Longer than a payment may take: whoever was killed with an event in hand keeps it so long.
    settings = SETTINGS | {"OUTBOX__LEASE_SECONDS": "16"} | bank.settings()
    with own_place(kind, **settings) as place, reserved_port() as port:
        service = MortalService(place, port, workers=1)
        service.revive()
        till = Till(f"http://127.0.0.1:{port}")
        bank.calls_back(till.url)
        with httpx2.Client(base_url=till.url, timeout=20, verify=False) as client:
            till.token = Service(service.server, client).log_in(ADMIN)["access_token"]
        letter = {"sku": "CASK", "name": "Cask", "price_minor": PRICE, "currency": "EUR", "stock": 1_000_000}
        made = httpx2.post(till.url + PRODUCTS, json=letter, headers=bearer(till.token), verify=False)
        try:
            yield place, service, till, str(data_of(made, 201)["id"])
        finally:
            if service.is_alive():
                service.end()


# What is called back, what is asked for again, what is found by the outbox alone.
SOURCES = ("tok_approve", "tok_no_callback", "tok_early", "tok_lost")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_approved_before_a_kill_is_paid_after_it_once(kind: Kind, tried: Callable[[int], None]) -> None:
    number = rounds(3, full=200)
    with running_bank() as bank, _shop(kind, bank) as (place, service, till, product), ThreadPoolExecutor() as threads:
        executioner = bank.provider.charged = Executioner(service)
        for turn in range(number):
            executioner.spare(turn % AT_ONCE)
            placed = [till.place(product) for _ in range(AT_ONCE)]
            source = SOURCES[turn % len(SOURCES)]
            list(threads.map(partial(till.pay_a_mortal, source=source), placed))
            wait_for(lambda: not service.is_alive())
            service.revive()
        bank.provider.charged = None

        assert executioner.killed == number
        # Without anybody who asks again: what the provider has taken is paid.
        taken = [order_id for order_id in till.orders if till.payments(order_id)]
        assert len(taken) >= number
        wait_for(lambda: all(till.status(order_id) == "paid" for order_id in taken), within_seconds=120)
        # And whoever was not heard before asks again.
        again = [
            till.pay(order_id, SOURCES[turn // AT_ONCE % len(SOURCES)]) for turn, order_id in enumerate(till.orders)
        ]
        assert {answer.status_code for answer in again} == {201}
        payments = [till.payments(order_id) for order_id in till.orders]
        assert [[each["status"] for each in of_one] for of_one in payments] == [["succeeded"]] * len(till.orders)
        assert {of_one[0]["id"] for of_one in payments} == set(bank.books)
        assert bank.kept_minor() == PRICE * len(till.orders)
        service.end()
        check_books(place.database_url)
    tried(number)

"""Buyers who want to know: each order has a key, and is asked for with it until the answer is definite."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Condition, Event
from time import monotonic
from uuid import UUID

import httpx2

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of

PATIENCE_SECONDS = 60
# They say nothing about the order, now or ever: the same is asked again.
_INDEFINITE = {ErrorCode.IDEMPOTENCY_IN_PROGRESS, ErrorCode.CONFLICTING_WRITE}
_OUT_OF_STOCK = ErrorCode.PRODUCT_OUT_OF_STOCK

Line = tuple[UUID, int, int]
"""(product, quantity, unit price)"""


@dataclass(frozen=True)
class Receipt:
    """What an order is from its 201 on."""

    key: str
    asked: bytes
    answered: bytes
    order_id: UUID
    number: str
    total_minor: int
    lines: frozenset[Line]

    @classmethod
    def of(cls, key: str, asked: bytes, answer: httpx2.Response) -> "Receipt":
        order = data_of(answer, 201)
        return cls(
            key,
            asked,
            answer.content,
            UUID(order["id"]),
            order["number"],
            order["total_minor"],
            frozenset(
                (UUID(item["product_id"]), item["quantity"], item["unit_price_minor"]) for item in order["items"]
            ),
        )


@dataclass
class Told:
    """All that the service ever said to them."""

    stocked: Counter[UUID] = field(default_factory=Counter)
    """By product: its first stock, and each refill that was acknowledged."""
    receipts: list[Receipt] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """The keys of orders that were refused for want of stock."""
    refills: int = 0
    asked_again: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """By status and code, or by the kind of broken connection."""
    heard: list[float] = field(default_factory=list)
    """When a definite answer came, by the monotonic clock."""
    surprises: list[str] = field(default_factory=list)
    """Definite answers that nobody expected."""
    changed: Condition = field(default_factory=Condition)

    def acknowledge(self, receipt: Receipt) -> None:
        with self.changed:
            self.receipts.append(receipt)
            self.changed.notify_all()

    def wait_for(self, receipts: int) -> None:
        with self.changed:
            there = self.changed.wait_for(lambda: len(self.receipts) >= receipts, timeout=PATIENCE_SECONDS)
        assert there, f"{len(self.receipts)} orders were acknowledged, not {receipts}; {self.answers} {self.surprises}"


@dataclass
class Shop:
    """What buyers share."""

    url: str
    told: Told
    shortages: SimpleQueue[UUID] = field(default_factory=SimpleQueue)
    up: Event = field(default_factory=Event)
    """Nothing is killed at the moment: who failed may try again at once."""
    ready: float = field(default_factory=monotonic)
    """When it came up last."""
    closing: Event = field(default_factory=Event)
    careless: bool = False
    """Who asks again takes a fresh key: the mistake that keys are there to prevent."""


class Caller:
    def __init__(self, shop: Shop, email: str, seed: str) -> None:
        self.shop, self.told = shop, shop.told
        self.seed, self.random = seed, random.Random(seed)
        self._email = email
        self._client = httpx2.Client(base_url=shop.url, timeout=10, verify=False)
        self._log_in()

    def close(self) -> None:
        self._client.close()

    def ask(self, path: str, body: bytes, key: str) -> httpx2.Response:
        """The first definite answer; within a minute, of which all that is there is alive."""
        begun, again = monotonic(), 0
        while True:
            careful = f"{key}-{again}" if self.shop.careless and again else key
            answer = self._try(path, body, careful)
            if answer is not None:
                return answer
            patient_until = max(begun, self.shop.ready) + PATIENCE_SECONDS
            assert monotonic() < patient_until, f"no definite answer to {path} with {key}: {self.told.answers}"
            if not again:
                with self.told.changed:
                    self.told.asked_again += 1
            again += 1
            self.shop.up.wait(self.random.uniform(0, 2))

    def get(self, path: str) -> httpx2.Response:
        return self._client.get(f"/api/v1/{path}")

    def _try(self, path: str, body: bytes, key: str) -> httpx2.Response | None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            answer = self._client.post(f"/api/v1/{path}", content=body, headers=headers)
            if answer.status_code == 401:
                self._log_in()
        except httpx2.TransportError as error:
            self._count(type(error).__name__)
            return None
        code = answer.json()["code"]
        self._count(str(code) if code == answer.status_code else f"{answer.status_code} {ErrorCode(code).name}")
        if answer.status_code >= 500 or answer.status_code == 401 or code in _INDEFINITE:
            return None
        self.told.heard.append(monotonic())
        return answer

    def _count(self, answer: str) -> None:
        with self.told.changed:
            self.told.answers[answer] += 1

    def _log_in(self) -> None:
        letter = {"email": self._email, "password": PASSWORD}
        token = data_of(self._client.post("/api/v1/auth/login", json=letter))["access_token"]
        self._client.headers.update(bearer(token))


class Buyer(Caller):
    """Places one order after the other until the shop closes; the last one too has its definite answer then."""

    def __init__(self, shop: Shop, email: str, seed: str, products: Sequence[UUID]) -> None:
        super().__init__(shop, email, seed)
        self._products = products

    def run(self) -> None:
        number = 0
        while not self.shop.closing.is_set():
            number += 1
            self.place(f"{self.seed}-{number}")

    def place(self, key: str) -> None:
        chosen = self.random.sample(self._products, self.random.randint(1, 3))
        items = [{"product_id": str(product), "quantity": self.random.randint(1, 3)} for product in chosen]
        body = json.dumps({"items": items}).encode()
        answer = self.ask("orders", body, key)
        code = answer.json()["code"]
        if code == 201:
            self.told.acknowledge(Receipt.of(key, body, answer))
        elif code == _OUT_OF_STOCK:
            with self.told.changed:
                self.told.refused.add(key)
            for item in answer.json()["data"]["items"]:
                self.shop.shortages.put(UUID(item["product_id"]))
        else:
            self.told.surprises.append(f"{key}: {answer.status_code} {answer.text[:200]}")


class Storekeeper(Caller):
    """Refills what a buyer found sold out, once for all who did meanwhile."""

    def run(self) -> None:
        while not self.shop.closing.is_set():
            wanted = self._shortages()
            # In a fixed order: a seed plays the same.
            for product in sorted(wanted):
                self.refill(product)

    def refill(self, product: UUID) -> None:
        delta, key = self.random.randint(10, 30), f"refill-{self.told.refills}"
        body = json.dumps({"delta": delta, "reason": "sold out"}).encode()
        answer = self.ask(f"products/{product}/stock", body, key)
        if answer.status_code == 200:
            self.told.stocked[product] += delta
            self.told.refills += 1
        else:
            self.told.surprises.append(f"{key}: {answer.status_code} {answer.text[:200]}")

    def _shortages(self) -> set[UUID]:
        found: set[UUID] = set()
        try:
            found.add(self.shop.shortages.get(timeout=0.05))
            while True:
                found.add(self.shop.shortages.get_nowait())
        except Empty:
            return found

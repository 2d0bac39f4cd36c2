"""Somebody who pays, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.core.conftest import ORDERS, Buyer, MakeProduct
from tests.support.answers import data_of
from tests.support.payments import Bank
from tests.support.waiting import wait_for

PRICE = 3490
Json = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Basket:
    """An order that somebody wants to pay."""

    id: str
    client: httpx2.Client
    bank: Bank

    def pay(self, source: str = "tok_approve", *, key: str = "") -> httpx2.Response:
        return self.client.post(
            f"{ORDERS}/{self.id}/payments", json={"source": source}, headers={"Idempotency-Key": key or uuid4().hex}
        )

    @property
    def status(self) -> str:
        return str(data_of(self.client.get(f"{ORDERS}/{self.id}"))["status"])

    @property
    def payments(self) -> list[Json]:
        """Newest first."""
        page: list[Json] = data_of(self.client.get(f"{ORDERS}/{self.id}/payments"))["items"]
        return page

    @property
    def timeline(self) -> list[str]:
        return [each["status"] for each in data_of(self.client.get(f"{ORDERS}/{self.id}/timeline"))]

    def becomes(self, status: str) -> None:
        wait_for(lambda: self.status == status)

    def payment_becomes(self, status: str) -> None:
        wait_for(lambda: self.payments[0]["status"] == status)

    @property
    def kept_minor(self) -> int:
        """What the provider has taken for it, and not given back."""
        booked = [self.bank.books[each["id"]] for each in self.payments if each["id"] in self.bank.books]
        return sum(each.amount_minor - each.refunded_minor for each in booked if each.status == "succeeded")

    @property
    def payment_id(self) -> str:
        return str(self.payments[0]["id"])

    def release(self) -> None:
        """The provider makes up its mind, and says so."""
        httpx2.post(f"{self.bank.url}/charges/{self.payment_id}/release", verify=False).raise_for_status()

    def is_called_back(self, times: int = 1) -> None:
        """The service has heard of it, and taken note."""
        payment = self.payment_id
        wait_for(lambda: self.bank.provider.called_back.count((payment, 204)) == times)


@pytest.fixture
def basket(buyer: Buyer, make_product: MakeProduct, bank: Bank) -> Callable[[], Basket]:
    def place(**product: object) -> Basket:
        return Basket(buyer.placed((make_product(price_minor=PRICE, **product)["id"], 1)), buyer.client, bank)

    return place


@pytest.fixture
def order(basket: Callable[[], Basket]) -> Basket:
    return basket()

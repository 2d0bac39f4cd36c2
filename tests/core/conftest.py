"""A shop with goods and buyers, whose books are checked after each test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import Account
from tests.support.answers import data_of
from tests.support.invariants import check_books

PRODUCTS = "/api/v1/products"
ORDERS = "/api/v1/orders"

Product = dict[str, Any]  # Any: JSON
MakeProduct = Callable[..., Product]


@dataclass(frozen=True)
class Buyer:
    account: Account
    client: httpx2.Client

    def place(self, *items: tuple[str, int], key: str | None = None, **more: object) -> httpx2.Response:
        """(product id, quantity) for each line."""
        letter = {"items": [{"product_id": product, "quantity": quantity} for product, quantity in items], **more}
        return self.client.post(ORDERS, json=letter, headers={"Idempotency-Key": key or uuid4().hex})

    def cancel(self, order_id: str) -> httpx2.Response:
        return self.client.post(f"{ORDERS}/{order_id}/cancel")


@pytest.fixture(autouse=True)
def books(database_url: str) -> Iterator[None]:
    yield
    check_books(database_url)


@pytest.fixture
def make_product(admin: httpx2.Client) -> MakeProduct:
    def make(**differently: object) -> Product:
        letter: dict[str, object] = {
            "sku": f"SKU-{uuid4().hex}",
            "name": "Storm lamp",
            "price_minor": 3490,
            "currency": "EUR",
            "stock": 10,
        }
        product: Product = data_of(admin.post(PRODUCTS, json=letter | differently), 201)
        return product

    return make


@pytest.fixture
def stock_of(admin: httpx2.Client) -> Callable[[Product], int]:
    """What can be ordered of it now."""

    def read(product: Product) -> int:
        stock: int = data_of(admin.get(f"{PRODUCTS}/{product['id']}"))["stock"]
        return stock

    return read


@pytest.fixture
def buyer(register: Callable[[], Account], login: Callable[[Account], httpx2.Client]) -> Buyer:
    account = register()
    return Buyer(account, login(account))


@pytest.fixture
def other_buyer(register: Callable[[], Account], login: Callable[[Account], httpx2.Client]) -> Buyer:
    account = register()
    return Buyer(account, login(account))

"""A shop with goods and buyers, whose books are checked after each test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlmodel import insert

from src.mixins import utc_now
from src.shared.types import new_id
from src.users.models import Role, RolePermission
from tests.conftest import Account
from tests.support.answers import data_of
from tests.support.invariants import check_books
from tests.support.tables import execute

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

    def placed(self, *items: tuple[str, int]) -> str:
        """The id of an order that went through."""
        order_id: str = data_of(self.place(*items), 201)["id"]
        return order_id

    def cancel(self, order_id: str) -> httpx2.Response:
        return self.client.post(f"{ORDERS}/{order_id}/cancel")


def move(client: httpx2.Client, order_id: str, step: str, *, key: str | None = None) -> httpx2.Response:
    """`step` is pay, fulfil, return or cancel."""
    return client.post(f"{ORDERS}/{order_id}/{step}", headers={"Idempotency-Key": key} if key else {})


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


@pytest.fixture
def clerk(
    admin: httpx2.Client,
    register: Callable[[], Account],
    login: Callable[[Account], httpx2.Client],
    database_url: str,
) -> Callable[[str], Buyer]:
    """Somebody who holds one permission."""

    def hire(permission: str) -> Buyer:
        role_id, name, now = new_id(), f"clerk-{uuid4().hex}", utc_now()
        row = {"id": role_id, "name": name, "description": "", "is_system": False, "created_at": now, "updated_at": now}
        execute(database_url, insert(Role).values(row))
        execute(database_url, insert(RolePermission).values(role_id=role_id, permission=permission))
        account = register()
        data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": [name]}))
        return Buyer(account, login(account))

    return hire

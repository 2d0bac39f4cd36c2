"""Each revision goes up and down on both databases, and brings along what was written before."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    BigInteger,
    ColumnClause,
    Integer,
    Row,
    String,
    TableClause,
    Uuid,
    column,
    insert,
    select,
    table,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from src.core.orders.models import Order, OrderEvent, OrderStatus
from src.core.products.models import StockMovement
from src.shared.types import new_id
from tests.support.answers import bearer, data_of
from tests.support.invariants import check_books
from tests.support.orders import EXPIRING, one_of_each_status
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import run_command
from tests.support.service import Place, own_place
from tests.support.tables import execute, execute_each

BEFORE_ORDERS_MOVED = "0003"
SOMETIME = datetime(2026, 3, 29, 1, 30, 0, 250_000, tzinfo=UTC)
A_DAY = timedelta(days=1)


def columns(kind: type[TypeEngine[Any]], *names: str) -> list[ColumnClause[Any]]:  # Any: of any type
    return [column(name, kind()) for name in names]


# As they were at 0003.
PRODUCTS = table(
    "products",
    *columns(Uuid, "id"),
    *columns(String, "sku", "sku_key", "name", "description", "currency", "status"),
    *columns(BigInteger, "price_minor", "on_hand", "reserved", "version"),
    *columns(UTCDateTime, "created_at", "updated_at"),
)
MOVEMENTS = table(
    "stock_movements",
    *columns(Uuid, "id", "product_id", "actor_id"),
    *columns(String, "kind", "reason"),
    *columns(BigInteger, "quantity"),
    *columns(UTCDateTime, "created_at"),
)
ORDERS = table(
    "orders",
    *columns(Uuid, "id", "customer_id"),
    *columns(String, "number", "status", "currency"),
    *columns(BigInteger, "total_minor"),
    *columns(Integer, "version"),
    *columns(UTCDateTime, "created_at", "updated_at"),
)
LINES = table(
    "order_lines",
    *columns(Uuid, "order_id", "product_id"),
    *columns(String, "sku", "name"),
    *columns(BigInteger, "unit_price_minor"),
    *columns(Integer, "quantity"),
)


def migrate(place: Place, down_to: str = "") -> None:
    code, said = place.run("migrate", *(["--down-to", down_to] if down_to else []))
    assert code == 0, said


def test_every_revision_goes_down_and_up_again(database_kind: Kind, tmp_path: Path) -> None:
    url = fresh_database(database_kind)
    try:
        for direction in (["--down-to", "base"], [], ["--down-to", "base"], []):
            moved = run_command("migrate", *direction, env={"DB__URL": url}, cwd=tmp_path)
            assert moved.returncode == 0, moved.stdout + moved.stderr
    finally:
        drop_database(url)


@pytest.fixture
def place(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, **EXPIRING) as place:
        yield place


class Shop:
    """What a service at 0003 wrote: orders, open and called off, and the stock that they keep."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.customer = UUID(str(execute(place.database_url, text("SELECT id FROM users"))[0][0]))
        self.lamp, self.rope = new_id(), new_id()
        self.placed, self.cancelled = [new_id(), new_id()], new_id()
        self.rows: list[tuple[TableClause, dict[str, Any]]] = []  # Any: columns of several types
        for product_id, reserved in ((self.lamp, 2 + 1), (self.rope, 3)):
            self._stock(product_id, reserved)
        for order_id, lines in zip(self.placed, [{self.lamp: 2, self.rope: 3}, {self.lamp: 1}], strict=True):
            self._order(order_id, "placed", lines)
        self._order(self.cancelled, "cancelled", {self.lamp: 4, self.rope: 1})
        execute_each(place.database_url, [insert(into).values(row) for into, row in self.rows])

    def _stock(self, product_id: UUID, reserved: int) -> None:
        named = {"sku": f"SKU-{product_id}", "sku_key": f"sku-{product_id}", "name": "Lamp", "description": ""}
        numbers = {"price_minor": 100, "on_hand": 7, "reserved": reserved, "version": 1}
        moments = {"created_at": SOMETIME, "updated_at": SOMETIME}
        product = {"id": product_id, "currency": "EUR", "status": "active"} | named | numbers | moments
        self.rows.append((PRODUCTS, product))
        for kind, quantity in (("initial", 10), ("adjustment", -3)):
            movement = {"id": new_id(), "product_id": product_id, "actor_id": self.customer, "kind": kind}
            self.rows.append((MOVEMENTS, movement | {"quantity": quantity, "reason": kind, "created_at": SOMETIME}))

    def _order(self, order_id: UUID, status: str, lines: dict[UUID, int]) -> None:
        called_off = status == "cancelled"
        order = {
            "id": order_id,
            "customer_id": self.customer,
            "number": uuid4().hex[:11],
            "status": status,
            "currency": "EUR",
            "total_minor": 100 * sum(lines.values()),
            "version": 2 if called_off else 1,
            "created_at": SOMETIME,
            "updated_at": SOMETIME + A_DAY if called_off else SOMETIME,
        }
        self.rows.append((ORDERS, order))
        for product_id, quantity in lines.items():
            line = {"order_id": order_id, "product_id": product_id, "sku": "S", "name": "Lamp", "unit_price_minor": 100}
            self.rows.append((LINES, line | {"quantity": quantity}))

    def stored(self) -> list[dict[str, Any]]:  # Any: as above
        """What is there now of what was written."""
        url = self.place.database_url
        return [dict(row._mapping) for each in (PRODUCTS, ORDERS, LINES, MOVEMENTS) for row in _read(url, each)]


def _read(url: str, what: TableClause) -> Sequence[Row[Any]]:  # Any: columns of several types
    return execute(url, select(*what.c).order_by(*what.c))


@pytest.fixture
def shop(place: Place) -> Shop:
    migrate(place, BEFORE_ORDERS_MOVED)
    return Shop(place)


def test_what_was_ordered_before_orders_moved_is_still_there(shop: Shop) -> None:
    before = shop.stored()
    assert len(before) == len(shop.rows)

    migrate(shop.place)

    after = shop.stored()
    assert [row for row in before if row not in after] == []
    # What came is the ledger of the orders.
    added = [row["kind"] for row in after if row not in before]
    assert sorted(added) == ["release"] * 2 + ["reservation"] * 5
    check_books(shop.place.database_url)
    for deed in ("DELETE FROM stock_movements", "UPDATE stock_movements SET quantity = 0"):
        with pytest.raises(DBAPIError, match="the ledger of stock is append-only"):
            execute(shop.place.database_url, text(deed))


def test_orders_of_before_get_a_history_a_ledger_and_a_day(shop: Shop) -> None:
    url, before = shop.place.database_url, datetime.now(UTC)

    migrate(shop.place)

    expiring = [expires_at for (expires_at,) in execute(url, select(col(Order.expires_at)))]
    assert len(expiring) == 3
    for expires_at in expiring:
        # To the millisecond is what SQLite's own clock tells.
        assert before + A_DAY - timedelta(milliseconds=1) <= expires_at <= datetime.now(UTC) + A_DAY
    told = select(col(OrderEvent.version), col(OrderEvent.status), col(OrderEvent.actor_id), col(OrderEvent.created_at))
    begun = (1, OrderStatus.PLACED, shop.customer, SOMETIME)
    for order_id, ended in (
        *((order_id, []) for order_id in shop.placed),
        (shop.cancelled, [(2, OrderStatus.CANCELLED, shop.customer, SOMETIME + A_DAY)]),
    ):
        of_it = told.where(col(OrderEvent.order_id) == order_id).order_by(col(OrderEvent.version))
        assert [tuple(row) for row in execute(url, of_it)] == [begun, *ended]
    references = select(col(StockMovement.reference)).where(col(StockMovement.kind) == "reservation").distinct()
    orders = {f"order:{order_id}" for order_id in (*shop.placed, shop.cancelled)}
    assert {reference for (reference,) in execute(url, references)} == orders


def test_orders_of_before_go_on_like_others(shop: Shop) -> None:
    migrate(shop.place)

    with shop.place.service() as service:
        token = service.log_in()["access_token"]
        first, second = (str(order_id) for order_id in shop.placed)
        data_of(service.post(f"orders/{first}/cancel", token=token))
        for step in ("pay", "fulfil", "return"):
            data_of(service.post(f"orders/{second}/{step}", token=token))
        timeline = data_of(service.get(f"orders/{first}/timeline", token=token))
        stock = data_of(service.get(f"products/{shop.lamp}", token=token))["stock"]

    assert [event["status"] for event in timeline] == ["placed", "cancelled"]
    assert stock == 7
    check_books(shop.place.database_url)


async def test_orders_in_every_status_go_down_and_up_again(place: Place) -> None:
    with place.service() as service:
        orders = await one_of_each_status(place, service)
    url = place.database_url
    lines = _read(url, LINES)
    stock = text("SELECT id, on_hand, reserved FROM products ORDER BY id")
    kept = execute(url, stock)

    migrate(place, BEFORE_ORDERS_MOVED)
    statuses = {row["id"]: row["status"] for row in (each._mapping for each in _read(url, ORDERS))}
    migrate(place)

    # The older version has no other words for them.
    assert {status: statuses[UUID(order_id)] for status, order_id in orders.items()} == {
        status: "placed" if status in (OrderStatus.PLACED, OrderStatus.PAID) else "cancelled" for status in OrderStatus
    }
    assert _read(url, LINES) == lines
    assert execute(url, stock) == kept
    check_books(url)
    with place.service() as service:
        token = service.log_in()["access_token"]
        for status in (OrderStatus.PLACED, OrderStatus.PAID):
            answer = service.client.post(f"/api/v1/orders/{orders[status]}/cancel", headers=bearer(token))
            assert data_of(answer)["status"] == OrderStatus.CANCELLED
    check_books(url)

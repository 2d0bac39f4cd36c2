"""Orders that nobody paid: they expire by themselves and give their stock back, once; and keep no other from it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import update
from sqlmodel import col

from src.core.orders.models import Order
from src.core.products.models import Product as ProductRow
from src.shared.errors import ErrorCode
from tests.core.conftest import ORDERS, PRODUCTS, Buyer, MakeProduct, Product, move
from tests.support.answers import bearer, data_of, refused
from tests.support.postgres import Kind
from tests.support.server import Server
from tests.support.service import Place, own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

LONG_AGO = timedelta(days=1)
StockOf = Callable[[Product], int]


@pytest.fixture(scope="module")
def place(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, ORDERS__EXPIRY_CHECK_SECONDS="0.05") as place:
        yield place


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[Server]:
    """It looks for overdue orders all the time; what is placed becomes overdue by a test's hand."""
    with place.service() as service:
        yield service.server


@pytest.fixture(scope="module")
def admin_email() -> str:
    return "admin@example.com"


@pytest.fixture(scope="module")
def database_url(place: Place) -> str:
    return place.database_url


@pytest.fixture
def make_overdue(database_url: str) -> Callable[[str], None]:
    def make(order_id: str, by: timedelta = LONG_AGO) -> None:
        over = update(Order).where(col(Order.id) == UUID(order_id)).values(expires_at=datetime.now(UTC) - by)
        execute(database_url, over)

    return make


def status_of(client: httpx2.Client, order_id: str) -> str:
    status: str = data_of(client.get(f"{ORDERS}/{order_id}"))["status"]
    return status


async def expired(client: httpx2.Client, order_id: str) -> None:
    async def is_expired() -> bool:
        return status_of(client, order_id) == "expired"

    await eventually(is_expired, within_seconds=20)


async def test_an_order_that_nobody_pays_in_time_expires_by_itself(database_kind: Kind) -> None:
    with (
        own_place(database_kind, ORDERS__PAYMENT_SECONDS="1", ORDERS__EXPIRY_CHECK_SECONDS="0.05") as place,
        place.service() as service,
    ):
        admin = service.client
        admin.headers.update(bearer(service.log_in()["access_token"]))
        letter = {"sku": "LAMP", "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": 10}
        product = data_of(service.post("products", letter), 201)["id"]
        basket = {"items": [{"product_id": product, "quantity": 4}]}

        answer = admin.post(ORDERS, json=basket, headers={"Idempotency-Key": "k"})

        await expired(admin, data_of(answer, 201)["id"])
        assert data_of(service.get(f"products/{product}"))["stock"] == 10


async def test_what_expires_gives_its_stock_back_once_and_is_told_as_the_services_doing(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, make_overdue: Callable[[str], None]
) -> None:
    one, two = make_product(stock=10), make_product(stock=10)
    order, later = buyer.placed((one["id"], 4), (two["id"], 1)), buyer.placed((one["id"], 1))

    make_overdue(order)
    await expired(buyer.client, order)
    # It has looked at all again by then.
    make_overdue(later)
    await expired(buyer.client, later)

    shown = data_of(buyer.client.get(f"{ORDERS}/{order}"))
    assert (shown["status"], shown["version"]) == ("expired", 2)
    events = data_of(buyer.client.get(f"{ORDERS}/{order}/timeline"))
    assert [(event["version"], event["status"], event["actor"]) for event in events] == [
        (1, "placed", "customer"),
        (2, "expired", "service"),
    ]
    for product, quantity in ((one, 4), (two, 1)):
        path = f"{PRODUCTS}/{product['id']}"
        assert data_of(admin.get(path))["stock"] == 10
        page = data_of(admin.get(f"{path}/stock/movements", params={"kind": "release"}))["items"]
        ours = [entry for entry in page if entry["reference"] == f"order:{order}"]
        assert [(one["quantity"], one["reserved"], one["actor_id"]) for one in ours] == [(0, -quantity, None)]
    assert data_of(admin.get("/api/v1/audit", params={"target_id": order}))["items"] == []


async def test_what_was_paid_or_cancelled_does_not_expire(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, make_overdue: Callable[[str], None]
) -> None:
    product = make_product(stock=10)
    paid, cancelled, unpaid = (buyer.placed((product["id"], 1)) for _ in range(3))
    data_of(move(admin, paid, "pay"))
    data_of(buyer.cancel(cancelled))

    for order in (paid, cancelled, unpaid):
        make_overdue(order)
    await expired(buyer.client, unpaid)

    assert (status_of(admin, paid), status_of(admin, cancelled)) == ("paid", "cancelled")
    assert data_of(admin.get(f"{PRODUCTS}/{product['id']}"))["stock"] == 9


async def test_what_expired_moves_no_more(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, make_overdue: Callable[[str], None]
) -> None:
    order = buyer.placed((make_product()["id"], 1))
    make_overdue(order)
    await expired(buyer.client, order)

    answers = [move(admin, order, step) for step in ("pay", "fulfil", "return", "cancel")] + [buyer.cancel(order)]

    for answer in answers:
        told = refused(answer, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
        assert told == {"status": "expired", "allowed": []}


async def test_many_that_are_overdue_at_once_all_expire(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf, database_url: str
) -> None:
    """More than it looks at in one go."""
    product = make_product(stock=1000)
    orders = [buyer.placed((product["id"], 1)) for _ in range(120)]

    overdue = update(Order).where(col(Order.customer_id) == UUID(buyer.account.id))
    execute(database_url, overdue.values(expires_at=datetime.now(UTC) - LONG_AGO))

    async def all_is_back() -> bool:
        return stock_of(product) == 1000

    await eventually(all_is_back, within_seconds=30)
    assert {status_of(buyer.client, order) for order in orders} == {"expired"}


async def test_an_order_that_cannot_expire_keeps_no_other_waiting(  # noqa: PLR0913, PLR0917 - fixtures
    server: Server,
    buyer: Buyer,
    make_product: MakeProduct,
    make_overdue: Callable[..., None],
    database_url: str,
    stock_of: StockOf,
) -> None:
    """Somebody took its reservation away by hand: to give it back now, the database refuses."""
    broken, whole = make_product(stock=10), make_product(stock=10)
    poison, other = buyer.placed((broken["id"], 4)), buyer.placed((whole["id"], 4))

    def reserve(quantity: int) -> None:
        reserved = update(ProductRow).where(col(ProductRow.id) == UUID(broken["id"])).values(reserved=quantity)
        execute(database_url, reserved)

    reserve(0)

    # The longest overdue comes first.
    make_overdue(poison, LONG_AGO * 2)
    make_overdue(other)
    await expired(buyer.client, other)

    assert status_of(buyer.client, poison) == "placed"
    assert (stock_of(whole), stock_of(broken)) == (10, 10)

    async def is_told() -> bool:
        return any("Could not expire an order" in line and poison in line for line in server.output().splitlines())

    await eventually(is_told)  # the log is written in batches
    reserve(4)
    await expired(buyer.client, poison)
    assert stock_of(broken) == 10

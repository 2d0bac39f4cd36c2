"""Orders as a shop has them after a while: one in each status, on a service of a test's own."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import update
from sqlmodel import col

from src.core.orders.models import Order, OrderStatus
from tests.support.answers import bearer, data_of
from tests.support.service import Place, Service
from tests.support.tables import execute
from tests.support.waiting import eventually

EXPIRING = {"ORDERS__EXPIRY_CHECK_SECONDS": "0.05"}
"""What the service needs for the one that expires."""
_STEPS = {
    OrderStatus.PLACED: (),
    OrderStatus.PAID: ("pay",),
    OrderStatus.FULFILLED: ("pay", "fulfil"),
    OrderStatus.CANCELLED: ("cancel",),
    OrderStatus.EXPIRED: (),
    OrderStatus.RETURNED: ("pay", "fulfil", "return"),
}


async def one_of_each_status(place: Place, service: Service) -> dict[OrderStatus, str]:
    """Their ids; each has two lines."""
    admin, buyer = service.log_in()["access_token"], service.log_in(service.register())["access_token"]
    goods = [make_product(service, admin) for _ in range(2)]
    orders = {status: place_order(service, buyer, *goods) for status in _STEPS}
    for status, steps in _STEPS.items():
        for step in steps:
            data_of(service.post(f"orders/{orders[status]}/{step}", token=admin))
    expiring = UUID(orders[OrderStatus.EXPIRED])
    over = datetime.now(UTC) - timedelta(seconds=1)
    execute(place.database_url, update(Order).where(col(Order.id) == expiring).values(expires_at=over))

    async def is_each_there() -> bool:
        told = {status: data_of(service.get(f"orders/{order}", token=admin)) for status, order in orders.items()}
        return all(order["status"] == status for status, order in told.items())

    await eventually(is_each_there)
    return orders


def make_product(service: Service, admin: str) -> str:
    letter = {"sku": uuid4().hex, "name": "Storm lamp", "price_minor": 3490, "currency": "EUR", "stock": 50}
    return str(data_of(service.post("products", letter, token=admin), 201)["id"])


def place_order(service: Service, buyer: str, *product_ids: str) -> str:
    """So many of the first, one more of the second, and so on."""
    items = [{"product_id": product_id, "quantity": number} for number, product_id in enumerate(product_ids, 2)]
    headers = bearer(buyer) | {"Idempotency-Key": uuid4().hex}
    return str(data_of(service.client.post("/api/v1/orders", json={"items": items}, headers=headers), 201)["id"])

"""Placing an order."""

from collections import Counter
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam, column, func, insert
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import get_settings
from src.core.orders.models import Order, OrderEvent, OrderLine, OrderStatus, new_order_number
from src.core.orders.schemas import OrderItemResponse, OrderResponse, PlaceOrderRequest
from src.core.orders.services.notices import announce
from src.core.products import services as products
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.lane import dialect_of, later, prepared, table_of
from src.shared.types import new_id


async def place_order(session: AsyncSession, request: PlaceOrderRequest, *, customer_id: UUID) -> OrderResponse:
    """All lines or none; the same product twice is one line.

    Refused: PRODUCT_NOT_FOUND, PRODUCT_NOT_FOR_SALE, PRODUCT_OUT_OF_STOCK, ORDER_MIXED_CURRENCIES, ORDER_TOTAL_CHANGED.
    """
    basket: Counter[UUID] = Counter()
    for item in request.items:
        basket[item.product_id] += item.quantity
    order_id = new_id()
    reserved = await products.reserve_stock(
        session,
        [products.StockLine(product_id, quantity) for product_id, quantity in basket.items()],
        products.Purpose(f"order:{order_id}", customer_id),
    )
    currencies = sorted({line.currency for line in reserved})
    if len(currencies) > 1:
        raise BusinessException(ErrorCode.ORDER_MIXED_CURRENCIES, data={"currencies": currencies})
    total_minor = sum(line.unit_price_minor * line.quantity for line in reserved)
    if request.expected_total_minor not in (None, total_minor):
        raise BusinessException(ErrorCode.ORDER_TOTAL_CHANGED, data={"total_minor": total_minor})
    now = utc_now()
    order = {
        "id": order_id,
        "number": new_order_number(),
        "customer_id": customer_id,
        "status": OrderStatus.PLACED,
        "total_minor": total_minor,
        "currency": currencies[0],
        "version": 1,
        "expires_at": now + timedelta(seconds=get_settings().orders.payment_seconds),
        "created_at": now,
        "updated_at": now,
    }
    lines = [
        {
            "product_id": line.product_id,
            "sku": line.sku,
            "name": line.name,
            "unit_price_minor": line.unit_price_minor,
            "quantity": line.quantity,
        }
        for line in reserved
    ]
    await _store(session, order, lines)
    await announce(session, order_id, OrderStatus.PLACED)
    return OrderResponse(**order, items=[OrderItemResponse(**line) for line in lines])


async def _store(
    session: AsyncSession, order: dict[str, Any], lines: list[dict[str, Any]]
) -> None:  # Any: columns of several types
    if dialect_of(session) == "postgresql":
        given = {f"order_{name}": value for name, value in order.items()}
        given |= {f"line_{name}": [line[name] for line in lines] for name in _LINE}
        await later(session, _PLACE, **given)
    else:
        await session.execute(insert(_ORDER_TABLE), order)
        await session.execute(insert(_LINE_TABLE), [line | {"order_id": order["id"]} for line in lines])
        event = {name: order[theirs] for name, theirs in _EVENT.items()}
        await session.execute(insert(_EVENT_TABLE), event)


_ORDER_TABLE, _LINE_TABLE, _EVENT_TABLE = table_of(Order), table_of(OrderLine), table_of(OrderEvent)
_EVENT: Final = {
    "order_id": "id",
    "version": "version",
    "status": "status",
    "actor_id": "customer_id",
    "created_at": "created_at",
}
"""Its first event, by the order's own columns."""
_LINE = [each.name for each in _LINE_TABLE.columns if each.name != "order_id"]
_placed = (
    insert(_ORDER_TABLE)
    .values({each.name: bindparam(f"order_{each.name}", type_=each.type) for each in _ORDER_TABLE.columns})
    .cte("placed")
)
_items = (
    func.unnest(*(bindparam(f"line_{name}", type_=ARRAY(_LINE_TABLE.c[name].type)) for name in _LINE))
    .table_valued(*(column(name, _LINE_TABLE.c[name].type) for name in _LINE), name="items")
    .render_derived(name="items")
)
_begun = (
    insert(_EVENT_TABLE)
    .values({name: bindparam(f"order_{theirs}", type_=_EVENT_TABLE.c[name].type) for name, theirs in _EVENT.items()})
    .cte("begun")
)
_order_id = bindparam("order_id", type_=_ORDER_TABLE.c.id.type)
# The order, its lines and its first event in one statement: a foreign key is looked at when the statement ends.
_PLACE: Final = prepared(
    insert(_LINE_TABLE)
    .from_select(["order_id", *_LINE], select_columns(_order_id, *(_items.c[name] for name in _LINE)))
    .add_cte(_placed, _begun)
)

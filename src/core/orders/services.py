"""Placing, reading and cancelling orders."""

from collections import Counter
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, column, func, insert
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.core.orders.models import Order, OrderLine, OrderStatus, new_order_number
from src.core.orders.schemas import (
    OrderFilters,
    OrderItemResponse,
    OrderResponse,
    OrderStatsResponse,
    OrderSummaryResponse,
    PlaceOrderRequest,
)
from src.core.products import services as products
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.lane import dialect_of, later, prepared, table_of
from src.shared.types import new_id

TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PLACED: frozenset({OrderStatus.CANCELLED}),
    OrderStatus.CANCELLED: frozenset(),
}
"""Where an order can go from where it is."""

_ORDERS: dict[str, tuple[Any, ...]] = {  # Any: columns of several types
    "created_at": (col(Order.created_at), col(Order.id)),
    "-created_at": (col(Order.created_at).desc(), col(Order.id).desc()),
    "total_minor": (col(Order.total_minor), col(Order.id)),
    "-total_minor": (col(Order.total_minor).desc(), col(Order.id).desc()),
}


def select_orders(filters: OrderFilters, *, visible_to: UUID | None) -> SelectOfScalar[Order]:
    """`visible_to` sees their own orders only; None sees everybody's."""
    query = select(Order).order_by(*_ORDERS[filters.sort])
    if visible_to is not None:
        query = query.where(Order.customer_id == visible_to)
    if filters.customer_id is not None:
        query = query.where(Order.customer_id == filters.customer_id)
    if filters.status is not None:
        query = query.where(Order.status == filters.status)
    return query


async def place_order(session: AsyncSession, request: PlaceOrderRequest, *, customer_id: UUID) -> OrderResponse:
    """All lines or none; the same product twice is one line.

    Refused: PRODUCT_NOT_FOUND, PRODUCT_NOT_FOR_SALE, PRODUCT_OUT_OF_STOCK, ORDER_MIXED_CURRENCIES, ORDER_TOTAL_CHANGED.
    """
    basket: Counter[UUID] = Counter()
    for item in request.items:
        basket[item.product_id] += item.quantity
    reserved = await products.reserve_stock(
        session, [products.StockLine(product_id, quantity) for product_id, quantity in basket.items()]
    )
    currencies = sorted({line.currency for line in reserved})
    if len(currencies) > 1:
        raise BusinessException(ErrorCode.ORDER_MIXED_CURRENCIES, data={"currencies": currencies})
    total_minor = sum(line.unit_price_minor * line.quantity for line in reserved)
    if request.expected_total_minor not in (None, total_minor):
        raise BusinessException(ErrorCode.ORDER_TOTAL_CHANGED, data={"total_minor": total_minor})
    return await _store(session, customer_id, total_minor, currencies[0], reserved)


async def _store(
    session: AsyncSession, customer_id: UUID, total_minor: int, currency: str, reserved: list[products.ReservedLine]
) -> OrderResponse:
    now = utc_now()
    order = {
        "id": new_id(),
        "number": new_order_number(),
        "customer_id": customer_id,
        "status": OrderStatus.PLACED,
        "total_minor": total_minor,
        "currency": currency,
        "version": 1,
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
    if dialect_of(session) == "postgresql":
        given = {f"order_{name}": value for name, value in order.items()}
        given |= {f"line_{name}": [line[name] for line in lines] for name in _LINE}
        await later(session, _PLACE, **given)
    else:
        await session.execute(insert(_ORDER_TABLE), order)
        await session.execute(insert(_LINE_TABLE), [line | {"order_id": order["id"]} for line in lines])
    return OrderResponse(**order, items=[OrderItemResponse(**line) for line in lines])


_ORDER_TABLE, _LINE_TABLE = table_of(Order), table_of(OrderLine)
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
_order_id = bindparam("order_id", type_=_ORDER_TABLE.c.id.type)
# The order and its lines in one statement: a foreign key is looked at when the statement ends.
_PLACE = prepared(
    insert(_LINE_TABLE)
    .from_select(["order_id", *_LINE], select_columns(_order_id, *(_items.c[name] for name in _LINE)))
    .add_cte(_placed)
)


async def get_order(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> OrderResponse:
    """Refused: ORDER_NOT_FOUND, for somebody else's too."""
    order = (await session.execute(_visible(order_id, visible_to))).scalar_one_or_none()
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    return _letter(order, await _lines(session, order_id))


async def cancel_order(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> OrderResponse:
    """The reserved stock goes back, once. Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED."""
    # Locked before it is judged: of two cancels at once the second must see the first.
    order = (await session.execute(_visible(order_id, visible_to).with_for_update())).scalar_one_or_none()
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    _move(order, OrderStatus.CANCELLED)
    lines = await _lines(session, order_id)
    await products.release_stock(session, [products.StockLine(line.product_id, line.quantity) for line in lines])
    if visible_to is None:
        # By somebody who may do it to anybody's.
        await audit.record(session, "order.cancelled", target=("order", order_id))
    return _letter(order, lines)


def _visible(order_id: UUID, visible_to: UUID | None) -> SelectOfScalar[Order]:
    query = select(Order).where(Order.id == order_id)
    return query if visible_to is None else query.where(Order.customer_id == visible_to)


def _move(order: Order, status: OrderStatus) -> None:
    allowed = TRANSITIONS[order.status]
    if status not in allowed:
        raise BusinessException(
            ErrorCode.ORDER_TRANSITION_NOT_ALLOWED, data={"status": order.status, "allowed": sorted(allowed)}
        )
    order.status = status
    order.version += 1


async def _lines(session: AsyncSession, order_id: UUID) -> list[OrderLine]:
    query = select(OrderLine).where(OrderLine.order_id == order_id).order_by(col(OrderLine.product_id))
    return list((await session.execute(query)).scalars())


def _letter(order: Order, lines: list[OrderLine]) -> OrderResponse:
    summary = OrderSummaryResponse.model_validate(order)
    return OrderResponse(**summary.model_dump(), items=[OrderItemResponse.model_validate(line) for line in lines])


async def get_stats(session: AsyncSession) -> OrderStatsResponse:
    counted = await session.execute(select(Order.status, func.count()).group_by(col(Order.status)))
    by_status = {OrderStatus(status): count for status, count in counted}
    return OrderStatsResponse(total=sum(by_status.values()), by_status=by_status)

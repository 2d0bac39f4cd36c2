"""Orders that are there, for those who may see them."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.core.orders.models import Order, OrderEvent, OrderLine
from src.core.orders.schemas import (
    Actor,
    OrderEventResponse,
    OrderFilters,
    OrderItemResponse,
    OrderResponse,
    OrderSummaryResponse,
)
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode

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


def select_visible(order_id: UUID, visible_to: UUID | None) -> SelectOfScalar[Order]:
    query = select(Order).where(Order.id == order_id)
    return query if visible_to is None else query.where(Order.customer_id == visible_to)


async def is_visible(session: AsyncSession, order_id: UUID, visible_to: UUID | None) -> bool:
    return (await session.execute(select_visible(order_id, visible_to))).scalar_one_or_none() is not None


async def get_order(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> OrderResponse:
    """Refused: ORDER_NOT_FOUND, for somebody else's too."""
    order = (await session.execute(select_visible(order_id, visible_to))).scalar_one_or_none()
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    return to_letter(order, await find_lines(session, order_id))


async def find_lines(session: AsyncSession, order_id: UUID) -> Sequence[OrderLine]:
    return (await session.execute(_LINES, {"of_order": order_id})).scalars().all()


_LINES: Final = select(OrderLine).where(OrderLine.order_id == bindparam("of_order")).order_by(col(OrderLine.product_id))


def to_letter(order: Order, lines: Sequence[OrderLine]) -> OrderResponse:
    summary = OrderSummaryResponse.model_validate(order)
    return OrderResponse(**summary.model_dump(), items=[OrderItemResponse.model_validate(line) for line in lines])


async def get_timeline(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> list[OrderEventResponse]:
    """From its placing on. Refused: ORDER_NOT_FOUND, for somebody else's too."""
    order = (await session.execute(select_visible(order_id, visible_to))).scalar_one_or_none()
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    query = select(OrderEvent).where(OrderEvent.order_id == order_id).order_by(col(OrderEvent.version))
    return [
        OrderEventResponse(
            version=event.version,
            status=event.status,
            actor=_actor(event.actor_id, order.customer_id),
            created_at=event.created_at,
        )
        for event in (await session.execute(query)).scalars()
    ]


def _actor(actor_id: UUID | None, customer_id: UUID) -> Actor:
    if actor_id is None:
        return Actor.SERVICE
    return Actor.CUSTOMER if actor_id == customer_id else Actor.STAFF

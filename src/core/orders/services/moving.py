"""Moving an order along: what may follow what, each step once."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.core.orders.models import Order, OrderEvent, OrderLine, OrderStatus
from src.core.orders.schemas import OrderResponse
from src.core.orders.services.notices import announce
from src.core.orders.services.reading import find_lines, select_visible, to_letter
from src.core.products import services as products
from src.core.products.services import Purpose, StockLine
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode

TRANSITIONS: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.PLACED: frozenset({OrderStatus.PAID, OrderStatus.CANCELLED, OrderStatus.EXPIRED}),
    OrderStatus.PAID: frozenset({OrderStatus.FULFILLED, OrderStatus.CANCELLED}),
    OrderStatus.FULFILLED: frozenset({OrderStatus.RETURNED}),
    OrderStatus.CANCELLED: frozenset(),
    OrderStatus.EXPIRED: frozenset(),
    OrderStatus.RETURNED: frozenset(),
}
"""Where an order can go from where it is."""

_STOCK: Final[Mapping[OrderStatus, Callable[[AsyncSession, Sequence[StockLine], Purpose], Awaitable[None]]]] = {
    OrderStatus.CANCELLED: products.release_stock,
    OrderStatus.EXPIRED: products.release_stock,
    OrderStatus.FULFILLED: products.ship_stock,
    OrderStatus.RETURNED: products.take_back_stock,
}
_LOOKED_AT: Final = 100


async def pay_order(session: AsyncSession, order_id: UUID, *, actor_id: UUID) -> OrderResponse:
    """Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED."""
    return await _move(session, order_id, OrderStatus.PAID, visible_to=None, actor_id=actor_id)


async def fulfil_order(session: AsyncSession, order_id: UUID, *, actor_id: UUID) -> OrderResponse:
    """It leaves the house, and the stock with it. Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED."""
    return await _move(session, order_id, OrderStatus.FULFILLED, visible_to=None, actor_id=actor_id)


async def return_order(session: AsyncSession, order_id: UUID, *, actor_id: UUID) -> OrderResponse:
    """All of it came back, and can be sold again. Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED."""
    return await _move(session, order_id, OrderStatus.RETURNED, visible_to=None, actor_id=actor_id)


async def cancel_order(
    session: AsyncSession, order_id: UUID, *, visible_to: UUID | None, actor_id: UUID
) -> OrderResponse:
    """The reserved stock goes back, once. Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED."""
    return await _move(session, order_id, OrderStatus.CANCELLED, visible_to=visible_to, actor_id=actor_id)


@dataclass(frozen=True, slots=True)
class Bill:
    """What is to be paid for an order, and whether it still waits for that."""

    customer_id: UUID
    amount_minor: int
    currency: str
    status: OrderStatus

    @property
    def is_open(self) -> bool:
        return OrderStatus.PAID in TRANSITIONS[self.status]


async def lock_bill(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> Bill:
    """Until COMMIT nothing becomes of the order but by the session. Refused: ORDER_NOT_FOUND."""
    order = await _lock(session, order_id, visible_to)
    return Bill(order.customer_id, order.total_minor, order.currency, order.status)


async def take_payment(session: AsyncSession, order_id: UUID, *, payer_id: UUID) -> bool:
    """False where the order does not wait for money, or not any more: it was paid, cancelled, or expired meanwhile."""
    order = await _lock(session, order_id, None)
    if OrderStatus.PAID not in TRANSITIONS[order.status]:
        return False
    await _carry_out(session, order, OrderStatus.PAID, payer_id)
    return True


def refuse_transition(status: OrderStatus) -> BusinessException:
    return BusinessException(
        ErrorCode.ORDER_TRANSITION_NOT_ALLOWED, data={"status": status, "allowed": sorted(TRANSITIONS[status])}
    )


async def _lock(session: AsyncSession, order_id: UUID, visible_to: UUID | None) -> Order:
    # Locked before it is judged: of two at once the second must see the first.
    order = (await session.execute(select_visible(order_id, visible_to).with_for_update())).scalar_one_or_none()
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    return order


async def _move(
    session: AsyncSession, order_id: UUID, status: OrderStatus, *, visible_to: UUID | None, actor_id: UUID
) -> OrderResponse:
    order = await _lock(session, order_id, visible_to)
    if status not in TRANSITIONS[order.status]:
        raise refuse_transition(order.status)
    before = order.status
    lines = await _carry_out(session, order, status, actor_id)
    # A buyer's own cancel is nobody else's business; all else is a right of staff, on what they bought themselves too.
    if status is not OrderStatus.CANCELLED or actor_id != order.customer_id:
        await audit.record(
            session,
            f"order.{status}",
            target=("order", order_id),
            before={"status": before.value},
            after={"status": status.value},
        )
    return to_letter(order, lines)


async def _carry_out(
    session: AsyncSession, order: Order, status: OrderStatus, actor_id: UUID | None
) -> Sequence[OrderLine]:
    order.status = status
    order.version += 1
    session.add(
        OrderEvent(order_id=order.id, version=order.version, status=status, actor_id=actor_id, created_at=utc_now())
    )
    lines = await find_lines(session, order.id)
    if (shift := _STOCK.get(status)) is not None:
        wanted = [StockLine(line.product_id, line.quantity) for line in lines]
        await shift(session, wanted, Purpose(f"order:{order.id}", actor_id))
    await announce(session, order.id, status)
    return lines


async def list_overdue(session: AsyncSession, *, but: Collection[UUID]) -> Sequence[UUID]:
    """Orders that nobody paid in time, the longest overdue first; not more than can be looked after at a time."""
    overdue = (
        select(Order.id)
        .where(Order.status == OrderStatus.PLACED, col(Order.expires_at) <= utc_now(), col(Order.id).not_in(but))
        .order_by(col(Order.expires_at))
        .limit(_LOOKED_AT)
    )
    return (await session.execute(overdue)).scalars().all()


async def expire_order(session: AsyncSession, order_id: UUID) -> bool:
    """False when it was paid or cancelled meanwhile, or is being so. In a transaction of its own for each: the goods of
    several orders are not locked in one order."""
    still = (
        select(Order)
        .where(Order.id == order_id, Order.status == OrderStatus.PLACED, col(Order.expires_at) <= utc_now())
        .with_for_update(skip_locked=True)
    )
    order = (await session.execute(still)).scalar_one_or_none()
    if order is None:
        return False
    await _carry_out(session, order, OrderStatus.EXPIRED, actor_id=None)
    return True

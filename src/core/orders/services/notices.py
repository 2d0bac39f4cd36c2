"""What others hear of orders: an event for each step, a mail to the buyer, and what webhooks are told."""

from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.core.orders.models import Order, OrderLine, OrderStatus
from src.core.products import services as products
from src.mail import services as mail
from src.outbox import services as outbox
from src.outbox.services import Event, Handlers
from src.shared.lane import fetch_all, prepared, table_of
from src.users import services as users
from src.webhooks import services as webhooks


async def announce(session: AsyncSession, order_id: UUID, status: OrderStatus) -> None:
    """An event `order.<status>`, in the transaction of what it speaks of; those of one order are delivered in turn."""
    await outbox.publish(session, f"order.{status}", aggregate=f"order:{order_id}", payload={"order_id": str(order_id)})


class _Order(NamedTuple):
    """What is told of it and does not change."""

    id: UUID
    number: str
    customer_id: UUID
    total_minor: int
    currency: str


class _Line(NamedTuple):
    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


_ORDERS, _LINES = table_of(Order), table_of(OrderLine)
_ORDER: Final = prepared(
    select(*[_ORDERS.c[name] for name in _Order._fields]).where(_ORDERS.c.id == bindparam("order_id"))
)
_LINES_OF: Final = prepared(
    select(*[_LINES.c[name] for name in _Line._fields])
    .where(_LINES.c.order_id == bindparam("of_order"))
    .order_by(_LINES.c.product_id)
)


async def _find_order(session: AsyncSession, event: Event) -> _Order | None:
    found = await fetch_all(session, _ORDER, order_id=UUID(str(event.payload["order_id"])))
    return _Order(*found[0]) if found else None


async def _find_lines(session: AsyncSession, order: _Order) -> list[_Line]:
    return [_Line(*row) for row in await fetch_all(session, _LINES_OF, of_order=order.id)]


async def _tell_buyer(session: AsyncSession, event: Event) -> None:
    order = await _find_order(session, event)
    to = None if order is None else await users.find_mail_address(session, order.customer_id)
    if order is None or to is None:
        return
    status = event.kind.removeprefix("order.")
    lines = [
        f"{line.quantity} x {line.name} ({line.sku}): "
        + products.format_minor(line.unit_price_minor * line.quantity, order.currency)
        for line in await _find_lines(session, order)
    ]
    await mail.write(
        session,
        "order",
        to=to.address,
        is_proven=to.is_proven,
        number=order.number,
        status=status,
        lines="\n".join(lines),
        total=products.format_minor(order.total_minor, order.currency),
    )


async def _tell_webhooks(session: AsyncSession, event: Event) -> None:
    order = await _find_order(session, event)
    if order is None:
        return

    async def describe() -> webhooks.Data:
        return {
            "id": str(order.id),
            "number": order.number,
            "customer_id": str(order.customer_id),
            # The event's, not what became of the order since.
            "status": event.kind.removeprefix("order."),
            "total_minor": order.total_minor,
            "currency": order.currency,
            "items": [
                line._asdict() | {"product_id": str(line.product_id)} for line in await _find_lines(session, order)
            ],
        }

    await webhooks.announce(
        session,
        event.kind,
        event_id=event.id,
        occurred_at=event.created_at,
        aggregate=event.aggregate,
        owner_id=order.customer_id,
        permission="order:read",
        describe=describe,
    )


HANDLERS: Final[Handlers] = outbox.joined(
    {f"order.{status}": outbox.once(_tell_buyer) for status in OrderStatus},
    {f"order.{status}": outbox.once(_tell_webhooks) for status in OrderStatus},
)
"""For the outbox."""

"""What others hear of orders: an event for each step, a mail to the buyer, and what webhooks are told."""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.core.orders.models import Order, OrderLine, OrderStatus
from src.core.orders.services.reading import find_lines
from src.core.products import services as products
from src.mail import services as mail
from src.outbox import services as outbox
from src.outbox.services import Event, Handlers
from src.users import services as users
from src.webhooks import services as webhooks


async def announce(session: AsyncSession, order_id: UUID, status: OrderStatus) -> None:
    """An event `order.<status>`, in the transaction of what it speaks of; those of one order are delivered in turn."""
    await outbox.publish(session, f"order.{status}", aggregate=f"order:{order_id}", payload={"order_id": str(order_id)})


async def _tell_buyer(session: AsyncSession, event: Event) -> None:
    order = await session.get(Order, UUID(str(event.payload["order_id"])))
    to = None if order is None else await users.find_mail_address(session, order.customer_id)
    if order is None or to is None:
        return
    status = event.kind.removeprefix("order.")
    lines = [
        f"{line.quantity} x {line.name} ({line.sku}): "
        + products.format_minor(line.unit_price_minor * line.quantity, order.currency)
        for line in await find_lines(session, order.id)
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
    order = await session.get(Order, UUID(str(event.payload["order_id"])))
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
            "items": [_told(line) for line in await find_lines(session, order.id)],
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


def _told(line: OrderLine) -> dict[str, str | int]:
    return {
        "product_id": str(line.product_id),
        "sku": line.sku,
        "name": line.name,
        "unit_price_minor": line.unit_price_minor,
        "quantity": line.quantity,
    }


HANDLERS: Final[Handlers] = outbox.joined(
    {f"order.{status}": outbox.once(_tell_buyer) for status in OrderStatus},
    {f"order.{status}": outbox.once(_tell_webhooks) for status in OrderStatus},
)
"""For the outbox."""

"""Money that goes back: for an order that was cancelled or came back after it was paid, or that never took it."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from src.core.payments.gateway import GatewayUnavailableError
from src.core.payments.models import Payment, PaymentStatus
from src.core.payments.services.asking import find_gateway, refund, warn
from src.core.payments.services.settling import ask_for_refund, pause
from src.mixins import utc_now
from src.outbox.services import Event
from src.shared.database import transaction


async def give_back(session: AsyncSession, event: Event) -> None:
    """For the outbox, of an order that is over: what was paid for it goes back. What is still being asked for is looked
    at when the answer comes."""
    order_id = UUID(str(event.payload["order_id"]))
    paid = select(Payment).where(Payment.order_id == order_id, Payment.status == PaymentStatus.SUCCEEDED)
    payment = (await session.execute(paid.with_for_update())).scalar_one_or_none()
    if payment is not None:
        payment.status = PaymentStatus.REFUNDING
        await ask_for_refund(session, payment)


async def carry_out(event: Event) -> None:
    """For the outbox: asked for until it is done; the provider does it once."""
    payment_id = UUID(str(event.payload["payment_id"]))
    async with transaction() as session:
        payment = (await session.execute(select(Payment).where(Payment.id == payment_id))).scalar_one()
    if payment.status is not PaymentStatus.REFUNDING:
        return
    try:
        await refund(await find_gateway(), payment)
    except GatewayUnavailableError as error:
        warn(payment_id, error)
        async with transaction() as session:
            await ask_for_refund(session, payment, after=pause(payment))
        return
    async with transaction() as session:
        locked = select(Payment).where(Payment.id == payment_id).with_for_update()
        payment = (await session.execute(locked)).scalar_one()
        payment.status, payment.refunded_at = PaymentStatus.REFUNDED, utc_now()

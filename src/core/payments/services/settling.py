"""What becomes of a payment, and of its order, by what the provider says. Nothing of it happens twice."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.core.orders import services as orders
from src.core.payments.gateway import Charge, ChargeStatus
from src.core.payments.models import Payment, PaymentStatus
from src.mixins import utc_now
from src.outbox import services as outbox

REFUND_DUE: Final = "payment.refund-due"
_NOT_PAID: Final = (PaymentStatus.PENDING, PaymentStatus.DECLINED, PaymentStatus.ABANDONED)
"""A provider may think better of what it declined, and hear late of what was given up."""
_GIVEN_UP_AFTER: Final = timedelta(days=1)
_SHORTEST_PAUSE: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)


async def settle(session: AsyncSession, payment_id: UUID, charge: Charge | None) -> Payment:
    """`charge`: as the provider has it now; None where it has never heard of the payment.

    Whoever comes later, by an answer, a callback or after a crash, finds that it is done.
    """
    order_id = (await session.execute(select(Payment.order_id).where(Payment.id == payment_id))).scalar_one()
    # The order first, as everybody does who moves it: two who wait for each other's lock would wait in vain.
    bill = await orders.lock_bill(session, order_id, visible_to=None)
    of_the_order = await _lock(session, order_id)
    payment = next(each for each in of_the_order if each.id == payment_id)
    if charge is None:
        # Not at once: what we asked may still be on its way to the provider.
        is_old = utc_now() - payment.created_at > _GIVEN_UP_AFTER
        if payment.status is PaymentStatus.PENDING and not bill.is_open and is_old:
            _end(payment, PaymentStatus.ABANDONED)
    elif charge.status is ChargeStatus.DECLINED:
        if payment.status is PaymentStatus.PENDING:
            payment.decline_code = charge.decline_code
            _end(payment, PaymentStatus.DECLINED)
    elif charge.status is ChargeStatus.SUCCEEDED and payment.status in _NOT_PAID:
        another_is_under_way = any(
            each is not payment and each.status is PaymentStatus.PENDING for each in of_the_order
        )
        if bill.is_open and not another_is_under_way and not charge.refunded_minor:
            _end(payment, PaymentStatus.SUCCEEDED)
            await orders.take_payment(session, order_id, payer_id=payment.payer_id)
        else:
            # Paid by another way, cancelled or expired meanwhile, or going back already: what came goes back.
            _end(payment, PaymentStatus.REFUNDING)
            await ask_for_refund(session, payment)
            logger.bind(payment_id=str(payment_id)).warning("Money came for an order that takes none, and goes back")
    return payment


async def _lock(session: AsyncSession, order_id: UUID) -> Sequence[Payment]:
    found = select(Payment).where(Payment.order_id == order_id).order_by(col(Payment.id)).with_for_update()
    return (await session.execute(found)).scalars().all()


def _end(payment: Payment, status: PaymentStatus) -> None:
    payment.status = status
    payment.settled_at = utc_now()


async def ask_for_refund(session: AsyncSession, payment: Payment, *, after: timedelta = timedelta(0)) -> None:
    # A queue of its own: that of the payment may wait for the moment at which it is asked about anyway.
    await outbox.publish(
        session,
        REFUND_DUE,
        aggregate=f"payment-refund:{payment.id}",
        payload={"payment_id": str(payment.id)},
        delay=after,
    )


def pause(since: Payment) -> timedelta:
    """Until the provider is asked again: as long as it has been waited for, which doubles it each time."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, utc_now() - since.updated_at))

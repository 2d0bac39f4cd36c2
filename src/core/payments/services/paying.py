"""Getting the money for an order: written down, asked for, settled, in this order.

No transaction is open while the provider is asked. Whoever dies in between has left an event, by which it is asked
again, for the same payment: that is charged once, however often it is asked for.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from src.config import get_settings
from src.core.orders import services as orders
from src.core.payments.gateway import GatewayUnavailableError, PaymentGateway
from src.core.payments.models import Payment, PaymentStatus
from src.core.payments.schemas import PaymentResponse, PayRequest
from src.core.payments.services.asking import charge, find_charge, get_gateway, warn
from src.core.payments.services.settling import pause, settle
from src.exceptions import BusinessException
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.database import transaction
from src.shared.errors import ErrorCode

CHARGE_UNSETTLED: Final = "payment.charge-unsettled"
_WELL: Final = (PaymentStatus.PENDING, PaymentStatus.SUCCEEDED)


async def pay(  # noqa: PLR0913 - who pays what, how, and by which key
    gateway: PaymentGateway,
    order_id: UUID,
    request: PayRequest,
    *,
    key: str,
    payer_id: UUID,
    visible_to: UUID | None,
) -> PaymentResponse:
    """Pending, where the provider did not say within PAYMENTS__TIMEOUT_SECONDS: it is asked again until it does.

    `key`: of the intent. With the same one it is the same payment, and told as it stands now.

    Refused: ORDER_NOT_FOUND, ORDER_TRANSITION_NOT_ALLOWED where it waits for no money, PAYMENT_IN_PROGRESS,
    PAYMENT_DECLINED, TOO_MANY_PAYMENTS, IDEMPOTENCY_KEY_REUSED.
    """
    source = request.source.get_secret_value()
    wanted = Payment(
        order_id=order_id,
        payer_id=payer_id,
        intent=_hash(str(payer_id), key),
        fingerprint=_hash(str(order_id), source),
        amount_minor=0,
        currency="",
    )
    async with transaction() as session:
        payment = await _begin(session, wanted, source, visible_to=visible_to)
    if payment.status is PaymentStatus.PENDING:
        try:
            charged = await charge(gateway, payment, source)
        except GatewayUnavailableError as error:
            warn(payment.id, error)
        else:
            async with transaction() as session:
                payment = await settle(session, payment.id, charged)
    if payment.status is PaymentStatus.DECLINED:
        raise BusinessException(
            ErrorCode.PAYMENT_DECLINED, data={"payment_id": payment.id, "decline_code": payment.decline_code}
        )
    if payment.status not in _WELL:
        # The order was gone before the answer came, or is over since: what was paid goes back, or never came.
        async with transaction() as session:
            bill = await orders.lock_bill(session, order_id, visible_to=None)
        raise orders.refuse_transition(bill.status)
    return PaymentResponse.model_validate(payment)


def _hash(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


async def _begin(session: AsyncSession, wanted: Payment, source: str, *, visible_to: UUID | None) -> Payment:
    """The one of this intent, if there is one already."""
    bill = await orders.lock_bill(session, wanted.order_id, visible_to=visible_to)
    before = (await session.execute(select(Payment).where(Payment.order_id == wanted.order_id))).scalars().all()
    for payment in before:
        if payment.intent == wanted.intent:
            if payment.fingerprint != wanted.fingerprint:
                raise BusinessException(ErrorCode.IDEMPOTENCY_KEY_REUSED)
            return payment
    if not bill.is_open:
        raise orders.refuse_transition(bill.status)
    _refuse_another(before)
    wanted.amount_minor, wanted.currency = bill.amount_minor, bill.currency
    session.add(wanted)
    settings = get_settings().payments
    # Only if nobody has settled it by then: the request itself does not take so long.
    await _carry_on_later(session, wanted, source, timedelta(seconds=settings.unsettled_seconds))
    return wanted


def _refuse_another(before: Sequence[Payment]) -> None:
    for payment in before:
        if payment.status is PaymentStatus.PENDING:
            data = {"payment_id": payment.id, "retry_after_seconds": 1}
            raise BusinessException(ErrorCode.PAYMENT_IN_PROGRESS, data=data)
    limit = get_settings().payments.attempts_per_order
    if len(before) >= limit:
        # Whoever has come by many cards tries which of them are good.
        raise BusinessException(ErrorCode.TOO_MANY_PAYMENTS, data={"limit": limit})


async def _carry_on_later(session: AsyncSession, payment: Payment, source: str, after: timedelta) -> None:
    await outbox.publish(
        session,
        CHARGE_UNSETTLED,
        aggregate=f"payment:{payment.id}",
        payload={"payment_id": str(payment.id), "source": source},
        delay=after,
    )


async def carry_on(event: Event) -> None:
    """For the outbox: what was begun is brought to its end, however often the provider has to be asked."""
    payment_id, source = UUID(str(event.payload["payment_id"])), str(event.payload["source"])
    async with transaction() as session:
        payment = (await session.execute(select(Payment).where(Payment.id == payment_id))).scalar_one()
        bill = await orders.lock_bill(session, payment.order_id, visible_to=None)
    if payment.status is not PaymentStatus.PENDING:
        return
    gateway = await get_gateway()
    try:
        # For an order that is gone nobody is charged any more; but it may have been before.
        ask = charge(gateway, payment, source) if bill.is_open else find_charge(gateway, payment)
        charged = await ask
    except GatewayUnavailableError as error:
        warn(payment_id, error)
        async with transaction() as session:
            await _carry_on_later(session, payment, source, pause(payment))
        return
    async with transaction() as session:
        payment = await settle(session, payment_id, charged)
        if payment.status is PaymentStatus.PENDING:
            await _carry_on_later(session, payment, source, pause(payment))

"""Getting the money for an order: written down, asked for, settled, in this order.

No transaction is open while the provider is asked. Whoever dies in between has left an event, by which it is asked
again, for the same payment: that is charged once, however often it is asked for.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from src.config import get_settings
from src.core.orders import services as orders
from src.core.payments.gateway import Charge, GatewayUnavailableError, PaymentGateway
from src.core.payments.models import Payment, PaymentStatus
from src.core.payments.schemas import PaymentResponse, PayRequest
from src.core.payments.services.asking import charge, charge_once_more, find_gateway, warn
from src.core.payments.services.settling import pause, settle
from src.exceptions import BusinessException
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import keys_for

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
    PAYMENT_DECLINED, PAYMENT_GIVEN_BACK, TOO_MANY_PAYMENTS, IDEMPOTENCY_KEY_REUSED.
    """
    source = request.source.get_secret_value()
    intent = hashlib.sha256(f"{payer_id}/{key}".encode()).hexdigest()
    async with transaction() as session:
        bill = await orders.lock_bill(session, order_id, visible_to=visible_to)
        payment = await _find(session, order_id, intent, source)
        is_new = payment is None
        if payment is None:
            payment = await _begin(session, order_id, bill, source, intent=intent, payer_id=payer_id)
    if payment.status is PaymentStatus.PENDING:
        try:
            async with asyncio.timeout(get_settings().payments.timeout_seconds):
                if is_new:
                    charged: Charge | None = await charge(gateway, payment, source)
                else:
                    charged = await charge_once_more(gateway, payment, source, is_wanted=bill.is_open)
        except (GatewayUnavailableError, TimeoutError) as error:
            warn(payment.id, error)
        else:
            async with transaction() as session:
                payment = await settle(session, payment.id, charged)
    if payment.status is PaymentStatus.DECLINED:
        raise BusinessException(
            ErrorCode.PAYMENT_DECLINED, data={"payment_id": payment.id, "decline_code": payment.decline_code}
        )
    if payment.status not in _WELL:
        # The order took no money when the answer came, or is over since: what was paid goes back, or never came.
        async with transaction() as session:
            bill = await orders.lock_bill(session, order_id, visible_to=None)
        if bill.is_open:
            raise BusinessException(ErrorCode.PAYMENT_GIVEN_BACK, data={"payment_id": payment.id})
        raise orders.refuse_transition(bill.status)
    return PaymentResponse.model_validate(payment)


async def _find(session: AsyncSession, order_id: UUID, intent: str, source: str) -> Payment | None:
    """The one of this intent, if there is one already. Refused: IDEMPOTENCY_KEY_REUSED."""
    query = select(Payment).where(Payment.order_id == order_id, Payment.intent == intent)
    payment = (await session.execute(query)).scalar_one_or_none()
    if payment is not None and payment.fingerprint not in _fingerprints(source):
        raise BusinessException(ErrorCode.IDEMPOTENCY_KEY_REUSED)
    return payment


def _fingerprints(source: str) -> list[str]:
    """By the key of today, and by those before it. A plain hash of what is short could be guessed."""
    return [hmac.digest(key, source.encode(), "sha256").hex() for key in keys_for("payment-source")]


async def _begin(  # noqa: PLR0913 - as above
    session: AsyncSession, order_id: UUID, bill: orders.Bill, source: str, *, intent: str, payer_id: UUID
) -> Payment:
    if not bill.is_open:
        raise orders.refuse_transition(bill.status)
    _refuse_another((await session.execute(select(Payment).where(Payment.order_id == order_id))).scalars().all())
    payment = Payment(
        order_id=order_id,
        payer_id=payer_id,
        intent=intent,
        fingerprint=_fingerprints(source)[0],
        amount_minor=bill.amount_minor,
        currency=bill.currency,
    )
    session.add(payment)
    # Only if nobody has settled it by then: the request itself does not take so long.
    await _carry_on_later(session, payment, source, timedelta(seconds=get_settings().payments.unsettled_seconds))
    return payment


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
    try:
        # For an order that is gone nobody is charged any more; but it may have been before.
        gateway = await find_gateway()
        charged = await charge_once_more(gateway, payment, source, is_wanted=bill.is_open)
    except GatewayUnavailableError as error:
        warn(payment_id, error)
        async with transaction() as session:
            await _carry_on_later(session, payment, source, pause(payment))
        return
    async with transaction() as session:
        payment = await settle(session, payment_id, charged)
        if payment.status is PaymentStatus.PENDING:
            await _carry_on_later(session, payment, source, pause(payment))

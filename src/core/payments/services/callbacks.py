"""What the provider says by itself. It is a hint: who signed it is looked at, and then the provider is asked."""

from collections.abc import Mapping
from datetime import timedelta
from time import time
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from src.config import get_settings
from src.core.payments.gateway import GatewayUnavailableError
from src.core.payments.models import Payment, PaymentStatus
from src.core.payments.services.asking import find_charge, find_gateway, warn
from src.core.payments.services.settling import pause, settle
from src.exceptions import BusinessException
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared import signatures
from src.shared.database import transaction
from src.shared.errors import ErrorCode

CALLBACK_RECEIVED: Final = "payment.callback-received"
_OFTEN: Final = timedelta(minutes=5)
_MOST_OFTEN: Final = 20
"""A callback is good for five minutes, and whoever has come by one can send it again."""
_OVER: Final = (PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDING, PaymentStatus.REFUNDED)


class _Subject(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    reference: UUID


class _Callback(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    data: _Subject


async def receive_callback(session: AsyncSession, headers: Mapping[str, str], body: bytes) -> None:
    """`headers` by names in lower case. Twice, late or out of order does no harm, and neither does what is not true.

    Refused: INVALID_CALLBACK_SIGNATURE, INVALID_REQUEST for what cannot be read.
    """
    keys = [signatures.read_secret(secret.get_secret_value()) for secret in get_settings().payments.callback_secrets]
    try:
        signatures.verify(keys, headers, body, now=time())
    except signatures.InvalidSignatureError:
        raise BusinessException(ErrorCode.INVALID_CALLBACK_SIGNATURE) from None
    try:
        payment_id = _Callback.model_validate_json(body).data.reference
    except ValidationError:
        wrong = {"field": "body", "message": "names no charge in data.reference", "type": "callback_invalid"}
        raise BusinessException(ErrorCode.INVALID_REQUEST, data={"errors": [wrong]}) from None
    status = (await session.execute(select(Payment.status).where(Payment.id == payment_id))).scalar_one_or_none()
    if status is None or status in _OVER:
        return
    if await outbox.count_recent(session, _queue(payment_id), within=_OFTEN) < _MOST_OFTEN:
        await _ask_about(session, payment_id)


def _queue(payment_id: UUID) -> str:
    """Of its own: that of the payment may wait for the moment at which it is asked about anyway."""
    return f"payment-callback:{payment_id}"


async def _ask_about(session: AsyncSession, payment_id: UUID, *, after: timedelta = timedelta(0)) -> None:
    await outbox.publish(
        session,
        CALLBACK_RECEIVED,
        aggregate=_queue(payment_id),
        payload={"payment_id": str(payment_id)},
        delay=after,
    )


async def reconcile(event: Event) -> None:
    """For the outbox: what the provider has is what is true."""
    payment_id = UUID(str(event.payload["payment_id"]))
    async with transaction() as session:
        payment = (await session.execute(select(Payment).where(Payment.id == payment_id))).scalar_one()
    if payment.status in _OVER:
        return
    try:
        charged = await find_charge(await find_gateway(), payment)
    except GatewayUnavailableError as error:
        warn(payment_id, error)
        async with transaction() as session:
            await _ask_about(session, payment_id, after=pause(payment))
        return
    async with transaction() as session:
        await settle(session, payment_id, charged)

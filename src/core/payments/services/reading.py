"""Payments that are there, for those who may see their order."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.core.orders import services as orders
from src.core.payments.models import Payment
from src.core.payments.schemas import PaymentResponse
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode


async def select_payments(session: AsyncSession, order_id: UUID, *, visible_to: UUID | None) -> SelectOfScalar[Payment]:
    """Newest first. Refused: ORDER_NOT_FOUND, for somebody else's too."""
    if not await orders.is_visible(session, order_id, visible_to):
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    return (
        select(Payment)
        .where(Payment.order_id == order_id)
        .order_by(col(Payment.created_at).desc(), col(Payment.id).desc())
    )


async def get_payment(session: AsyncSession, payment_id: UUID, *, visible_to: UUID | None) -> PaymentResponse:
    """Refused: PAYMENT_NOT_FOUND, for one of somebody else's order too."""
    payment = (await session.execute(select(Payment).where(Payment.id == payment_id))).scalar_one_or_none()
    if payment is None or not await orders.is_visible(session, payment.order_id, visible_to):
        raise BusinessException(ErrorCode.PAYMENT_NOT_FOUND)
    return PaymentResponse.model_validate(payment)

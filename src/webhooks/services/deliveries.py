"""The log of deliveries, and making one again."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.endings import after_commit
from src.shared.errors import ErrorCode
from src.shared.invariants import Invariant
from src.webhooks.models import DeliveryState, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from src.webhooks.schemas import AttemptResponse, DeliveryDetailResponse, DeliveryFilters, DeliveryResponse
from src.webhooks.services.endpoints import get_own, lock_own
from src.webhooks.services.queues import wake_ups

_KEPT_FOR: Final = timedelta(days=30)
_SHOWN: Final = 100

INVARIANTS: Final = (
    Invariant(
        "no delivery is left in the hands of somebody who died",
        "SELECT id, event_type, taken_up FROM webhook_deliveries WHERE state = 'pending' AND leased_until < :moment",
        ago=timedelta(minutes=10),
    ),
)


async def select_deliveries(
    session: AsyncSession, endpoint_id: UUID, filters: DeliveryFilters, *, owner_id: UUID
) -> SelectOfScalar[WebhookDelivery]:
    """Newest first. Refused: WEBHOOK_NOT_FOUND."""
    await get_own(session, endpoint_id, owner_id)
    query = (
        select(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id)
        .order_by(col(WebhookDelivery.position).desc())
    )
    if filters.state is not None:
        query = query.where(WebhookDelivery.state == filters.state)
    if filters.event_type is not None:
        query = query.where(WebhookDelivery.event_type == filters.event_type)
    return query


async def get_delivery(
    session: AsyncSession, endpoint_id: UUID, delivery_id: UUID, *, owner_id: UUID, second_factor: bool
) -> DeliveryDetailResponse:
    """`second_factor`: whether one was proven by whoever asks. Refused: WEBHOOK_NOT_FOUND, WEBHOOK_DELIVERY_NOT_FOUND."""
    endpoint = await get_own(session, endpoint_id, owner_id)
    delivery = await _get(session, _of(endpoint_id, delivery_id))
    attempts = (
        select(WebhookAttempt)
        .where(WebhookAttempt.delivery_position == delivery.position)
        .order_by(col(WebhookAttempt.number).desc())
        .limit(_SHOWN)
    )
    return DeliveryDetailResponse(
        **DeliveryResponse.model_validate(delivery).model_dump(),
        body=delivery.body.decode() if second_factor or not endpoint.second_factor else None,
        attempts=[AttemptResponse.model_validate(each) for each in (await session.execute(attempts)).scalars()],
    )


def _of(endpoint_id: UUID, delivery_id: UUID) -> SelectOfScalar[WebhookDelivery]:
    return select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.id == delivery_id)


async def _get(session: AsyncSession, query: SelectOfScalar[WebhookDelivery]) -> WebhookDelivery:
    delivery = (await session.execute(query)).scalar_one_or_none()
    if delivery is None:
        raise BusinessException(ErrorCode.WEBHOOK_DELIVERY_NOT_FOUND)
    return delivery


async def redeliver(session: AsyncSession, endpoint_id: UUID, delivery_id: UUID, *, owner_id: UUID) -> DeliveryResponse:
    """The same message once more, with all its attempts, whatever became of it; before what waits of its aggregate.

    Refused: WEBHOOK_NOT_FOUND, WEBHOOK_DELIVERY_NOT_FOUND, WEBHOOK_DISABLED, WEBHOOK_DELIVERY_WAITING.
    """
    endpoint = await lock_own(session, endpoint_id, owner_id)
    delivery = await _get(session, _of(endpoint_id, delivery_id).with_for_update())
    if not endpoint.is_enabled:
        raise BusinessException(ErrorCode.WEBHOOK_DISABLED)
    if delivery.state is DeliveryState.PENDING:
        raise BusinessException(ErrorCode.WEBHOOK_DELIVERY_WAITING)
    delivery.state, delivery.ended_at = DeliveryState.PENDING, None
    delivery.attempt_count, delivery.available_at, delivery.leased_until = 0, utc_now(), None
    await session.flush()
    after_commit(session, wake_ups.ring)
    return DeliveryResponse.model_validate(delivery)


async def sweep(session: AsyncSession) -> int:
    """Forget deliveries of a month ago, and secrets that sign no more; how many deliveries there were."""
    now = utc_now()
    await session.execute(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.previous_secret_until) < now)
        .values(previous_secret=None, previous_secret_until=None)
    )
    swept = await session.execute(
        delete(WebhookDelivery)
        .where(col(WebhookDelivery.created_at) < now - _KEPT_FOR)
        .returning(col(WebhookDelivery.id))
    )
    return len(swept.all())

"""What is told: a delivery for each webhook whose owner may hear of it."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final
from uuid import UUID

from sqlalchemy import Select, bindparam, insert, or_
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.endings import after_commit
from src.shared.errors import ErrorCode
from src.shared.lane import fetch_all, prepared, table_of
from src.shared.types import new_id
from src.users import services as users
from src.webhooks.event_types import EVENT_TYPES, TEST
from src.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from src.webhooks.schemas import DeliveryResponse
from src.webhooks.services.endpoints import lock_own
from src.webhooks.services.queues import wake_ups

Fact = str | int | bool | None | Sequence[Mapping[str, str | int]]
Data = Mapping[str, Fact]


async def announce(  # noqa: PLR0913 - an event is that many things
    session: AsyncSession,
    event_type: str,
    *,
    event_id: UUID,
    occurred_at: datetime,
    aggregate: str,
    owner_id: UUID,
    permission: str,
    describe: Callable[[], Awaitable[Data]],
) -> None:
    """For those who may see it now: whose it is (`owner_id`), and who holds `permission`. Those who may not have webhooks
    any more hear of nothing. `describe` is asked for the data where somebody listens.

    Called with one `event_id` once, by a handler that `outbox.once` made, and with those of one aggregate in order.

    Raises:
        LookupError: the type is not in the registry.
    """
    if event_type not in EVENT_TYPES:
        raise LookupError(f"No such type of event: {event_type}")
    ((anybody,),) = await fetch_all(session, _ANYBODY)
    if not anybody:
        return
    told = [
        endpoint_id
        for endpoint_id, event_types in await session.execute(_listening(permission), {"of_owner": owner_id})
        if event_types is None or event_type in event_types
    ]
    if not told:
        return
    body, now = _body(event_type, occurred_at, await describe()), utc_now()
    rows = [
        {
            "id": new_id(),
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "event_type": event_type,
            "aggregate": aggregate,
            "body": body,
            "state": DeliveryState.PENDING,
            "attempt_count": 0,
            "available_at": now,
            "taken_up": 0,
            "created_at": now,
        }
        for endpoint_id in sorted(told)
    ]
    await session.execute(insert(WebhookDelivery), rows)
    after_commit(session, wake_ups.ring)


_ENDPOINTS = table_of(WebhookEndpoint)
_ANYBODY: Final = prepared(select_columns(select_columns(_ENDPOINTS.c.id).where(_ENDPOINTS.c.is_enabled).exists()))
"""Whether there is a webhook at all: that costs next to nothing, and whose it is does not."""


@cache
def _listening(permission: str) -> Select[UUID, list[str] | None]:
    """Who may hear of what belongs to `of_owner`. Built once: that costs more than to ask it."""
    owner, proven = col(WebhookEndpoint.owner_id), col(WebhookEndpoint.second_factor)
    return select_columns(col(WebhookEndpoint.id), col(WebhookEndpoint.event_types)).where(
        col(WebhookEndpoint.is_enabled),
        or_(owner == bindparam("of_owner"), users.may(owner, permission, second_factor=proven)),
        users.is_active(owner),
        users.may(owner, "webhook:read", second_factor=proven),
    )


def _body(event_type: str, occurred_at: datetime, data: Data) -> bytes:
    """As Standard Webhooks has it."""
    moment = occurred_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return json.dumps(
        {"type": event_type, "timestamp": moment, "data": data}, ensure_ascii=False, separators=(",", ":")
    ).encode()


async def send_test(session: AsyncSession, endpoint_id: UUID, *, owner_id: UUID) -> DeliveryResponse:
    """One at a time, so that nobody is flooded by our hand.

    Refused: WEBHOOK_NOT_FOUND, WEBHOOK_DISABLED, WEBHOOK_DELIVERY_WAITING.
    """
    endpoint = await lock_own(session, endpoint_id, owner_id)
    if not endpoint.is_enabled:
        raise BusinessException(ErrorCode.WEBHOOK_DISABLED)
    waiting = select(WebhookDelivery.id).where(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.aggregate == TEST,
        WebhookDelivery.state == DeliveryState.PENDING,
    )
    if (await session.execute(waiting.limit(1))).first() is not None:
        raise BusinessException(ErrorCode.WEBHOOK_DELIVERY_WAITING)
    delivery = WebhookDelivery(
        endpoint_id=endpoint_id,
        event_id=new_id(),
        event_type=TEST,
        aggregate=TEST,
        body=_body(TEST, utc_now(), {"webhook_id": str(endpoint_id)}),
    )
    session.add(delivery)
    await session.flush()
    after_commit(session, wake_ups.ring)
    return DeliveryResponse.model_validate(delivery)

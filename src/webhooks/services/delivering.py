"""Delivering: at least once, in order for each aggregate, and to nobody more than they can take.

An endpoint that fails is left alone, longer each time; then one delivery goes to see, and the others when it has
succeeded. So what waits while a receiver is down is no storm when it comes back.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy import func, insert, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.config import get_settings
from src.mixins import utc_now
from src.outbox import services as outbox
from src.shared.database import DATABASE_ERRORS, transaction
from src.shared.keys import unseal
from src.webhooks import transport
from src.webhooks.models import DeliveryState, DisabledReason, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from src.webhooks.services.endpoints import PURPOSE, disable
from src.webhooks.services.queues import DUE, is_free, is_open, wake_ups
from src.webhooks.transport import Outcome

_AT_ONCE: Final = 32
_OF_EACH: Final = 2
"""At once, of one endpoint, in all processes together."""
_OTHERS: Final = 4
"""So many times what is wanted is looked for: other processes look for the same."""
_LEASE: Final = 4
"""So many times what an attempt may take. It begins in the first half of it, or not at all."""
_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class _Parcel:
    position: int
    endpoint_id: UUID
    delivery_id: UUID
    message_id: str
    taken_up: int
    url: str
    secrets: tuple[bytes, ...]
    """Sealed."""
    body: bytes
    begin_before: float
    """On the clock of `monotonic`, which goes on while the process stands still."""


class _TooLateError(Exception):
    """Somebody else may have taken it up."""


async def dispatch() -> None:
    """Deliver until cancelled."""
    await outbox.keep_working(_take_up, _deliver, at_once=_AT_ONCE, woken_by=wake_ups)


async def _take_up(most: int) -> Sequence[_Parcel]:
    # Without a lock, as in the outbox.
    async with transaction() as session:
        found = await session.execute(DUE, {"now": utc_now(), "of_each": _OF_EACH, "most": most * _OTHERS})
        due: dict[int, UUID] = {position: endpoint_id for position, endpoint_id in found.tuples()}  # noqa: C416 - as rows
    if not due:
        return []
    began = monotonic()
    async with transaction() as session:
        return await _claim(session, due, most, began)


async def _claim(session: AsyncSession, due: dict[int, UUID], most: int, began: float) -> Sequence[_Parcel]:
    """Of those, what nobody else has taken up meanwhile, as far as its endpoint has room."""
    seconds, now = get_settings().webhooks.timeout_seconds, utc_now()
    endpoints = await _lock(session, set(due.values()), now)
    room = await _room(session, endpoints, now)
    candidates = (
        select(WebhookDelivery)
        .where(
            col(WebhookDelivery.position).in_(due),
            col(WebhookDelivery.endpoint_id).in_(endpoints),
            *is_free(now),
            col(WebhookDelivery.available_at) <= now,
        )
        .order_by(col(WebhookDelivery.available_at), col(WebhookDelivery.position))
        .with_for_update()
    )
    parcels: list[_Parcel] = []
    for delivery in (await session.execute(candidates)).scalars():
        endpoint = endpoints[delivery.endpoint_id]
        if room[endpoint.id] < 1 or len(parcels) == most:
            continue
        if delivery.leased_until is not None:
            # Nobody lived to say how the last one ended: it may be what kills them.
            began_at = delivery.leased_until - timedelta(seconds=_LEASE * seconds)
            await _note(session, delivery, Outcome(began_at, 0, None, "interrupted"))
            if _count_failure(delivery, now, 0):
                continue
        room[endpoint.id] -= 1
        delivery.leased_until = now + timedelta(seconds=_LEASE * seconds)
        delivery.taken_up += 1
        parcels.append(_parcel(endpoint, delivery, now, began + _LEASE * seconds / 2))
    return parcels


async def _lock(session: AsyncSession, ids: set[UUID], now: datetime) -> dict[UUID, WebhookEndpoint]:
    query = (
        select(WebhookEndpoint)
        .where(col(WebhookEndpoint.id).in_(ids), *is_open(now))
        .order_by(col(WebhookEndpoint.id))
        .with_for_update(key_share=True, of=WebhookEndpoint)
    )
    return {endpoint.id: endpoint for endpoint in (await session.execute(query)).scalars()}


async def _room(session: AsyncSession, endpoints: dict[UUID, WebhookEndpoint], now: datetime) -> dict[UUID, int]:
    """How many more each may get. Under its lock: two processes do not both find room for a last one."""
    under_way = (
        select(WebhookDelivery.endpoint_id, func.count())
        .where(
            col(WebhookDelivery.endpoint_id).in_(endpoints),
            WebhookDelivery.state == DeliveryState.PENDING,
            col(WebhookDelivery.leased_until) > now,
        )
        .group_by(col(WebhookDelivery.endpoint_id))
    )
    taken = {endpoint_id: count for endpoint_id, count in await session.execute(under_way)}  # noqa: C416 - as rows
    return {
        endpoint.id: (1 if endpoint.consecutive_failures else _OF_EACH) - taken.get(endpoint.id, 0)
        for endpoint in endpoints.values()
    }


def _parcel(endpoint: WebhookEndpoint, delivery: WebhookDelivery, now: datetime, begin_before: float) -> _Parcel:
    assert delivery.position is not None
    secrets = [endpoint.secret]
    if endpoint.previous_secret is not None and (endpoint.previous_secret_until or now) > now:
        secrets.append(endpoint.previous_secret)
    return _Parcel(
        delivery.position,
        endpoint.id,
        delivery.id,
        delivery.message_id,
        delivery.taken_up,
        endpoint.url,
        tuple(secrets),
        delivery.body,
        begin_before,
    )


async def _deliver(parcel: _Parcel) -> None:
    try:
        outcome = await _attempt(parcel)
        async with transaction() as session:
            await _settle(session, parcel, outcome)
    except _TooLateError:
        logger.bind(delivery_id=str(parcel.delivery_id)).warning("A delivery was left to whoever has it now")
    except DATABASE_ERRORS as error:
        # It is delivered again when its lease is over: at least once.
        logger.bind(delivery_id=str(parcel.delivery_id), error=type(error).__name__).warning(
            "A delivery could not be noted"
        )
    except Exception:  # noqa: BLE001 - whatever it is, it is tried again when its lease is over, and given up in the end
        logger.bind(delivery_id=str(parcel.delivery_id)).exception("A delivery failed in a way that nobody foresaw")


async def _attempt(parcel: _Parcel) -> Outcome:
    def refuse_late() -> None:
        if monotonic() > parcel.begin_before:
            raise _TooLateError

    refuse_late()
    keys = [unseal(PURPOSE, secret) for secret in parcel.secrets]
    return await transport.send(parcel.url, keys, parcel.message_id, parcel.body, before_sending=refuse_late)


async def _settle(session: AsyncSession, parcel: _Parcel, outcome: Outcome) -> None:
    locked = select(WebhookEndpoint).where(WebhookEndpoint.id == parcel.endpoint_id).with_for_update(key_share=True)
    endpoint = (await session.execute(locked)).scalar_one_or_none()
    query = select(WebhookDelivery).where(WebhookDelivery.id == parcel.delivery_id).with_for_update()
    delivery = None if endpoint is None else (await session.execute(query)).scalar_one_or_none()
    if endpoint is None or delivery is None:
        return  # deleted meanwhile
    if delivery.taken_up != parcel.taken_up:
        await _correct(session, parcel, outcome)
        return
    await _note(session, delivery, outcome)
    if delivery.state is not DeliveryState.PENDING:
        return
    delivery.leased_until = None
    if outcome.is_success:
        now = utc_now()
        delivery.state, delivery.ended_at = DeliveryState.DELIVERED, now
        delivery.attempt_count += 1
        endpoint.consecutive_failures, endpoint.failing_since, endpoint.paused_until = 0, None, None
        endpoint.last_delivered_at = now
    else:
        await _fail(session, endpoint, delivery, outcome)
    logger.bind(
        delivery_id=str(delivery.id),
        webhook_id=str(endpoint.id),
        status=outcome.status,
        error=outcome.error,
        attempt=delivery.attempt_count,
    ).info("Webhook delivered" if outcome.is_success else "A webhook's receiver failed")


async def _note(session: AsyncSession, delivery: WebhookDelivery, outcome: Outcome) -> None:
    row = {"delivery_position": delivery.position, "number": delivery.taken_up, **_values(outcome)}
    await session.execute(insert(WebhookAttempt), [row])


async def _correct(session: AsyncSession, parcel: _Parcel, outcome: Outcome) -> None:
    """It was taken for dead: the log says now what came of it, and that is all that it has to say."""
    noted = update(WebhookAttempt).where(
        col(WebhookAttempt.delivery_position) == parcel.position, col(WebhookAttempt.number) == parcel.taken_up
    )
    await session.execute(noted.values(**_values(outcome)))


def _values(outcome: Outcome) -> dict[str, object]:
    return {
        "started_at": outcome.started_at,
        "duration_ms": outcome.duration_ms,
        "status": outcome.status,
        "error": outcome.error,
    }


async def _fail(session: AsyncSession, endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome) -> None:
    settings, now = get_settings().webhooks, utc_now()
    asked = min(outcome.asked_seconds, settings.max_delay_seconds)
    _count_failure(delivery, now, asked)
    endpoint.consecutive_failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.paused_until = now + max(_pause(endpoint.consecutive_failures), timedelta(seconds=asked))
    if endpoint.is_enabled and outcome.is_gone:
        await disable(session, endpoint, DisabledReason.GONE)
    elif endpoint.is_enabled and now - endpoint.failing_since >= timedelta(days=settings.disable_after_days):
        await disable(session, endpoint, DisabledReason.FAILING)
    if not endpoint.is_enabled and delivery.state is DeliveryState.PENDING:
        delivery.state, delivery.ended_at = DeliveryState.DISCARDED, now


def _count_failure(delivery: WebhookDelivery, now: datetime, asked_seconds: float) -> bool:
    """Whether it was the last one."""
    delivery.attempt_count += 1
    if delivery.attempt_count >= get_settings().webhooks.max_attempts:
        delivery.state, delivery.ended_at, delivery.leased_until = DeliveryState.FAILED, now, None
        return True
    delivery.available_at = now + max(_pause(delivery.attempt_count), timedelta(seconds=asked_seconds))
    return False


def _pause(failures: int) -> timedelta:
    """Full jitter: those that failed together do not come back together."""
    settings = get_settings().webhooks
    longest = min(settings.max_delay_seconds, settings.first_delay_seconds * 2 ** min(failures - 1, _DOUBLINGS))
    return timedelta(seconds=random.uniform(0, longest))  # noqa: S311 - no secret

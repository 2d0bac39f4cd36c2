"""Looking after events: what waits, what was given up and is to be tried again, what can be forgotten."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.outbox.models import OutboxEvent
from src.outbox.schemas import EventFilters, EventState, OutboxStatusResponse
from src.outbox.services.publishing import wake_ups
from src.outbox.services.queues import heads_of_queues, is_waiting
from src.shared.endings import after_commit
from src.shared.errors import ErrorCode
from src.shared.invariants import Invariant

_KEPT_FOR: Final = timedelta(days=1)
_AT_ONCE: Final = 200
_STATES: Final[dict[EventState, tuple[ColumnElement[bool], ...]]] = {
    EventState.WAITING: is_waiting(),
    EventState.DELIVERED: (col(OutboxEvent.delivered_at).is_not(None),),
    EventState.DEAD: (col(OutboxEvent.dead_at).is_not(None),),
}

INVARIANTS: Final = (
    Invariant(
        "no event waits ten minutes beyond its time",
        """
        SELECT id, kind, attempts, last_error FROM (
            SELECT id, kind, attempts, last_error, available_at,
                row_number() OVER (PARTITION BY aggregate ORDER BY position) AS place
            FROM outbox_events WHERE delivered_at IS NULL AND dead_at IS NULL
        ) AS waiting
        WHERE place = 1 AND available_at < :moment
        """,
        ago=timedelta(minutes=10),
    ),
    Invariant(
        "no event was given up",
        "SELECT id, kind, attempts, last_error FROM outbox_events WHERE dead_at IS NOT NULL",
    ),
)


def select_events(filters: EventFilters) -> SelectOfScalar[OutboxEvent]:
    """Newest first."""
    query = select(OutboxEvent).order_by(col(OutboxEvent.position).desc())
    if filters.state is not None:
        query = query.where(*_STATES[filters.state])
    if filters.kind is not None:
        query = query.where(OutboxEvent.kind == filters.kind)
    if filters.aggregate is not None:
        query = query.where(OutboxEvent.aggregate == filters.aggregate)
    return query


async def get_status(session: AsyncSession) -> OutboxStatusResponse:
    """How far behind the deliveries are. An event that waits for its next attempt is not late before its time, nor are
    those behind it."""
    heads = heads_of_queues()
    oldest = select(heads.c.available_at).order_by(heads.c.available_at).limit(1)
    due_since = (await session.execute(oldest)).scalar_one_or_none()
    return OutboxStatusResponse(
        waiting=await _count(session, _STATES[EventState.WAITING]),
        lag_seconds=0 if due_since is None else max(0, round((utc_now() - due_since).total_seconds(), 3)),
        dead=await _count(session, _STATES[EventState.DEAD]),
    )


async def _count(session: AsyncSession, which: tuple[ColumnElement[bool], ...]) -> int:
    return (await session.execute(select(func.count()).select_from(OutboxEvent).where(*which))).scalar_one()


async def retry_event(session: AsyncSession, event_id: UUID) -> OutboxEvent:
    """It begins anew, with all its attempts; later ones of its aggregate may have gone meanwhile.

    Refused: EVENT_NOT_FOUND, EVENT_NOT_DEAD.
    """
    event: OutboxEvent | None = (
        await session.execute(_revive().where(col(OutboxEvent.id) == event_id))
    ).scalar_one_or_none()
    if event is None:
        known = (await session.execute(select(OutboxEvent.id).where(OutboxEvent.id == event_id))).first()
        raise BusinessException(ErrorCode.EVENT_NOT_FOUND if known is None else ErrorCode.EVENT_NOT_DEAD)
    await audit.record(session, "outbox.retried", target=("event", event_id), after={"kind": event.kind})
    after_commit(session, wake_ups.ring)
    return event


async def retry_dead(session: AsyncSession) -> int:
    """Those that were given up first, a few hundred at most; how many there were."""
    dead = (
        select(OutboxEvent.position)
        .where(*_STATES[EventState.DEAD])
        .order_by(col(OutboxEvent.position))
        .limit(_AT_ONCE)
    )
    some = _revive().where(col(OutboxEvent.position).in_(dead))
    revived: Sequence[OutboxEvent] = (await session.execute(some)).scalars().all()
    for event in revived:
        await audit.record(session, "outbox.retried", target=("event", event.id), after={"kind": event.kind})
    after_commit(session, wake_ups.ring)
    return len(revived)


def _revive() -> ReturningUpdate[Any]:  # Any: of events

    return (
        update(OutboxEvent)
        .where(*_STATES[EventState.DEAD])
        .values(dead_at=None, attempts=0, available_at=utc_now())
        .returning(OutboxEvent)
    )


async def sweep(session: AsyncSession) -> int:
    """Forget what was delivered more than a day ago; how many there were. What is dead stays."""
    old = utc_now() - _KEPT_FOR
    swept = await session.execute(
        delete(OutboxEvent).where(col(OutboxEvent.delivered_at) < old).returning(col(OutboxEvent.id))
    )
    return len(swept.all())

"""Writing events down, in the transaction of what they speak of."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, func, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.mixins import utc_now
from src.outbox.models import OutboxEvent
from src.shared.endings import after_commit
from src.shared.keys import seal
from src.shared.lane import dialect_of, later, prepared, table_of
from src.shared.types import new_id

PURPOSE: Final = "outbox"
"""Of the key that payloads are sealed with."""

Payload = Mapping[str, str | int | bool | None]

wake_ups: Final[set[asyncio.Event]] = set()
"""Of the dispatchers of this process."""
wake_ups_apart: Final[set[asyncio.Event]] = set()
"""Of those of `kinds_apart`."""
kinds_apart: Final[set[str]] = set()

_EVENTS = table_of(OutboxEvent)
_PUBLISH: Final = prepared(
    insert(_EVENTS)
    .values({each.name: bindparam(each.name, type_=each.type) for each in _EVENTS.columns if each.name != "position"})
    # The database numbers it, and nobody asks how.
    .inline()
)


async def publish(
    session: AsyncSession, kind: str, *, aggregate: str, payload: Payload, delay: timedelta = timedelta(0)
) -> UUID:
    """The event's id. It exists if, and only if, the session's transaction is committed; what it says is sealed, since
    a table is read by many. Not delivered before `delay` is over."""
    event_id, now = new_id(), utc_now()
    await later(
        session,
        _PUBLISH,
        id=event_id,
        kind=kind,
        aggregate=aggregate,
        payload=seal(PURPOSE, json.dumps(payload).encode()),
        created_at=now,
        available_at=now + delay,
        attempts=0,
        last_error="",
        delivered_at=None,
        dead_at=None,
    )
    after_commit(session, _wake_apart if kind in kinds_apart else wake)
    return event_id


async def count_recent(session: AsyncSession, aggregate: str, *, within: timedelta) -> int:
    """How many events of it were published, of those that are still there. Whoever counts them at the same time waits
    until what is published next is committed: two do not both find room for a last one."""
    if dialect_of(session) == "postgresql":
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(aggregate, 0))))
    recent = select(func.count()).where(
        col(OutboxEvent.aggregate) == aggregate, col(OutboxEvent.created_at) > utc_now() - within
    )
    return (await session.execute(recent)).scalar_one()


def wake() -> None:
    """The dispatchers of this process look at once."""
    for waiting in wake_ups:
        waiting.set()


def _wake_apart() -> None:
    for waiting in wake_ups_apart:
        waiting.set()

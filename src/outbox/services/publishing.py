"""Writing events down, in the transaction of what they speak of."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import String, bindparam, cast, func, insert
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession

from src.mixins import utc_now
from src.outbox.models import OutboxEvent
from src.outbox.services.waking import WakeUps
from src.shared.endings import after_commit
from src.shared.keys import seal
from src.shared.lane import dialect_of, fetch_all, later, prepared, table_of
from src.shared.types import new_id

PURPOSE: Final = "outbox"
"""Of the key that payloads are sealed with."""

Payload = Mapping[str, str | int | bool | None]

wake_ups: Final = WakeUps()
wake_ups_apart: Final = WakeUps()
"""Of those who deliver `kinds_apart`."""
kinds_apart: Final[set[str]] = set()

_EVENTS = table_of(OutboxEvent)
_PUBLISH: Final = prepared(
    insert(_EVENTS)
    .values({each.name: bindparam(each.name, type_=each.type) for each in _EVENTS.columns if each.name != "position"})
    # The database numbers it, and nobody asks how.
    .inline()
)
_WAIT: Final = prepared(
    select_columns(
        cast(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("aggregate", type_=String), 0)), String)
    )
)
_RECENT: Final = prepared(
    select_columns(func.count())
    .select_from(_EVENTS)
    .where(_EVENTS.c.aggregate == bindparam("of"), _EVENTS.c.created_at > bindparam("since"))
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
    after_commit(session, (wake_ups_apart if kind in kinds_apart else wake_ups).ring)
    return event_id


async def count_recent(session: AsyncSession, aggregate: str, *, within: timedelta) -> int:
    """How many events of it were published, of those that are still there. Whoever counts them at the same time waits
    until what is published next is committed: two do not both find room for a last one."""
    if dialect_of(session) == "postgresql":
        await fetch_all(session, _WAIT, aggregate=aggregate)
    ((count,),) = await fetch_all(session, _RECENT, of=aggregate, since=utc_now() - within)
    return int(count)

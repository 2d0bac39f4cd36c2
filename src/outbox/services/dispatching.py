"""Delivering events: at least once, in order for each aggregate."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

from loguru import logger
from sqlalchemy import ColumnElement, Integer, Select, bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.config import get_settings
from src.mixins import utc_now
from src.outbox.models import OutboxEvent
from src.outbox.services.publishing import PURPOSE, Payload, kinds_apart, wake_ups, wake_ups_apart
from src.outbox.services.queues import heads_of_queues, is_waiting
from src.outbox.services.working import keep_working
from src.shared.database import DATABASE_ERRORS, transaction
from src.shared.keys import unseal
from src.shared.lane import Prepared, fetch_all, prepared, table_of

_AT_ONCE: Final = 16
_AT_ONCE_APART: Final = 8
_OTHERS: Final = 4
"""So many times what is wanted is looked for: other processes look for the same."""
_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class Event:
    """What a handler gets. It may get the same one twice: `id` tells."""

    id: UUID
    kind: str
    aggregate: str
    payload: Payload
    attempt: int
    created_at: datetime


EffectOutside = Callable[[Event], Awaitable[None]]
EffectInside = Callable[[AsyncSession, Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Once:
    effects: tuple[EffectInside, ...]


@dataclass(frozen=True, slots=True)
class _Apart:
    effect: EffectOutside


Handler = EffectOutside | _Once | _Apart
Handlers = Mapping[str, Handler]
"""By the kind of event. A plain function has its effect outside the database, and may be called twice with one event:
it passes `event.id` on to whoever can tell."""


def once(effect: EffectInside) -> Handler:
    """A handler whose effect is in our own database: it is committed together with the note that the event was
    delivered, and so happens once, however often it is tried."""
    return _Once((effect,))


def apart(effect: EffectOutside) -> Handler:
    """A plain handler that may wait long for a server of somebody else: what hangs there takes no place from the other
    kinds. For what is rare; it costs a look of its own."""
    return _Apart(effect)


def joined(*several: Handlers) -> Handlers:
    """Who handles what, said by several domains. A kind that more than one of them wants has all effects in one
    transaction, in this order.

    Raises:
        ValueError: two want a kind, and one of them has its effect outside the database: if the other one failed, it
            would be repeated.
    """
    all_of_them: dict[str, Handler] = {}
    for handlers in several:
        for kind, handler in handlers.items():
            before = all_of_them.get(kind)
            if before is None:
                all_of_them[kind] = handler
            elif isinstance(before, _Once) and isinstance(handler, _Once):
                all_of_them[kind] = _Once(before.effects + handler.effects)
            else:
                raise ValueError(f"{kind}: several handlers, and not all of them made by once()")
    return all_of_them


async def dispatch(handlers: Handlers) -> None:
    """Deliver until cancelled; what is under way then may end within a few seconds, and is taken up by another process
    when its lease is over if it does not. All but what `dispatch_apart` delivers."""
    due = _select_due(lambda kind: kind.not_in(_kinds_apart(handlers)))
    await keep_working(
        lambda most: _take_up(due, most),
        lambda row: _deliver(row, handlers.get(row.kind, _unknown)),
        at_once=_AT_ONCE,
        woken_by=wake_ups,
    )


async def dispatch_apart(handlers: Handlers) -> None:
    """As `dispatch`, for the kinds whose handlers `apart` made."""
    kinds = _kinds_apart(handlers)
    kinds_apart.update(kinds)
    due = _select_due(lambda kind: kind.in_(kinds))
    await keep_working(
        lambda most: _take_up(due, most),
        lambda row: _deliver(row, handlers[row.kind]),
        at_once=_AT_ONCE_APART,
        woken_by=wake_ups_apart,
    )


def _kinds_apart(handlers: Handlers) -> list[str]:
    return [kind for kind, handler in handlers.items() if isinstance(handler, _Apart)]


def _select_due(
    is_ours: Callable[[ColumnElement[str]], ColumnElement[bool]],
) -> Select[Any]:  # Any: a column, as the next line has it
    """Where those are that could be delivered `now`, `most` of them. Built once: it costs more than to ask it."""
    heads = heads_of_queues()
    return (
        select(heads.c.position)
        .where(heads.c.available_at <= bindparam("now"), is_ours(heads.c.kind))
        .order_by(heads.c.available_at, heads.c.position)
        .limit(bindparam("most", type_=Integer))
    )


async def _take_up(due: Select[Any], most: int) -> Sequence[OutboxEvent]:
    # Without a lock: most looks find nothing, and on SQLite a lock keeps writers waiting.
    async with transaction() as session:
        found = await session.execute(due, {"now": utc_now(), "most": most * _OTHERS})
        positions = found.scalars().all()
    return await _claim(positions, most) if positions else []


_CLAIMED: Final = (
    select(OutboxEvent)
    .where(
        col(OutboxEvent.position).in_(bindparam("positions", expanding=True)),
        *is_waiting(),
        col(OutboxEvent.available_at) <= bindparam("now"),
    )
    .order_by(col(OutboxEvent.available_at), col(OutboxEvent.position))
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)


async def _claim(positions: Sequence[int], most: int) -> Sequence[OutboxEvent]:
    """Of those, what nobody else has taken up meanwhile."""
    lease = timedelta(seconds=get_settings().outbox.lease_seconds)
    async with transaction() as session:
        found = await session.execute(_CLAIMED, {"positions": positions, "now": utc_now(), "most": most})
        rows = found.scalars().all()
        for row in rows:
            if row.attempts >= get_settings().outbox.max_attempts:
                # Nobody lived to say how the last one ended: it may be what kills them.
                row.dead_at = utc_now()
            row.available_at = utc_now() + lease
            row.attempts += 1
        return [row for row in rows if row.dead_at is None]


async def _deliver(row: OutboxEvent, handler: Handler) -> None:
    try:
        event = Event(
            row.id, row.kind, row.aggregate, json.loads(unseal(PURPOSE, row.payload)), row.attempts, row.created_at
        )
        # Well before somebody else takes it up.
        async with asyncio.timeout(get_settings().outbox.lease_seconds / 2):
            if isinstance(handler, _Once):
                await _deliver_once(row, event, handler.effects)
                return
            await (handler.effect if isinstance(handler, _Apart) else handler)(event)
    except Exception as error:  # noqa: BLE001 - a handler's, of whatever kind: it is tried again
        await _failed(row, error)
    else:
        await _note(row, {"delivered_at": utc_now()})


async def _deliver_once(row: OutboxEvent, event: Event, effects: Sequence[EffectInside]) -> None:
    async with transaction() as session:
        # First: whoever took it up again meanwhile waits here for us, and then finds that it is done.
        if await _update(session, row, {"delivered_at": utc_now()}):
            for effect in effects:
                await effect(session, event)


async def _unknown(event: Event) -> None:
    raise LookupError(f"No handler for {event.kind}: of a newer version, perhaps")


async def _failed(row: OutboxEvent, error: Exception) -> None:
    settings = get_settings().outbox
    dead = row.attempts >= settings.max_attempts
    logger.bind(event_id=str(row.id), kind=row.kind, attempt=row.attempts, error=type(error).__name__).log(
        "ERROR" if dead else "WARNING", "An event could not be delivered" + (", and is given up" if dead else "")
    )
    longest = min(settings.max_delay_seconds, settings.first_delay_seconds * 2 ** min(row.attempts - 1, _DOUBLINGS))
    # Full jitter: those that failed together do not come back together.
    pause = timedelta(seconds=random.uniform(0, longest))  # noqa: S311 - no secret
    when = {"dead_at": utc_now()} if dead else {"available_at": utc_now() + pause}
    await _note(row, {"last_error": type(error).__name__[:255], **when})


async def _note(row: OutboxEvent, values: Mapping[str, object]) -> None:
    try:
        async with transaction() as session:
            await _update(session, row, values)
    except DATABASE_ERRORS as error:
        # It is delivered again when its lease is over: at least once.
        logger.bind(event_id=str(row.id), error=type(error).__name__).warning("A delivery could not be noted")


async def _update(session: AsyncSession, row: OutboxEvent, values: Mapping[str, object]) -> bool:
    """False when its lease was over, and somebody else has taken it up since."""
    new = {f"new_{name}": value for name, value in values.items()}
    return bool(await fetch_all(session, _updating(tuple(values)), event_id=row.id, attempt=row.attempts, **new))


@cache
def _updating(names: tuple[str, ...]) -> Prepared:
    events = table_of(OutboxEvent)
    c = events.c
    return prepared(
        update(events)
        .where(c.id == bindparam("event_id"), c.attempts == bindparam("attempt"), c.delivered_at.is_(None))
        .values({name: bindparam(f"new_{name}", type_=c[name].type) for name in names})
        .returning(c.id)
    )

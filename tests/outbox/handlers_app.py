"""The service with handlers of a team's own, and a route that publishes for them; served by test_handlers.py."""

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from src.jobs import HANDLERS
from src.main import create_app
from src.outbox import services as outbox
from src.outbox.models import OutboxEvent
from src.outbox.services import Event, Handler, dispatching
from src.shared.database import SessionDep, transaction
from src.shared.endings import after_commit
from src.shared.types import Line, RequestModel
from tests.outbox.effects import EFFECTS

STALLS = "stalls"
"""An aggregate: whoever takes up an event of it for the first time is stopped before anything else."""


class EventRequest(RequestModel):
    kind: Literal["test.once", "test.plain", "test.apart"] = "test.once"
    aggregate: Line
    name: Line
    fails: int = 0
    """So often, each time after its effect."""
    waits_for: Line = ""
    """It fails as long as there is no effect of this name."""
    then: Literal["", "hang", "SIGKILL", "SIGSTOP", "SIGKILL after COMMIT"] = ""
    """What happens the first time, between the effect and COMMIT if nothing else is said."""


async def has_effect(session: AsyncSession, event: Event) -> None:
    awaited = event.payload["waits_for"]
    if awaited and (await session.execute(select(EFFECTS.c.number).where(EFFECTS.c.name == awaited))).first() is None:
        raise RuntimeError("not yet")
    await note(session, event)
    if event.attempt <= int(event.payload["fails"] or 0):
        raise RuntimeError("once more")
    if event.attempt == 1:
        await come_to_grief(session, str(event.payload["then"]))


async def come_to_grief(session: AsyncSession, how: str) -> None:
    if how == "hang":
        await asyncio.Event().wait()
    elif how == "SIGKILL after COMMIT":
        after_commit(session, partial(os.kill, os.getpid(), signal.SIGKILL))
    elif how:
        os.kill(os.getpid(), signal.Signals[how])


async def tells_outside(event: Event) -> None:
    # What it tells stays, whatever becomes of the delivery.
    async with transaction() as session:
        await note(session, event)
    if event.attempt <= int(event.payload["fails"] or 0):
        raise RuntimeError("once more")


async def asks_somebody(event: Event) -> None:
    if event.payload["then"] == "hang":
        await asyncio.Event().wait()
    await tells_outside(event)


async def note(session: AsyncSession, event: Event) -> None:
    row = {"event_id": event.id, "name": event.payload["name"], "attempt": event.attempt, "process": os.getpid()}
    await session.execute(insert(EFFECTS).values(row))


_deliver = dispatching._deliver


async def stalled(row: OutboxEvent, handler: Handler) -> None:
    if row.aggregate == STALLS and row.attempts == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    await _deliver(row, handler)


dispatching._deliver = stalled
assert isinstance(HANDLERS, dict)
HANDLERS.update(
    {"test.once": outbox.once(has_effect), "test.plain": tells_outside, "test.apart": outbox.apart(asks_somebody)}
)

app = create_app()


@app.post("/events", status_code=201)
async def publish(
    events: Annotated[Sequence[EventRequest], Field(min_length=1, max_length=1000)], session: SessionDep
) -> list[UUID]:
    return [
        await outbox.publish(
            session,
            event.kind,
            aggregate=event.aggregate,
            payload={"name": event.name, "fails": event.fails, "waits_for": event.waits_for, "then": event.then},
        )
        for event in events
    ]

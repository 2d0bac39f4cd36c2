"""Events: writing them down, delivering them at least once and in order for each aggregate, looking after the rest."""

from src.outbox.services.dispatching import Event, Handler, Handlers, apart, dispatch, dispatch_apart, joined, once
from src.outbox.services.publishing import Payload, count_recent, publish
from src.outbox.services.tending import (
    INVARIANTS,
    get_status,
    retry_dead,
    retry_event,
    select_events,
    sweep,
)
from src.outbox.services.waking import WakeUps
from src.outbox.services.working import keep_working

__all__ = [
    "INVARIANTS",
    "Event",
    "Handler",
    "Handlers",
    "Payload",
    "WakeUps",
    "apart",
    "count_recent",
    "dispatch",
    "dispatch_apart",
    "get_status",
    "joined",
    "keep_working",
    "once",
    "publish",
    "retry_dead",
    "retry_event",
    "select_events",
    "sweep",
]

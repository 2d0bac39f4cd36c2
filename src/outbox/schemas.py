"""Letters about events. What they say is sealed, and stays so."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from src.shared.types import Line, LocalDatetime, QueryModel, ResponseModel


class EventState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class EventFilters(QueryModel):
    """Filters of the list of events."""

    state: EventState | None = None
    kind: Line | None = None
    aggregate: Annotated[Line | None, Field(description="As in `order:<id>`")] = None


class EventResponse(ResponseModel):
    id: UUID
    kind: str
    aggregate: str
    attempts: int
    last_error: str
    created_at: LocalDatetime
    available_at: LocalDatetime
    delivered_at: LocalDatetime | None
    dead_at: LocalDatetime | None


class OutboxStatusResponse(ResponseModel):
    waiting: int
    lag_seconds: Annotated[
        float, Field(description="For how long the one that waits longest could have been delivered")
    ]
    dead: int

"""The table of events."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, Integer, text
from sqlmodel import Field, SQLModel

from src.mixins import utc_now
from src.shared.types import new_id

_WAITING = text("delivered_at IS NULL AND dead_at IS NULL")


class OutboxEvent(SQLModel, table=True):
    __tablename__ = "outbox_events"
    __table_args__: ClassVar = (
        Index("ix_outbox_events_waiting", "available_at", postgresql_where=_WAITING, sqlite_where=_WAITING),
        Index("ix_outbox_events_aggregate_created_at", "aggregate", "created_at"),
    )

    position: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    """Events of one aggregate are delivered in this order."""
    id: UUID = Field(default_factory=new_id, unique=True)
    kind: str = Field(max_length=64)
    aggregate: str = Field(max_length=128)
    """What it is about: `order:<id>`, say. Those of different ones do not wait for each other."""
    payload: bytes
    """Sealed."""
    created_at: datetime = Field(default_factory=utc_now)
    available_at: datetime = Field(default_factory=utc_now)
    """Not to be taken up before: it is being delivered, or waits for its next attempt."""
    attempts: int = Field(default=0)
    last_error: str = Field(default="", max_length=255)
    """The kind of error; its text may quote what is secret."""
    delivered_at: datetime | None = Field(default=None)
    dead_at: datetime | None = Field(default=None)

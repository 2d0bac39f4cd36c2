"""The table of answers that can be given again."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from src.mixins import utc_now


class IdempotencyRecord(SQLModel, table=True):
    """Written in the transaction of the effect: either both are there or neither."""

    __tablename__ = "idempotency_records"

    principal: UUID = Field(primary_key=True)
    route: str = Field(max_length=255, primary_key=True)
    key: str = Field(max_length=255, primary_key=True)
    fingerprint: str = Field(max_length=64)
    """SHA-256 of the raw body, hexadecimal."""
    status: int | None = Field(default=None)
    media_type: str = Field(default="", max_length=64)
    answer: bytes = Field(default=b"")
    created_at: datetime = Field(default_factory=utc_now, index=True)

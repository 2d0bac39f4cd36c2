"""Columns that many tables share."""

from datetime import UTC, datetime

from sqlmodel import Field

from src.shared.types import LocalDatetime


def utc_now() -> datetime:
    return datetime.now(UTC)


class TimestampMixin:
    """`created_at` and `updated_at`, aware UTC; `updated_at` advances on bulk updates too.

    Not a SQLModel itself: that would have no consistent order of bases in `class Order(SQLModel, TimestampMixin, table=True)`.
    """

    created_at: LocalDatetime = Field(default_factory=utc_now, nullable=False)
    updated_at: LocalDatetime = Field(default_factory=utc_now, nullable=False, sa_column_kwargs={"onupdate": utc_now})

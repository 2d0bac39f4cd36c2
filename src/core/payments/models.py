"""The table of payments."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Enum, Index, text
from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin
from src.shared.types import new_id


class PaymentStatus(StrEnum):
    PENDING = "pending"
    """The provider was asked, or will be; whether the money moved is not known yet."""
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    ABANDONED = "abandoned"
    """The order was gone before the provider had heard of it."""
    REFUNDING = "refunding"
    """The money came, and goes back: the order does not take it, or not any more."""
    REFUNDED = "refunded"


_OPEN = text("status IN ('pending', 'succeeded')")


class Payment(SQLModel, TimestampMixin, table=True):
    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint("amount_minor >= 0", name="amount_not_negative"),
        # Of an order one at a time, and never a second one beside what was paid.
        Index("uq_payments_open", "order_id", unique=True, postgresql_where=_OPEN, sqlite_where=_OPEN),
        Index("uq_payments_intent", "order_id", "intent", unique=True),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    """The provider knows the payment by it: its idempotency key."""
    order_id: UUID = Field(foreign_key="orders.id")
    payer_id: UUID
    intent: str = Field(max_length=64)
    """Who asked for it, and with which Idempotency-Key, hashed."""
    fingerprint: str = Field(max_length=64)
    """What was asked for, hashed."""
    status: PaymentStatus = Field(
        default=PaymentStatus.PENDING,
        sa_column=Column(
            Enum(
                PaymentStatus,
                native_enum=False,
                create_constraint=True,
                length=16,
                name="payment_status",
                values_callable=lambda members: [m.value for m in members],
            ),
            nullable=False,
        ),
    )
    amount_minor: int = Field(sa_type=BigInteger)
    currency: str = Field(max_length=3)
    decline_code: str = Field(default="", max_length=64)
    settled_at: datetime | None = Field(default=None)
    """When it was known whether the money moved."""
    refunded_at: datetime | None = Field(default=None)

"""Tables of webhooks: where they go, what waits for them, and how each attempt ended."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Column, Enum, ForeignKey, Index, Integer, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from src.mixins import utc_now
from src.shared.types import new_id


class DisabledReason(StrEnum):
    OWNER = "owner"
    GONE = "gone"
    """The receiver said so: 410."""
    FAILING = "failing"


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DISCARDED = "discarded"
    """The webhook was disabled while it waited."""


def _one_of(kind: type[StrEnum], name: str) -> Enum:
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=name,
        values_callable=lambda members: [m.value for m in members],
    )


class WebhookEndpoint(SQLModel, table=True):
    __tablename__ = "webhook_endpoints"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    owner_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    second_factor: bool
    """Whether the session that said where it goes had proven one: roles that require it count for it, too."""
    url: str = Field(max_length=2048)
    description: str = Field(default="", max_length=255)
    event_types: list[str] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    """None: all."""
    secret: bytes
    """Sealed, as the next."""
    previous_secret: bytes | None = Field(default=None)
    previous_secret_until: datetime | None = Field(default=None)
    is_enabled: bool = Field(default=True)
    disabled_reason: DisabledReason | None = Field(
        default=None, sa_column=Column(_one_of(DisabledReason, "disabled_reason"), nullable=True)
    )
    consecutive_failures: int = Field(default=0)
    failing_since: datetime | None = Field(default=None)
    paused_until: datetime | None = Field(default=None)
    """Nothing is sent before; then one delivery, until one succeeds."""
    last_delivered_at: datetime | None = Field(default=None)
    created_at: datetime = Field(default_factory=utc_now)


_PENDING = text("state = 'pending'")


class WebhookDelivery(SQLModel, table=True):
    """A message for one endpoint. What it says is frozen: each attempt sends the same bytes."""

    __tablename__ = "webhook_deliveries"
    __table_args__: ClassVar = (
        UniqueConstraint("endpoint_id", "event_id"),
        Index("ix_webhook_deliveries_endpoint_id_position", "endpoint_id", "position"),
        Index(
            "ix_webhook_deliveries_pending",
            *("endpoint_id", "aggregate", "position"),
            postgresql_where=_PENDING,
            sqlite_where=_PENDING,
        ),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    position: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    """Those of one endpoint and aggregate are delivered in this order."""
    id: UUID = Field(default_factory=new_id, unique=True)
    endpoint_id: UUID = Field(foreign_key="webhook_endpoints.id", ondelete="CASCADE")
    event_id: UUID
    """No endpoint is told twice of one."""
    event_type: str = Field(max_length=64)
    aggregate: str = Field(max_length=128)
    body: bytes
    state: DeliveryState = Field(
        default=DeliveryState.PENDING, sa_column=Column(_one_of(DeliveryState, "delivery_state"), nullable=False)
    )
    attempt_count: int = Field(default=0)
    """That ended; a redelivery counts anew."""
    available_at: datetime = Field(default_factory=utc_now)
    leased_until: datetime | None = Field(default=None)
    """Somebody is at it, or died at it."""
    taken_up: int = Field(default=0)
    """How often: whoever took it up before has no say any more."""
    created_at: datetime = Field(default_factory=utc_now)
    ended_at: datetime | None = Field(default=None)

    @property
    def message_id(self) -> str:
        """What its receiver knows it by, however often it comes."""
        return f"msg_{self.id.hex}"

    @property
    def next_attempt_at(self) -> datetime | None:
        return self.available_at if self.state is DeliveryState.PENDING else None


class WebhookAttempt(SQLModel, table=True):
    """What an answer says is not kept."""

    __tablename__ = "webhook_attempts"

    delivery_position: int = Field(
        sa_column=Column(
            BigInteger().with_variant(Integer, "sqlite"),
            ForeignKey("webhook_deliveries.position", ondelete="CASCADE"),
            primary_key=True,
        )
    )
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    """`taken_up` of its delivery."""
    started_at: datetime
    duration_ms: int
    status: int | None = Field(default=None)
    """None: there was no answer."""
    error: str = Field(default="", max_length=32)
    """Why it is none; empty, when it is one."""

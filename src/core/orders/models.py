"""Tables of orders, their lines and their history."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Enum, Index, text
from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin, utc_now
from src.shared.types import new_id, random_bits

# Crockford's base 32: no letter that is read as a digit.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class OrderStatus(StrEnum):
    PLACED = "placed"
    PAID = "paid"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RETURNED = "returned"


def new_order_number() -> str:
    """50 random bits: a number that counts would tell customers how much is sold."""
    bits = random_bits()
    digits = "".join([_ALPHABET[bits >> shift & 31] for shift in range(0, 50, 5)])
    return f"{digits[:5]}-{digits[5:]}"


def _status() -> Enum:
    # Text with a CHECK: PostgreSQL's own enum types cannot be altered within a transaction.
    return Enum(
        OrderStatus,
        native_enum=False,
        create_constraint=True,
        length=16,
        name="order_status",
        values_callable=lambda members: [m.value for m in members],
    )


_UNPAID = text("status = 'placed'")
# An order that was just placed is not in it either.
_MOVED = text("status <> 'placed'")
# Where money comes or goes. Not the first event: placing an order pays for no index of statistics.
_MONEY = text("status IN ('paid', 'cancelled', 'returned')")


class Order(SQLModel, TimestampMixin, table=True):
    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("total_minor >= 0", name="total_not_negative"),
        Index("ix_orders_customer_id_created_at", "customer_id", "created_at"),
        Index("ix_orders_unpaid", "expires_at", postgresql_where=_UNPAID, sqlite_where=_UNPAID),
        Index("ix_orders_moved", "status", postgresql_where=_MOVED, sqlite_where=_MOVED),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    number: str = Field(default_factory=new_order_number, max_length=16, unique=True)
    customer_id: UUID = Field(foreign_key="users.id")
    status: OrderStatus = Field(default=OrderStatus.PLACED, sa_column=Column(_status(), nullable=False))
    total_minor: int = Field(sa_type=BigInteger)
    currency: str = Field(max_length=3)
    version: int = Field(default=1)
    """How many events it has had."""
    expires_at: datetime
    """When nobody has paid it by then, it expires."""


class OrderLine(SQLModel, table=True):
    """A snapshot: what the product was called and cost when it was ordered."""

    __tablename__ = "order_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    order_id: UUID = Field(foreign_key="orders.id", primary_key=True, ondelete="CASCADE")
    product_id: UUID = Field(foreign_key="products.id", primary_key=True, index=True)
    sku: str = Field(max_length=64)
    name: str = Field(max_length=255)
    unit_price_minor: int = Field(sa_type=BigInteger)
    quantity: int


class OrderEvent(SQLModel, table=True):
    """The history of an order. The key is why nothing happens to it twice."""

    __tablename__ = "order_events"
    __table_args__ = (
        Index(
            "ix_order_events_money",
            "created_at",
            "status",
            "order_id",
            "version",
            postgresql_where=_MONEY,
            sqlite_where=_MONEY,
        ),
    )

    order_id: UUID = Field(foreign_key="orders.id", primary_key=True, ondelete="CASCADE")
    version: int = Field(primary_key=True)
    status: OrderStatus = Field(sa_column=Column(_status(), nullable=False))
    actor_id: UUID | None
    """None: the service itself."""
    created_at: datetime = Field(default_factory=utc_now)

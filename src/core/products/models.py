"""Tables of products and of the ledger of their stock."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Enum, Index
from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin, utc_now
from src.shared.types import new_id


class ProductStatus(StrEnum):
    DRAFT = "draft"
    ACTIVE = "active"
    ARCHIVED = "archived"


class MovementKind(StrEnum):
    INITIAL = "initial"
    ADJUSTMENT = "adjustment"
    RESERVATION = "reservation"
    RELEASE = "release"
    FULFILMENT = "fulfilment"
    RETURN = "return"


def _enum(kind: type[StrEnum], name: str) -> Enum:
    # Text with a CHECK: PostgreSQL's own enum types cannot be altered within a transaction.
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=name,
        values_callable=lambda members: [m.value for m in members],
    )


class Product(SQLModel, TimestampMixin, table=True):
    __tablename__ = "products"
    __table_args__ = (
        Index("ix_products_status_created_at_id", "status", "created_at", "id"),
        CheckConstraint("price_minor >= 0", name="price_not_negative"),
        CheckConstraint("reserved >= 0", name="reserved_not_negative"),
        CheckConstraint("on_hand >= reserved", name="on_hand_covers_reserved"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    sku: str = Field(max_length=64)
    sku_key: str = Field(max_length=256, unique=True)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=10_000)
    price_minor: int = Field(sa_type=BigInteger)
    """In minor units of `currency` (cents)."""
    currency: str = Field(max_length=3)
    status: ProductStatus = Field(sa_column=Column(_enum(ProductStatus, "product_status"), nullable=False))
    on_hand: int = Field(default=0, sa_type=BigInteger)
    reserved: int = Field(default=0, sa_type=BigInteger)
    """Promised to orders that are not shipped."""
    version: int = Field(default=1)
    """Goes up with each edit; stock has a ledger instead."""

    @property
    def stock(self) -> int:
        """What can be ordered."""
        return self.on_hand - self.reserved


class StockMovement(SQLModel, table=True):
    """Append-only: a product's movements add up to its `on_hand` and its `reserved`."""

    __tablename__ = "stock_movements"
    __table_args__ = (Index("ix_stock_movements_product_id_created_at_id", "product_id", "created_at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    product_id: UUID = Field(foreign_key="products.id")
    kind: MovementKind = Field(sa_column=Column(_enum(MovementKind, "movement_kind"), nullable=False))
    quantity: int = Field(sa_type=BigInteger)
    """By which `on_hand` changed."""
    reserved: int = Field(default=0, sa_type=BigInteger)
    """By which `reserved` changed."""
    reason: str = Field(max_length=255)
    reference: str = Field(default="", max_length=64)
    """What it was done for, `order:<id>` say; a plain value, since that is another domain's."""
    actor_id: UUID | None
    """Who did it, likewise; None: the service itself."""
    created_at: datetime = Field(default_factory=utc_now)

"""The service's tables for those peers that use SQLAlchemy, and the two jobs that they do alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.contenders.identifiers import new_id, new_number


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}


def utc_now() -> datetime:
    return datetime.now(UTC)


class User(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    username: Mapped[str | None]
    is_active: Mapped[bool]
    is_verified: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Product(Base):
    __tablename__ = "products"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sku: Mapped[str]
    name: Mapped[str]
    price_minor: Mapped[int]
    currency: Mapped[str]
    status: Mapped[str]
    on_hand: Mapped[int]
    reserved: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(onupdate=utc_now)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    number: Mapped[str] = mapped_column(default=new_number)
    customer_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    status: Mapped[str] = mapped_column(default="placed")
    total_minor: Mapped[int]
    currency: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    expires_at: Mapped[datetime] = mapped_column(default=lambda: utc_now() + timedelta(days=1))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class OrderLine(Base):
    __tablename__ = "order_lines"

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id"), primary_key=True)
    sku: Mapped[str]
    name: Mapped[str]
    unit_price_minor: Mapped[int]
    quantity: Mapped[int]


class OrderEvent(Base):
    __tablename__ = "order_events"

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    actor_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class StockMovement(Base):
    __tablename__ = "stock_movements"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id"))
    kind: Mapped[str]
    quantity: Mapped[int] = mapped_column(default=0)
    reserved: Mapped[int]
    reason: Mapped[str] = mapped_column(default="")
    reference: Mapped[str]
    actor_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class NotEnoughError(Exception):
    """A product is not for sale in that quantity."""


@dataclass(frozen=True, slots=True)
class Placed:
    order: Order
    lines: list[OrderLine]


async def list_users(session: AsyncSession, page: int, size: int) -> tuple[int, Sequence[User]]:
    total = await session.scalar(select(func.count()).select_from(User))
    rows = await session.scalars(select(User).order_by(User.id).limit(size).offset((page - 1) * size))
    return total or 0, rows.all()


async def place_order(session: AsyncSession, basket: dict[UUID, int], *, customer_id: UUID) -> Placed:
    """All lines or none; the caller commits."""
    taken = []
    for product_id in sorted(basket):
        quantity = basket[product_id]
        row = (
            await session.execute(
                update(Product)
                .where(
                    Product.id == product_id, Product.status == "active", Product.on_hand - Product.reserved >= quantity
                )
                .values(reserved=Product.reserved + quantity)
                .returning(Product.sku, Product.name, Product.price_minor, Product.currency)
            )
        ).one_or_none()
        if row is None:
            raise NotEnoughError
        taken.append((product_id, quantity, row))
    total = sum(row.price_minor * quantity for _, quantity, row in taken)
    order = Order(customer_id=customer_id, total_minor=total, currency=taken[0][2].currency)
    session.add(order)
    await session.flush()
    lines = [
        OrderLine(
            order_id=order.id,
            product_id=product_id,
            sku=row.sku,
            name=row.name,
            unit_price_minor=row.price_minor,
            quantity=quantity,
        )
        for product_id, quantity, row in taken
    ]
    session.add_all(lines)
    session.add(OrderEvent(order_id=order.id, version=1, status="placed", actor_id=customer_id))
    session.add_all(
        StockMovement(
            product_id=line.product_id,
            kind="reservation",
            reserved=line.quantity,
            reference=f"order:{order.id}",
            actor_id=customer_id,
        )
        for line in lines
    )
    return Placed(order, lines)

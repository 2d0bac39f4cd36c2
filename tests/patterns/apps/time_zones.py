"""Patterns, Time zones: stored in UTC, shown in local time."""

# Typed as the document has it, imports above each part:
# ruff: noqa: E402, ERA001, F401, I001, PIE790
# mypy: disable-error-code="no-untyped-def"

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, field_serializer
from sqlalchemy import update
from sqlmodel import Field, SQLModel, col

from src.exceptions import BusinessException
from src.shared.database import SessionDep, transaction
from src.shared.errors import ErrorCode
from src.shared.types import LocalDatetime

# Storage (models)
from datetime import UTC, datetime
from src.mixins import TimestampMixin


class Order(SQLModel, TimestampMixin, table=True):
    # created_at, updated_at stored in UTC
    pass

    id: int = Field(primary_key=True)
    note: str = ""


# Presentation (serializers)
from datetime import timedelta, timezone
from src.config import get_settings


class OrderResponse(BaseModel):
    created_at: datetime

    @field_serializer("created_at")
    def serialize_dt(self, dt: datetime, _info):
        tz_offset = get_settings().app.timezone
        local_tz = timezone(timedelta(hours=tz_offset))
        return dt.astimezone(local_tz)


class ShortOrderResponse(BaseModel):
    """The same without a serializer of its own."""

    created_at: LocalDatetime


@asynccontextmanager
async def table(_: FastAPI) -> AsyncIterator[None]:
    """In a service a migration makes the table."""
    async with transaction() as session:
        await (await session.connection()).run_sync(SQLModel.metadata.create_all, [SQLModel.metadata.tables["order"]])
    yield


router = APIRouter(lifespan=table)


@router.put("/orders/{order_id}")
async def create_order(order_id: int, session: SessionDep, created_at: datetime | None = None) -> Order:
    """A table does not validate what it is made of, so a naive time gets as far as the database's door."""
    order = Order(id=order_id) if created_at is None else Order(id=order_id, created_at=created_at)  # type: ignore[call-arg] # a column of the mixin, which mypy does not see
    session.add(order)
    return order


@router.get("/orders/{order_id}/zone")
async def show_zone(order_id: int, session: SessionDep) -> list[str]:
    order = await _get_order(session, order_id)
    return [str(order.created_at.tzinfo), str(order.updated_at.tzinfo)]


@router.get("/orders/{order_id}/table")
async def show_table(order_id: int, session: SessionDep) -> Order:
    return await _get_order(session, order_id)


@router.get("/orders/{order_id}/serializer")
async def show_with_serializer(order_id: int, session: SessionDep) -> OrderResponse:
    return OrderResponse(created_at=(await _get_order(session, order_id)).created_at)


@router.get("/orders/{order_id}/type")
async def show_with_type(order_id: int, session: SessionDep) -> ShortOrderResponse:
    return ShortOrderResponse(created_at=(await _get_order(session, order_id)).created_at)


@router.patch("/orders/{order_id}")
async def change_order(order_id: int, note: str, session: SessionDep) -> None:
    order = await _get_order(session, order_id)
    order.note = note


@router.patch("/orders")
async def change_orders_in_bulk(first: int, last: int, note: str, session: SessionDep) -> None:
    await session.execute(update(Order).where(col(Order.id).between(first, last)).values(note=note))


async def _get_order(session: SessionDep, order_id: int) -> Order:
    order = await session.get(Order, order_id)
    if order is None:
        raise BusinessException(ErrorCode.ORDER_NOT_FOUND)
    return order

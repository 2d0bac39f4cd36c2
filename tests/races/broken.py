"""The service with a bug of those that such services have, chosen by PLANTED_BUG: test_planted_bugs.py shows that the
races find it.

Each waits where the bug opens a window, so that finding it is no luck.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final
from unittest.mock import patch
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, update
from sqlmodel.sql.expression import SelectOfScalar

from src.core.orders.models import Order, OrderLine, OrderStatus
from src.core.orders.services import moving, notices, placing, reading
from src.core.products import services as products
from src.core.products.models import MovementKind, Product
from src.core.products.services import Purpose, ReservedLine, StockLine, stock
from src.exceptions import BusinessException
from src.main import create_app
from src.shared.database import get_session, transaction
from src.shared.errors import ErrorCode

WINDOW_SECONDS: Final = 0.1


class _Unlocked:
    def __init__(self, query: SelectOfScalar[Order]) -> None:
        self._query = query

    def with_for_update(self) -> SelectOfScalar[Order]:
        return self._query


def move_without_a_lock(_: FastAPI) -> None:
    """An order is judged as it was a moment ago."""
    carry_out = moving._carry_out

    def unlocked(order_id: UUID, visible_to: UUID | None) -> _Unlocked:
        return _Unlocked(reading.select_visible(order_id, visible_to))

    async def carry_out_later(
        session: AsyncSession, order: Order, status: OrderStatus, actor_id: UUID | None
    ) -> Sequence[OrderLine]:
        await asyncio.sleep(WINDOW_SECONDS)
        return await carry_out(session, order, status, actor_id)

    patch.object(moving, "select_visible", unlocked).start()
    patch.object(moving, "_carry_out", carry_out_later).start()


def select_then_write(_: FastAPI) -> None:
    """What there is of a product is read, decided on, and written."""

    async def reserve_stock(session: AsyncSession, lines: Iterable[StockLine], purpose: Purpose) -> list[ReservedLine]:
        wanted = sorted(lines, key=lambda line: line.product_id)
        there = {line.product_id: await session.get_one(Product, line.product_id) for line in wanted}
        if any(there[line.product_id].stock < line.quantity for line in wanted):
            raise BusinessException(ErrorCode.PRODUCT_OUT_OF_STOCK)
        await asyncio.sleep(WINDOW_SECONDS)
        for line in wanted:
            written = update(Product).where(col(Product.id) == line.product_id)
            await session.execute(written.values(reserved=there[line.product_id].reserved + line.quantity))
        await stock._note(session, MovementKind.RESERVATION, wanted, purpose, reserved=1)
        found = [(there[line.product_id], line.quantity) for line in wanted]
        return [ReservedLine(p.id, p.sku, p.name, p.price_minor, p.currency, quantity) for p, quantity in found]

    patch.object(products, "reserve_stock", reserve_stock).start()


def publish_outside(_: FastAPI) -> None:
    """Others hear of a step before it is certain."""

    async def announce(_: AsyncSession, order_id: UUID, status: OrderStatus) -> None:
        async with transaction() as own:
            await notices.announce(own, order_id, status)

    for where in (placing, moving):
        patch.object(where, "announce", announce).start()


def commit_after_the_answer(app: FastAPI) -> None:
    """The session that most FastAPI services have: what stands behind `yield` runs when the answer has left."""

    async def usual_session() -> AsyncIterator[AsyncSession]:
        async with transaction() as session:
            yield session

    app.dependency_overrides[get_session] = usual_session


BUGS: Final[Mapping[str, Callable[[FastAPI], None]]] = {
    bug.__name__: bug for bug in (move_without_a_lock, select_then_write, publish_outside, commit_after_the_answer)
}

app = create_app()
BUGS[os.environ["PLANTED_BUG"]](app)

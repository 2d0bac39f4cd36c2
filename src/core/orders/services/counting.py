"""Counting orders: how many there are, what they brought in, and what of it sold best."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    SQLColumnExpression,
    String,
    bindparam,
    cast,
    extract,
    func,
    literal,
    text,
    type_coerce,
    union_all,
)
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from src.core.orders.models import Order, OrderEvent, OrderLine, OrderStatus
from src.core.orders.schemas import OrderStatsResponse
from src.shared.lane import dialect_of, table_of
from src.shared.types import start_of_day

_A_DAY: Final = timedelta(days=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DayRevenue:
    """In one currency."""

    day: date
    currency: str
    orders: int
    """Paid that day."""
    paid_minor: int
    refunded_minor: int

    @property
    def net_minor(self) -> int:
        return self.paid_minor - self.refunded_minor


@dataclass(frozen=True, slots=True)
class BestSeller:
    product_id: UUID
    quantity: int
    revenue_minor: Mapping[str, int]
    """By currency: a product's may have changed."""


async def get_stats(session: AsyncSession) -> OrderStatsResponse:
    # Each half lies in an index of its own; together they are a look at every row.
    moved = select_columns(col(Order.status), func.count()).where(text("status <> 'placed'")).group_by("status")
    placed = select_columns(literal(OrderStatus.PLACED, _STATUS), func.count()).where(text("status = 'placed'"))
    counted = await session.execute(union_all(moved, placed.select_from(Order)))
    by_status = {OrderStatus(status): count for status, count in counted if count}
    return OrderStatsResponse(total=sum(by_status.values()), by_status=by_status)


async def get_revenue(session: AsyncSession, *, since: date, until: date) -> list[DayRevenue]:
    """Of the days that have any, `until` included, by day and currency.

    An order's total comes in on the day it was paid, and goes out on the day it was cancelled after that, or returned.
    """
    paid = await _sum_by_day(session, since, until, _IS_PAID)
    refunded = await _sum_by_day(session, since, until, _IS_GIVEN_BACK, _times_paid_before() > 0)
    return [
        DayRevenue(*key, *paid.get(key, (0, 0)), refunded.get(key, (0, 0))[1]) for key in sorted({*paid, *refunded})
    ]


async def get_best_sellers(session: AsyncSession, *, since: date, until: date, limit: int) -> list[BestSeller]:
    """By quantity, of the orders that were paid in these days, `until` included, and not given back since."""
    sold = (
        select_columns(
            col(OrderLine.product_id),
            col(Order.currency),
            func.sum(OrderLine.quantity).label("quantity"),
            *_halves(col(OrderLine.unit_price_minor) * col(OrderLine.quantity)),
        )
        .select_from(OrderEvent)
        .join(Order, col(Order.id) == col(OrderEvent.order_id))
        .join(OrderLine, col(OrderLine.order_id) == col(OrderEvent.order_id))
        .where(*_between(since, until), _IS_PAID, col(Order.status).not_in(_GIVEN_BACK))
        .group_by(col(OrderLine.product_id), col(Order.currency))
        .cte("sold")
    )
    quantity = func.sum(sold.c.quantity).label("quantity")
    best = (
        select_columns(sold.c.product_id, quantity)
        .group_by(sold.c.product_id)
        .order_by(quantity.desc(), sold.c.product_id)
        .limit(limit)
        .subquery("best")
    )
    by_currency = (
        select_columns(sold.c.product_id, best.c.quantity, sold.c.currency, sold.c.high, sold.c.low)
        .join(best, best.c.product_id == sold.c.product_id)
        .order_by(best.c.quantity.desc(), sold.c.product_id, sold.c.currency)
    )
    revenue: dict[tuple[UUID, int], dict[str, int]] = {}
    for product_id, total, currency, high, low in await session.execute(by_currency):
        revenue.setdefault((product_id, int(total)), {})[currency] = _whole(high, low)
    return [BestSeller(product_id, total, minor) for (product_id, total), minor in revenue.items()]


async def _sum_by_day(
    session: AsyncSession, since: date, until: date, *which: ColumnElement[bool]
) -> dict[tuple[date, str], tuple[int, int]]:
    """How many such events each day has, and the sum of their orders' totals, by currency."""
    counted = await session.execute(
        select_columns(
            _days_since(session, start_of_day(since)).label("day"),
            col(Order.currency),
            func.count(),
            *_halves(col(Order.total_minor)),
        )
        .select_from(OrderEvent)
        .join(Order, col(Order.id) == col(OrderEvent.order_id))
        .where(*_between(since, until), *which)
        .group_by("day", col(Order.currency))
    )
    return {(since + day * _A_DAY, currency): (count, _whole(high, low)) for day, currency, count, high, low in counted}


_EVENTS, _STATUS = table_of(OrderEvent), table_of(Order).c.status.type
_GIVEN_BACK: Final = (OrderStatus.CANCELLED, OrderStatus.RETURNED)
# As the index has it: a planner that sees parameters cannot know that they lie in a partial index.
_IS_MONEY: Final = col(OrderEvent.status).in_(
    bindparam(None, (OrderStatus.PAID, *_GIVEN_BACK), expanding=True, literal_execute=True)
)
_IS_PAID: Final = col(OrderEvent.status) == OrderStatus.PAID
_IS_GIVEN_BACK: Final = col(OrderEvent.status).in_(_GIVEN_BACK)


def _times_paid_before() -> ColumnElement[int]:
    # A count, where EXISTS would do: PostgreSQL turns that into a join with all that was ever paid.
    before = aliased(OrderEvent)
    return (
        select_columns(func.count())
        .where(
            col(before.order_id) == col(OrderEvent.order_id),
            col(before.version) < col(OrderEvent.version),
            col(before.status) == OrderStatus.PAID,
        )
        .scalar_subquery()
    )


def _between(since: date, until: date) -> tuple[ColumnElement[bool], ...]:
    moment = _EVENTS.c.created_at
    # Written out: PostgreSQL soon plans a prepared statement for any period at all, and a day is no year.
    begin, end = (
        bindparam(None, start_of_day(day), moment.type, literal_execute=True) for day in (since, until + _A_DAY)
    )
    return moment >= begin, moment < end, _IS_MONEY


def _days_since(session: AsyncSession, begin: datetime) -> ColumnElement[int]:
    """Whole days of 24 hours from then to the event: the presentation zone has no others.

    Neither database is asked for a date, which it would tell in a zone of its own.
    """
    moment = col(OrderEvent.created_at)
    if dialect_of(session) == "postgresql":
        return cast(extract("day", moment - begin), Integer)
    # SQLite's own functions round to milliseconds, and so over midnight.
    said = type_coerce(moment, String)
    seconds = cast(func.strftime("%s", func.substr(said, 1, 19)), Integer)
    micros = seconds * 1_000_000 + cast(func.substr(said, 21), Integer)
    return (micros - (begin - _EPOCH) // _MICROSECOND) // (_A_DAY // _MICROSECOND)


_HALF: Final = 2**32


def _halves(minor: SQLColumnExpression[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """A sum in two parts. SQLite's has 64 bits and fails beyond, which 93 orders of the largest kind can reach."""
    return func.sum(minor // _HALF).label("high"), func.sum(minor % _HALF).label("low")


def _whole(high: Any, low: Any) -> int:  # Any: int on SQLite, Decimal on PostgreSQL
    return int(high) * _HALF + int(low)

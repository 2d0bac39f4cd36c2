"""The numbers equal a plain recount of every order's history, whatever it was and however much of it there is.

The zone of the process and the one of the database have a clock that changes on these days; neither may matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Executable, delete, insert, text
from sqlmodel import SQLModel, col, select

from src.core.orders.models import Order, OrderEvent, OrderLine, OrderStatus
from src.core.products.models import Product, ProductStatus
from src.core.products.schemas import MAX_PRICE_MINOR
from src.shared.types import new_id
from src.users.models import User
from tests.core.statistics.recount import recount, told
from tests.support.answers import data_of
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import Service, own_place
from tests.support.tables import execute, execute_each
from tests.support.years import BEGIN, END, write_years

HOURS = 5.75
# Berlin's clock goes back on the 25th of October, New York's on the 1st of November.
FIRST, LAST = date(2026, 10, 23), date(2026, 11, 3)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
FATES = (
    ("placed",),
    ("placed", "expired"),
    ("placed", "cancelled"),
    ("placed", "cancelled", "paid"),  # no service lets it; what is counted is what is written
    ("placed", "paid"),
    ("placed", "paid", "cancelled"),
    ("placed", "paid", "fulfilled"),
    ("placed", "paid", "fulfilled", "returned"),
)
CURRENCIES = ("EUR", "JPY", "USD")
PRODUCTS = 12
Rows = dict[type[SQLModel], list[dict[str, Any]]]  # Any: columns of several types


@dataclass(frozen=True)
class Shop:
    url: str
    service: Service
    token: str
    customer_id: UUID
    products: list[UUID]

    def ask(self, since: date, until: date) -> dict[str, Any]:  # Any: JSON
        query = {"since": since.isoformat(), "until": until.isoformat()}
        numbers: dict[str, Any] = data_of(self.service.get("admin/stats", token=self.token, **query))  # Any: JSON
        return numbers

    def write(self, rows: Rows) -> None:
        """Instead of what was there."""
        empty: list[Executable] = [delete(table) for table in (OrderEvent, OrderLine, Order)]
        execute_each(self.url, [*empty, *(insert(table).values(each) for table, each in rows.items() if each)])


@contextmanager
def shop_in_zones(kind: Kind) -> Iterator[Shop]:
    # Nobody looks for orders that expired: they would get a history that they have already, or more of it.
    env = {"APP__TIMEZONE": str(HOURS), "TZ": "Europe/Berlin", "OUTBOX__DISPATCH": "false"}
    with own_place(kind, **env) as place:
        url = place.database_url
        if kind == "postgres":
            execute(url, text(f"ALTER DATABASE \"{url.rpartition('/')[2]}\" SET timezone TO 'America/New_York'"))
        ((customer_id,),) = execute(url, select(col(User.id)))
        products = sorted(new_id() for _ in range(PRODUCTS))
        shelf = {"description": "", "price_minor": 1, "currency": "EUR", "status": ProductStatus.ACTIVE, "version": 1}
        shelf |= {"on_hand": 9, "reserved": 0, "created_at": NOW, "updated_at": NOW}
        named = [{"id": each, "sku": f"S-{each}", "sku_key": f"s-{each}", "name": f"Lamp {each}"} for each in products]
        execute(url, insert(Product).values([shelf | each for each in named]))
        with place.service() as service:
            yield Shop(url, service, service.log_in()["access_token"], customer_id, products)


@pytest.fixture(autouse=True)
def books() -> None:
    """What is written here is history alone: no stock was kept for it."""


@pytest.fixture(scope="module")
def shop(database_kind: Kind) -> Iterator[Shop]:
    with shop_in_zones(database_kind) as shop:
        yield shop


def rows_of(shop: Shop, histories: list[dict[str, Any]]) -> Rows:  # Any: what `histories` draws
    rows: Rows = {Order: [], OrderLine: [], OrderEvent: []}
    for number, drawn in enumerate(histories):
        order_id, steps = new_id(), drawn["steps"]
        lines = [
            {"product_id": shop.products[which], "quantity": quantity, "unit_price_minor": price}
            for which, (quantity, price) in drawn["lines"].items()
        ]
        rows[Order].append(
            {
                "id": order_id,
                "number": f"N-{number}",
                "customer_id": shop.customer_id,
                "status": OrderStatus(steps[-1][0]),
                "total_minor": sum(line["quantity"] * line["unit_price_minor"] for line in lines),
                "currency": drawn["currency"],
                "version": len(steps),
                "expires_at": NOW,
                "created_at": steps[0][1],
                "updated_at": steps[-1][1],
            }
        )
        rows[OrderLine] += [line | {"order_id": order_id, "sku": "Then", "name": "Then"} for line in lines]
        rows[OrderEvent] += [
            {
                "order_id": order_id,
                "version": version,
                "status": OrderStatus(status),
                "actor_id": None,
                "created_at": at,
            }
            for version, (status, at) in enumerate(steps, 1)
        ]
    return rows


# Midnights of the presentation zone, of UTC, and of Berlin and New York before and after their change.
midnights = st.builds(
    lambda day, hours: datetime.combine(day, time.min, timezone(timedelta(hours=hours))),
    st.dates(FIRST, LAST),
    st.sampled_from([HOURS, HOURS, 0, 1, 2, -4, -5]),
)
aside = st.sampled_from([0, 1, -1, 400, -400, -500_000, 3_600_000_000, -3_600_000_000]) | st.integers(
    -86_400_000_000, 86_400_000_000
)
moments = st.builds(
    lambda midnight, micros: (midnight + timedelta(microseconds=micros)).astimezone(UTC), midnights, aside
)
amounts = st.tuples(st.integers(1, 3) | st.just(1_000_000), st.sampled_from([0, 1, 999, MAX_PRICE_MINOR]))


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:  # Any: parts of several types
    fate = draw(st.sampled_from(FATES))
    at = sorted(draw(st.lists(moments, min_size=len(fate), max_size=len(fate))))
    lines = draw(st.dictionaries(st.integers(0, PRODUCTS - 1), amounts, min_size=1, max_size=3))
    return {"steps": list(zip(fate, at, strict=True)), "currency": draw(st.sampled_from(CURRENCIES)), "lines": lines}


@pytest.mark.rounds
@settings(
    max_examples=rounds(40, full=1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    drawn=st.lists(histories(), max_size=12),
    period=st.tuples(st.dates(FIRST, LAST), st.dates(FIRST, LAST)).map(sorted),
)
def test_statistics_equal_a_plain_recount_of_any_history(
    shop: Shop, drawn: list[dict[str, Any]], period: list[date]
) -> None:
    shop.write(rows_of(shop, drawn))

    since, until = period
    assert told(shop.ask(since, until)) == recount(shop.url, since, until, HOURS)


@pytest.mark.parametrize("day", [date(2026, 10, 25), date(2026, 11, 1)])
def test_a_day_begins_with_its_midnight_and_ends_before_the_next(shop: Shop, day: date) -> None:
    begin = datetime.combine(day, time.min, timezone(timedelta(hours=HOURS))).astimezone(UTC)
    micro = timedelta(microseconds=1)
    end = begin + timedelta(days=1)
    paid_at = [begin - 400 * micro, begin - micro, begin, end - 400 * micro, end - micro, end]
    shop.write(
        rows_of(
            shop,
            [
                {"steps": [("placed", begin), ("paid", at)], "currency": "EUR", "lines": {number: (1, 10**number)}}
                for number, at in enumerate(paid_at)
            ],
        )
    )

    numbers = shop.ask(day, day)

    assert [(each["day"], each["paid_minor"]) for each in numbers["revenue"]] == [(day.isoformat(), 11_100)]
    assert {each["revenue_minor"]["EUR"] for each in numbers["best_sellers"]} == {100, 1000, 10_000}


def test_of_those_that_sold_alike_the_older_products_are_listed(shop: Shop) -> None:
    noon = datetime(2026, 10, 30, 12, tzinfo=UTC)
    once = {"steps": [("placed", noon), ("paid", noon)], "currency": "EUR"}
    shop.write(rows_of(shop, [once | {"lines": {number: (1, 5)}} for number in range(PRODUCTS)]))

    best = shop.ask(noon.date(), noon.date())["best_sellers"]

    assert [each["product_id"] for each in best] == [str(product_id) for product_id in shop.products[:10]]


def test_sums_beyond_64_bits_are_told_to_the_last_digit(shop: Shop) -> None:
    noon = datetime(2026, 10, 30, 12, tzinfo=UTC)
    largest = {
        "steps": [(status, noon) for status in ("placed", "paid", "fulfilled", "returned")],
        "currency": "EUR",
        "lines": {0: (1_000_000, MAX_PRICE_MINOR)},
    }
    kept = largest | {"steps": [("placed", noon), ("paid", noon)]}
    shop.write(rows_of(shop, [largest] * 100 + [kept] * 120))

    numbers = shop.ask(noon.date(), noon.date())

    (day,) = numbers["revenue"]
    assert (day["paid_minor"], day["refunded_minor"]) == (220 * 10**17, 100 * 10**17)
    assert day["paid_minor"] > 2**64
    assert numbers["best_sellers"][0]["revenue_minor"] == {"EUR": 120 * 10**17}


@pytest.mark.long
def test_years_of_orders_are_counted_within_the_deadline(database_kind: Kind) -> None:
    """10⁶ orders in `make test-long`; a late answer is a 503."""
    with shop_in_zones(database_kind) as shop:
        write_years(shop.url, rounds(20_000, full=1_000_000))
        until = END.date() - timedelta(days=1)
        for days in (30, 366):
            since = until - timedelta(days=days - 1)
            assert since > BEGIN.date()
            numbers = shop.ask(since, until)
            assert numbers["revenue"]
            assert told(numbers) == recount(shop.url, since, until, HOURS)

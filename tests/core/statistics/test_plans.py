"""How what is counted is found, once there is much of it."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import NullPool, event, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from src.core.orders import services as orders
from tests.support.postgres import drop_database, prepared_database
from tests.support.years import END, write_years

Count = Callable[[AsyncSession], Awaitable[object]]
Node = dict[str, Any]  # Any: JSON
UNTIL = END.date() - timedelta(days=1)
SINCE = UNTIL - timedelta(days=29)


@pytest.fixture(autouse=True)
def books() -> None:
    """This shop is read alone."""


async def explained(url: str, explain: str, count: Count, *settings: str) -> list[list[Any]]:  # Any: of two databases
    """The rows that the database says of each statement that `count` runs."""
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    engine = create_async_engine(make_url(url).set(drivername=driver), poolclass=NullPool)
    seen: list[tuple[str, Any]] = []  # Any: the driver's own parameters
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda _conn, _cursor, sql, values, *_: seen.append((sql, values))
    )
    try:
        async with AsyncSession(engine) as session:
            await count(session)
            connection = await session.connection()
            counted = seen.copy()
            for setting in settings:
                await connection.exec_driver_sql(setting)
            said = [await connection.exec_driver_sql(f"{explain} {sql}", values) for sql, values in counted]
            return [[row[-1] for row in result] for result in said]
    finally:
        await engine.dispose()


async def plans(url: str, count: Count, *settings: str) -> list[Node]:
    """Each node of PostgreSQL's plans of all statements that `count` runs."""
    return [
        node
        for ((plan,),) in await explained(url, "EXPLAIN (FORMAT JSON)", count, *settings)
        for node in nodes(plan["Plan"])
    ]


def nodes(plan: Node) -> list[Node]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


def indexes(found: list[Node]) -> set[str]:
    return {node["Index Name"] for node in found if "Index Name" in node}


@pytest.fixture
def url() -> Iterator[str]:
    url = prepared_database("postgres", "with-years", lambda url: write_years(url, 20_000))
    yield url
    drop_database(url)


SALES = pytest.mark.parametrize(
    "count",
    [
        lambda session: orders.get_revenue(session, since=SINCE, until=UNTIL),
        lambda session: orders.get_best_sellers(session, since=SINCE, until=UNTIL, limit=10),
    ],
    ids=["revenue", "best sellers"],
)


@SALES
async def test_what_is_sold_in_a_month_is_found_by_its_moment(url: str, count: Count) -> None:
    found = await plans(url, count)

    by_moment = [node["Index Cond"] for node in found if node.get("Index Name") == "ix_order_events_money"]
    assert by_moment
    assert all("created_at >=" in condition for condition in by_moment)
    assert not {"order_events", "order_lines"} & {
        node["Relation Name"] for node in found if node["Node Type"] == "Seq Scan"
    }


async def test_orders_are_counted_without_a_look_at_them(url: str) -> None:
    # Where a table was just filled, its rows are looked at all the same.
    found = await plans(url, orders.get_stats, "SET enable_seqscan = off")

    assert indexes(found) == {"ix_orders_moved", "ix_orders_unpaid"}


@SALES
async def test_sqlite_finds_what_is_sold_in_the_index_alone(count: Count) -> None:
    url = prepared_database("sqlite", "with-years", lambda url: write_years(url, 20_000))
    try:
        found = await explained(url, "EXPLAIN QUERY PLAN", count)
    finally:
        drop_database(url)

    for steps in found:
        assert [
            step for step in steps if step.startswith("SEARCH order_events USING COVERING INDEX ix_order_events_money")
        ]
        assert not [step for step in steps if step.startswith(("SCAN order_events", "SCAN order_lines"))]

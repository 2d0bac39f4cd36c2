"""Writes that are put off are there when somebody looks, in their order and in their transaction, and fail as others do."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from asyncpg.pgproto import pgproto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, Column, MetaData, Uuid, bindparam, func, insert, select, text, update
from sqlalchemy import Table as SQLTable
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from src.shared.database import is_outage
from src.shared.lane import LaneSession, Prepared, fetch_all, later, prepared, table_of
from src.shared.lane.wire import _identifier
from tests.shared.lane.test_faults import terminate
from tests.shared.lane.things import Doors, Pair, Thing, lent, opened, rows

FIRST = rows()[0]["id"]
THINGS, PAIRS = table_of(Thing), table_of(Pair)


class TakenError(Exception):
    pass


def adding(table: SQLTable) -> Any:
    return insert(table).values({each.name: bindparam(f"a_{each.name}", type_=each.type) for each in table.columns})


ADD_PAIR = prepared(adding(PAIRS), taken=TakenError)
ADD_PAIR_OR_FAIL = prepared(adding(PAIRS))
ADD_THING = prepared(adding(THINGS))
READ = prepared(select(THINGS.c.name).where(THINGS.c.id == bindparam("wanted", type_=Uuid)))
RENAME = prepared(
    update(THINGS)
    .where(THINGS.c.id == bindparam("wanted"))
    .values(name=bindparam("new_name"), updated_at=THINGS.c.updated_at)
)
SEEN = select(func.count()).select_from(PAIRS).where(PAIRS.c.left == 2)


def pair(right: str = "a", left: int = 2) -> dict[str, Any]:
    return {"a_left": left, "a_right": right, "a_value": "v"}


async def begun(session: AsyncSession) -> None:
    assert await fetch_all(session, READ, wanted=FIRST) == [("plain",)]


async def pairs(doors: Doors) -> int:
    async with doors.ordinary() as session:
        return (await session.execute(SEEN)).scalar_one()


async def last_statements(doors: Doors) -> str:
    """What the other connections to this database were asked last."""
    connection = await asyncpg.connect(doors.url)
    found = await connection.fetch(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    return "\n".join(row[0] for row in found)


async def test_it_is_committed_with_the_others(doors: Doors) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair("a"))
        await later(session, ADD_PAIR, **pair("b"))
        assert await pairs(doors) == 0
        await session.commit()
        assert await pairs(doors) == 2
        # The next transaction of the session has nothing left of it.
        await begun(session)
        await session.commit()
    assert await pairs(doors) == 2


async def test_nothing_is_sent_until_it_must_be(postgres: Doors) -> None:
    async with postgres.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair("b"))  # the connection learns the statement
        await session.commit()
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        assert "INSERT" not in await last_statements(postgres)
        await session.commit()
    assert await pairs(postgres) == 2


async def by_statement(session: LaneSession) -> None:
    counted = await fetch_all(session, prepared(SEEN))
    assert counted == [(1,)]


async def by_orm(session: LaneSession) -> None:
    assert (await session.execute(SEEN)).scalar_one() == 1


async def by_get(session: LaneSession) -> None:
    assert (await session.get_one(Pair, (2, "a"))).value == "v"


async def by_connection(session: LaneSession) -> None:
    assert (await (await session.connection()).execute(SEEN)).scalar_one() == 1


async def by_driver(session: LaneSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    cursor: Any = raw.driver_connection
    sql = 'SELECT count(*) FROM lane_pairs WHERE "left" = 2'
    if hasattr(cursor, "fetchval"):
        assert await cursor.fetchval(sql) == 1
    else:
        assert await cursor.execute_fetchall(sql) == [(1,)]


async def by_run_sync(session: LaneSession) -> None:
    assert await session.run_sync(lambda sync: sync.execute(SEEN).scalar_one()) == 1


async def by_savepoint(session: LaneSession) -> None:
    async with session.begin_nested() as inside:
        await inside.rollback()
    assert (await session.execute(SEEN)).scalar_one() == 1


async def by_flush(session: LaneSession) -> None:
    session.add(Pair(left=2, right="z", value="w"))
    await session.flush()
    assert (await session.execute(SEEN)).scalar_one() == 2


@pytest.mark.parametrize(
    "look", [by_statement, by_orm, by_get, by_connection, by_driver, by_run_sync, by_savepoint, by_flush]
)
async def test_whoever_looks_in_this_session_sees_it(doors: Doors, look: Callable[[LaneSession], Any]) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        await look(session)
        await session.commit()
    assert await pairs(doors) >= 1


async def test_a_session_that_turned_ordinary_commits_it(doors: Doors) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        _ = session.sync_session
        await session.commit()
    assert await pairs(doors) == 1


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("how", ["rollback", "close"])
async def test_what_is_not_committed_is_gone(doors: Doors, how: str, *, turned: bool) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        if turned:
            _ = session.sync_session
        await getattr(session, how)()
        if how == "rollback":
            await begun(session)
            await session.commit()
    assert await pairs(doors) == 0


async def test_they_keep_their_order(doors: Doors) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, RENAME, wanted=FIRST, new_name="one")
        await later(session, RENAME, wanted=FIRST, new_name="two")
        assert await fetch_all(session, READ, wanted=FIRST) == [("two",)]
        await later(session, RENAME, wanted=FIRST, new_name="three")
        await session.commit()
        assert await fetch_all(session, READ, wanted=FIRST) == [("three",)]


async def to_commit(session: AsyncSession) -> None:
    await session.commit()


async def to_fetch(session: AsyncSession) -> None:
    await fetch_all(session, READ, wanted=FIRST)


async def to_orm(session: AsyncSession) -> None:
    await session.execute(SEEN)


async def written(
    session: AsyncSession, statement: Prepared, values: dict[str, Any], ask: Callable[[AsyncSession], Any]
) -> None:
    await later(session, statement, **values)
    await ask(session)


@pytest.mark.parametrize("ask", [to_commit, to_fetch, to_orm])
async def test_a_key_that_is_taken_is_told_as_said(doors: Doors, ask: Callable[[AsyncSession], Any]) -> None:
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            await begun(session)
            await later(session, RENAME, wanted=FIRST, new_name="new")
            with pytest.raises(TakenError):
                await written(session, ADD_PAIR, pair(left=1), ask)
            await session.rollback()
            await begun(session)  # nothing of it came about
            await session.commit()


@pytest.mark.parametrize("ask", [to_commit, to_fetch, to_orm])
async def test_other_errors_are_the_database_s_own(doors: Doors, ask: Callable[[AsyncSession], Any]) -> None:
    seen = []
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            await begun(session)
            with pytest.raises(IntegrityError) as caught:
                await written(session, ADD_PAIR_OR_FAIL, pair(left=1), ask)
            seen.append((type(caught.value.orig), getattr(caught.value.orig, "sqlstate", None)))
            await session.rollback()
            await begun(session)
            await session.commit()
    assert seen[0] == seen[1]
    assert lent(doors.lane_engine) == 0


async def test_the_key_of_another_table_is_another_matter(doors: Doors) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        with pytest.raises(IntegrityError):
            await written(session, ADD_THING, {f"a_{name}": value for name, value in rows()[0].items()}, to_commit)
        await session.rollback()
    assert await pairs(doors) == 0


async def test_a_server_that_is_gone_at_commit(postgres: Doors) -> None:
    for open_session in (postgres.ordinary, postgres.lane):
        async with open_session() as session:
            await begun(session)
            await later(session, ADD_PAIR, **pair())
            await terminate(postgres)
            with pytest.raises(DBAPIError) as caught:
                await session.commit()
            assert is_outage(caught.value)
            assert caught.value.connection_invalidated
    assert await pairs(postgres) == 0
    async with postgres.lane() as session:
        await begun(session)


async def test_a_commit_that_takes_too_long_and_one_that_is_cancelled(postgres: Doors) -> None:
    holder = await asyncpg.connect(postgres.url)
    await holder.execute("BEGIN; INSERT INTO lane_pairs VALUES (2, 'a', 'x')")
    async with postgres.lane() as session:
        await begun(session)
        await later(session, ADD_PAIR, **pair())
        with pytest.raises(DBAPIError) as caught:
            await session.commit()  # it waits for the other one, longer than a statement may take
        assert is_outage(caught.value)

    async def write() -> None:
        async with postgres.lane() as session:
            await begun(session)
            await later(session, ADD_PAIR, **pair())
            await session.commit()

    async def waits() -> bool:
        blocked = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND transactionid IS NOT NULL)"
        return bool(await holder.fetchval(blocked))

    for _ in range(3):
        task = asyncio.create_task(write())
        while not await waits():  # noqa: ASYNC110 - what happens in the server tells nobody
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while await waits():  # noqa: ASYNC110 - as above: nobody waits for the server to hear of it
            await asyncio.sleep(0.01)
    await holder.execute("ROLLBACK")
    await holder.close()
    await write()
    assert await pairs(postgres) == 1
    assert lent(postgres.lane_engine) == 0


async def test_values_that_the_database_does_not_take(doors: Doors) -> None:
    for wrong in ({"a_left": 2**40}, {"a_left": "two"}, {"a_value": "nul\x00"}, {"a_value": "\ud800"}):
        seen: list[type[Exception] | None] = []
        for open_session in (doors.ordinary, doors.lane):
            async with open_session() as session:
                await begun(session)
                try:
                    await later(session, ADD_PAIR, **(pair() | wrong))
                    await session.commit()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
                    seen.append(type(error))
                else:
                    seen.append(None)
                await session.rollback()
                await begun(session)
                await session.execute(text('DELETE FROM lane_pairs WHERE "left" <> 1'))
                await session.commit()
        assert seen[0] == seen[1], wrong


async def test_arguments_that_are_refused_leave_the_transaction_as_it_was(postgres: Doors) -> None:
    seen = []
    for open_session in (postgres.ordinary, postgres.lane):
        async with open_session() as session:
            with pytest.raises(DBAPIError) as caught:
                await fetch_all(session, ADD_PAIR, **(pair() | {"a_left": 2**40}))  # the first: BEGIN went ahead of it
            await fetch_all(session, ADD_PAIR, **pair())
            await session.commit()
            seen.append((type(caught.value), await pairs(postgres)))
            await session.execute(text('DELETE FROM lane_pairs WHERE "left" = 2'))
            await session.commit()
    assert seen[0] == seen[1]


KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {  # Any: SQLAlchemy's types
    "whole": (postgresql.BIGINT, st.integers(-(2**63), 2**63 - 1)),
    "half": (postgresql.INTEGER, st.integers(-(2**31), 2**31 - 1)),
    "small": (postgresql.SMALLINT, st.integers(-(2**15), 2**15 - 1)),
    "flag": (postgresql.BOOLEAN, st.booleans()),
    "words": (postgresql.TEXT, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
    "short": (postgresql.VARCHAR, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))),
    "raw": (postgresql.BYTEA, st.binary()),
    "moment": (
        postgresql.TIMESTAMP(timezone=True),
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001 - with `timezones`
    ),
    "key": (postgresql.UUID, st.uuids()),
}
VALUES = SQLTable(
    "lane_values",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    *(Column(name, kind) for name, (kind, _) in KINDS.items()),
    *(Column(f"many_{name}", ARRAY(kind)) for name, (kind, _) in KINDS.items()),
)
given_values = st.fixed_dictionaries(
    {"id": st.uuids()}
    | {name: st.none() | values for name, (_, values) in KINDS.items()}
    | {f"many_{name}": st.none() | st.lists(st.none() | values, max_size=4) for name, (_, values) in KINDS.items()}
)


def test_every_value_arrives_as_it_was_sent() -> None:
    add, database = prepared(adding(VALUES)), opened("postgres")
    with asyncio.Runner() as runner:
        doors = runner.run(database.__aenter__())
        runner.run(_create(doors))

        @given(given_values)
        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        def arrives(values: dict[str, Any]) -> None:
            runner.run(_arrives(doors, add, values))

        try:
            arrives()
        finally:
            runner.run(database.__aexit__(None, None, None))


async def _create(doors: Doors) -> None:
    async with doors.lane_engine.begin() as connection:
        await connection.run_sync(VALUES.metadata.create_all)


async def _arrives(doors: Doors, add: Prepared, values: dict[str, Any]) -> None:
    async with doors.lane() as session:
        await begun(session)
        await later(session, add, **{f"a_{name}": value for name, value in values.items()})
        assert session._put_off, "it was sent the long way, which is not what is tested"
        await session.commit()
    async with doors.ordinary() as session:
        row = (await session.execute(select(VALUES).where(VALUES.c.id == values["id"]))).one()
        assert row._asdict() == values
        await session.execute(VALUES.delete())
        await session.commit()


def test_an_identifier_of_the_driver_s_own_is_one() -> None:
    value = pgproto.UUID(str(FIRST))
    assert isinstance(value, UUID)
    assert _identifier(value) == _identifier(FIRST)

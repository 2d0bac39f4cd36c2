"""What goes wrong goes wrong as it does on the ordinary path, and leaves the pool as it leaves it."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from fastapi_pagination import Page, Params, set_page, set_params
from fastapi_pagination.ext.sqlalchemy import apaginate
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from src.shared.database import is_outage
from src.shared.lane import fetch_all, prepared, table_of
from src.shared.watching import Effect, WatchedTable, watch_tables
from tests.shared.lane.things import Doors, Thing, lent, rows

FIRST = rows()[0]["id"]
THINGS = table_of(Thing)


async def get(session: AsyncSession) -> object:
    return await session.get(Thing, FIRST)


async def page(session: AsyncSession) -> object:
    with set_page(Page[Thing]), set_params(Params(size=1)):
        return await apaginate(session, select(Thing))


async def ask(session: AsyncSession) -> object:
    return await fetch_all(
        session, prepared(select(THINGS.c.name).where(THINGS.c.id == bindparam("wanted"))), wanted=FIRST
    )


READS = [get, page, ask]


async def terminate(doors: Doors) -> None:
    connection = await asyncpg.connect(doors.url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def outcome(
    open_session: Callable[[], AsyncSession], read: Callable[[AsyncSession], Any]
) -> tuple[str, bool, bool]:
    async with open_session() as session:
        try:
            await read(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            lost = isinstance(error, DBAPIError) and error.connection_invalidated
            return type(error).__name__, is_outage(error), lost
    return "", False, False


@pytest.mark.parametrize("read", READS)
async def test_a_connection_that_the_server_closed(postgres: Doors, read: Callable[[AsyncSession], Any]) -> None:
    seen = []
    for open_session in (postgres.ordinary, postgres.lane):
        assert await outcome(open_session, read) == ("", False, False)
        await terminate(postgres)
        await asyncio.sleep(0.05)
        seen.append([await outcome(open_session, read) for _ in range(2)])

    assert seen[0] == seen[1]
    assert seen[0][0][1:] == (True, True)
    assert seen[0][1] == ("", False, False)


@pytest.mark.parametrize("read", READS)
async def test_all_connections_of_the_pool_after_one_was_lost(
    postgres: Doors, read: Callable[[AsyncSession], Any]
) -> None:
    async with postgres.lane() as first, postgres.lane() as second:
        await first.execute(select(THINGS.c.id))
        await second.execute(select(THINGS.c.id))
    await terminate(postgres)
    await asyncio.sleep(0.05)

    assert (await outcome(postgres.lane, read))[1:] == (True, True)
    # As the ordinary path has it, the loss of one condemns all of its age.
    async with postgres.lane() as first, postgres.lane() as second:
        await first.execute(select(THINGS.c.id))
        await second.execute(select(THINGS.c.id))


@pytest.mark.parametrize("read", READS)
async def test_a_pool_that_is_exhausted(postgres: Doors, read: Callable[[AsyncSession], Any]) -> None:
    for open_session in (postgres.ordinary, postgres.lane):
        async with open_session() as first, open_session() as second:
            await first.execute(select(THINGS.c.id))
            await second.execute(select(THINGS.c.id))
            assert await outcome(open_session, read) == ("TimeoutError", True, False)
        assert await outcome(open_session, read) == ("", False, False)


async def lock(doors: Doors) -> Any:
    connection = await asyncpg.connect(doors.url)
    holder = connection.transaction()
    await holder.start()
    await connection.execute("LOCK TABLE lane_things IN ACCESS EXCLUSIVE MODE")

    async def let_go() -> None:
        await holder.rollback()
        await connection.close()

    return let_go


@pytest.mark.parametrize("read", READS)
async def test_a_statement_that_takes_too_long(postgres: Doors, read: Callable[[AsyncSession], Any]) -> None:
    let_go = await lock(postgres)
    usual = await outcome(postgres.ordinary, read)
    assert usual[1:] == (True, False)
    assert await outcome(postgres.lane, read) == usual
    await let_go()
    assert await outcome(postgres.lane, read) == ("", False, False)


@pytest.mark.parametrize("read", READS)
async def test_a_cancelled_read_leaves_a_healthy_pool(postgres: Doors, read: Callable[[AsyncSession], Any]) -> None:
    let_go = await lock(postgres)
    for _ in range(4):  # twice as many as there are connections
        task = asyncio.create_task(outcome(postgres.lane, read))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await let_go()
    assert lent(postgres.lane_engine) == 0
    assert await asyncio.gather(*(outcome(postgres.lane, read) for _ in range(6))) == [("", False, False)] * 6


async def test_many_at_once_share_few_connections(postgres: Doors) -> None:
    answers = await asyncio.gather(*(outcome(postgres.lane, READS[n % 2]) for n in range(200)))
    assert set(answers) == {("", False, False)}


async def test_whoever_waits_and_is_cancelled_wakes_the_next(postgres: Doors) -> None:
    tasks = [asyncio.create_task(outcome(postgres.lane, get)) for _ in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in answers if not isinstance(each, asyncio.CancelledError)] == [("", False, False)] * 20


# Statements that write

ADD = prepared(
    insert(THINGS)
    .values({column.name: bindparam(f"a_{column.name}", type_=column.type) for column in THINGS.columns})
    .returning(THINGS.c.id, THINGS.c.colour)
)
RENAME = prepared(
    update(THINGS)
    .where(THINGS.c.id == bindparam("wanted"))
    .values(name=bindparam("new_name"), updated_at=THINGS.c.updated_at)
    .returning(THINGS.c.name, THINGS.c.created_at)
)


@pytest.fixture(autouse=True)
def watched() -> None:
    watch_tables()  # nobody watches these tables


async def name_of(doors: Doors) -> str:
    async with doors.ordinary() as session:
        return str((await session.execute(select(THINGS.c.name).where(THINGS.c.id == FIRST))).scalar_one())


async def test_a_prepared_write_is_stored_at_commit_and_only_then(doors: Doors) -> None:
    async with doors.lane() as session:
        renamed = await fetch_all(session, RENAME, wanted=FIRST, new_name="new")
        assert renamed == [("new", rows()[0]["created_at"])]
        assert await name_of(doors) == "plain"
        await session.commit()
    assert await name_of(doors) == "new"


@pytest.mark.parametrize("how", ["rollback", "close"])
async def test_a_prepared_write_that_is_not_committed_is_gone(doors: Doors, how: str) -> None:
    async with doors.lane() as session:
        await fetch_all(session, RENAME, wanted=FIRST, new_name="new")
        await getattr(session, how)()
    assert await name_of(doors) == "plain"


async def test_orm_and_prepared_statements_share_one_transaction(doors: Doors) -> None:
    made = rows()[0] | {"id": rows()[0]["id"].__class__(int=123456), "name": "added"}
    async with doors.lane() as session:
        await fetch_all(session, RENAME, wanted=FIRST, new_name="one")
        thing = await session.get(Thing, FIRST)
        assert thing.name == "one"
        thing.note = "by the ORM"
        assert await fetch_all(session, ADD, **{f"a_{name}": value for name, value in made.items()}) == [
            (made["id"], made["colour"])
        ]
        seen = await fetch_all(session, prepared(select(THINGS.c.note).where(THINGS.c.id == bindparam("x"))), x=FIRST)
        assert seen == [("by the ORM",)]
        await session.commit()
    async with doors.ordinary() as session:
        assert (await session.get_one(Thing, FIRST)).note == "by the ORM"
        assert (await session.get_one(Thing, made["id"])).name == "added"


async def test_a_refused_statement_leaves_a_transaction_to_be_rolled_back(doors: Doors) -> None:
    made = {f"a_{name}": value for name, value in rows()[0].items()}
    errors = []
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            await fetch_all(session, RENAME, wanted=FIRST, new_name="new")
            with pytest.raises(DBAPIError) as caught:
                await fetch_all(session, ADD, **made)
            errors.append((type(caught.value), getattr(caught.value.orig, "sqlstate", None)))
            await session.rollback()
            assert await session.get(Thing, FIRST) is not None
    assert errors[0] == errors[1]
    assert await name_of(doors) == "plain"


async def test_a_cancelled_write_is_undone_and_its_connection_closed(postgres: Doors) -> None:
    other = await asyncpg.connect(postgres.url)
    holder = other.transaction()
    await holder.start()
    await other.execute("SELECT 1 FROM lane_things FOR UPDATE")

    async def write() -> None:
        async with postgres.lane() as session:
            await fetch_all(
                session,
                ADD,
                **({f"a_{name}": value for name, value in rows()[0].items()} | {"a_id": FIRST.__class__(int=99)}),
            )
            await fetch_all(session, RENAME, wanted=FIRST, new_name="new")
            await session.commit()

    for _ in range(3):
        task = asyncio.create_task(write())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await holder.rollback()
    await other.close()
    assert await name_of(postgres) == "plain"
    async with postgres.ordinary() as session:
        assert await session.get(Thing, FIRST.__class__(int=99)) is None


async def test_wrong_names_of_values_are_refused(doors: Doors) -> None:
    async with doors.lane() as session:
        with pytest.raises(Exception, match=r"wanted|new_name|takes"):
            await fetch_all(session, RENAME, wanted=FIRST)


async def test_a_write_to_a_watched_table_is_seen_by_who_watches(doors: Doors) -> None:
    watch_tables(WatchedTable("lane_things", new_rows=Effect.TAKES))
    async with doors.lane() as session:
        await fetch_all(session, RENAME, wanted=FIRST, new_name="new")
        assert session._real
    watch_tables()

"""What goes wrong goes wrong as it does on the ordinary path, and leaves the pool as it leaves it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from fastapi_pagination import Page, Params, set_page, set_params
from fastapi_pagination.ext.sqlalchemy import apaginate
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from src.shared.database import is_outage
from src.shared.lane import fetch_all, prepared, table_of
from tests.shared.lane.things import Doors, Numbered, Thing, lent, opened, rows

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
    both = await asyncio.gather(*(outcome(postgres.lane, read) for _ in range(2)))
    assert both == [("", False, False)] * 2


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


async def test_who_reads_while_others_read_shares_the_next_statement() -> None:
    ids = [row["id"] for row in rows()]
    async with opened("postgres", pool_size=20) as doors:

        async def name(number: int) -> str:
            async with doors.lane() as session:
                found = await session.get(Thing, ids[number])
                return "" if found is None else str(found.name)

        assert await name(0) == rows()[0]["name"]
        let_go = await lock(doors)
        first = asyncio.create_task(name(0))
        await waiting(doors, 1)
        others = []
        for number in range(1, 40):
            others.append(asyncio.create_task(name(number)))
            for _ in range(3):  # turns of the event loop
                await asyncio.sleep(0)
        # The second does not wait for the first for ever, and is one for all that came meanwhile.
        assert await waiting(doors, 2) == 2
        await let_go()
        assert await asyncio.gather(first, *others) == [row["name"] for row in rows()[:40]]


async def waiting(doors: Doors, count: int) -> int:
    """Until so many statements wait for a lock, and how many do then."""
    connection = await asyncpg.connect(doors.url)
    while (found := await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")) < count:  # noqa: ASYNC110 - what happens in the server tells nobody
        await asyncio.sleep(0.01)
    await connection.close()
    assert isinstance(found, int)
    return found


async def rename(session: AsyncSession, value: str) -> None:
    statement = prepared(
        update(THINGS)
        .where(THINGS.c.id == bindparam("wanted"))
        .values(name=bindparam("new_name"), updated_at=THINGS.c.updated_at)
        .returning(THINGS.c.name)
    )
    assert await fetch_all(session, statement, wanted=FIRST, new_name=value) == [(value,)]


async def states(doors: Doors) -> list[str]:
    connection = await asyncpg.connect(doors.url)
    found = await connection.fetch(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    return [row[0] for row in found]


async def test_a_first_statement_that_cannot_even_be_prepared_leaves_no_transaction(postgres: Doors) -> None:
    let_go = await lock(postgres)
    with pytest.raises(DBAPIError) as caught:
        async with postgres.lane() as session:
            await rename(session, "never")
    assert is_outage(caught.value)
    await let_go()
    assert await outcome(postgres.lane, get) == ("", False, False)
    assert "idle in transaction" not in await states(postgres)
    async with postgres.lane() as session:
        session.add(Thing(name="by the ORM"))
        await session.commit()
    async with postgres.lane() as session:
        await rename(session, "new")
        await session.commit()


async def test_one_session_for_two_tasks_is_refused(postgres: Doors) -> None:
    async with postgres.lane() as session:
        with pytest.raises(InvalidRequestError, match="concurrent"):
            await asyncio.gather(rename(session, "one"), rename(session, "two"))
        await asyncio.sleep(0.1)
        await session.rollback()
    assert lent(postgres.lane_engine) == 0
    assert (await outcome(postgres.lane, get)) == ("", False, False)


async def test_a_session_whose_server_is_gone_can_be_closed(postgres: Doors) -> None:
    for open_session in (postgres.ordinary, postgres.lane):
        session = open_session()
        await rename(session, "new")
        await terminate(postgres)
        with suppress(DBAPIError):  # as the ordinary one has it, and in words that depend on when the news came
            await session.close()
    assert lent(postgres.lane_engine) == 0
    await outcome(postgres.lane, get)  # all of its age are condemned
    assert await asyncio.gather(*(outcome(postgres.lane, get) for _ in range(4))) == [("", False, False)] * 4


async def test_a_read_survives_a_table_that_was_altered(postgres: Doors) -> None:
    assert await outcome(postgres.lane, get) == ("", False, False)
    connection = await asyncpg.connect(postgres.url)
    await connection.execute("ALTER TABLE lane_things ALTER COLUMN name TYPE varchar(90)")
    await connection.close()
    assert await outcome(postgres.lane, get) == ("", False, False)


async def test_an_id_that_no_column_holds_is_its_asker_s_own_trouble(postgres: Doors) -> None:
    async def find(number: int) -> str:
        async with postgres.lane() as session:
            found = await session.get(Numbered, number)
            return "" if found is None else found.name

    async with postgres.lane_engine.begin() as created:
        await created.execute(insert(Numbered), [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}])
    found = await asyncio.gather(find(1), find(2**40), find(2), return_exceptions=True)
    assert (found[0], found[2]) == ("one", "two")
    assert isinstance(found[1], DBAPIError)

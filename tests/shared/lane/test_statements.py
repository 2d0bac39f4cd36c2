"""Prepared statements are of the session's transaction, and fail as its own do."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from src.shared.lane import fetch_all, prepared, table_of
from src.shared.watching import Effect, WatchedTable, watch_tables
from tests.shared.lane.things import Doors, Thing, rows

FIRST = rows()[0]["id"]
THINGS = table_of(Thing)

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
        assert session.is_real

"""SQLite has one writer at a time: within a process they take turns, and nobody waits in vain."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from src.config import get_settings, load_settings, use_settings
from src.shared.database import close_engine, transaction

WRITERS = 50


@pytest.fixture(autouse=True)
async def database(tmp_path: Path) -> AsyncIterator[None]:
    before = get_settings()
    # A hundredth of a second is not enough for SQLite's own way of waiting: asking again every now and then.
    db = {"url": f"sqlite:///{tmp_path}/turns.db", "lock_timeout_seconds": 0.01, "pool_size": WRITERS}
    use_settings(load_settings(app={"env": "test"}, db=db))
    async with transaction() as session:
        await session.execute(text("CREATE TABLE counter (n INTEGER)"))
        await session.execute(text("INSERT INTO counter VALUES (0)"))
    yield
    await close_engine()
    use_settings(before)


async def count() -> None:
    async with transaction() as session:
        await session.execute(text("SELECT n FROM counter"))
        await session.execute(text("UPDATE counter SET n = n + 1"))


async def counted() -> int:
    async with transaction() as session:
        return int((await session.execute(text("SELECT n FROM counter"))).scalar_one())


async def test_writers_queue_up_in_the_order_in_which_they_came() -> None:
    await asyncio.gather(*(count() for _ in range(WRITERS)))

    assert await counted() == WRITERS


async def test_a_second_transaction_that_writes_inside_the_first_is_told_so_at_once() -> None:
    async def write_twice() -> None:
        async with transaction() as session:
            await session.execute(text("UPDATE counter SET n = 7"))
            await count()

    with pytest.raises(RuntimeError, match="one writer"):
        await write_twice()

    assert await counted() == 0


async def test_a_writer_that_is_cancelled_or_fails_gives_its_turn_back() -> None:
    async def write_and_wait(started: asyncio.Event) -> None:
        async with transaction() as session:
            await session.execute(text("UPDATE counter SET n = 7"))
            started.set()
            await asyncio.Event().wait()

    started = asyncio.Event()
    first, second = asyncio.create_task(write_and_wait(started)), asyncio.create_task(count())
    await started.wait()
    third = asyncio.create_task(count())
    third.cancel()
    first.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    await count()

    assert await counted() == 2

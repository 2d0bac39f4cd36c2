"""Which connections are given to somebody else, and which are not; PostgreSQL."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from src.config import load_settings
from src.shared.database import create_engine
from tests.support.postgres import drop_database, fresh_database


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    url = fresh_database("postgres")
    engine = create_engine(load_settings(app={"env": "test"}, auth={"secret": "of this test"}, db={"url": url}))
    yield engine
    await engine.dispose()
    drop_database(url)


async def test_a_connection_with_a_transaction_that_never_was_is_parted_with(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.rollback()
        pooled = await connection.get_raw_connection()
        driver = pooled.driver_connection
        assert driver is not None
        # As asyncpg leaves it: it notes the transaction before it asks for it.
        driver._top_xact = driver.transaction()

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        after = (await connection.get_raw_connection()).driver_connection
    assert after is not driver


async def test_a_connection_that_comes_back_within_a_transaction_is_parted_with(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.execute("BEGIN")  # nobody's to roll back

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert (await connection.get_raw_connection()).driver_connection is not driver


async def test_others_are_used_again(engine: AsyncEngine) -> None:
    """The control."""
    used = []
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            used.append((await connection.get_raw_connection()).driver_connection)
    assert used[0] is used[1]

"""A PostgreSQL that no longer answers, and never says so: what it costs, and whom."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import text

from src import config
from src.config import DatabaseSettings, Settings
from src.shared.database import close_engine, is_outage, transaction
from src.users import User
from tests.faults.proxy import BLACK_HOLE, PASS, Proxy, running_proxy
from tests.support.postgres import drop_database, fresh_database
from tests.support.waiting import eventually

POOL_SIZE = 3
DEADLINE_SECONDS = 1.8
"""Of a request: longer than the driver's own time-out for a statement, shorter than that twice."""
AT_ONCE_SECONDS = 1
"""Far less than the driver's own time-out, or the 2 s that SQLAlchemy gives a connection to say good-bye."""
GOODBYE_SECONDS = 3
"""Less than one after the other would take."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    url = fresh_database("postgres")
    yield url
    drop_database(url)


@pytest.fixture
def wire(url: str) -> Iterator[Proxy]:
    port = urlsplit(url).port
    assert port is not None
    with running_proxy(port) as proxy:
        yield proxy


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def database(
    url: str, wire: Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Through the wire, with all connections of the pool open."""
    await close_engine()
    through = urlsplit(url)._replace(netloc=f"undercroft@127.0.0.1:{wire.port}").geturl()
    db = DatabaseSettings(
        url=through, pool_size=POOL_SIZE, max_overflow=0, statement_timeout_seconds=0.2, data_lane=request.param
    )
    monkeypatch.setattr(config, "_current", Settings(db=db))
    async with AsyncExitStack() as open_at_once:
        for _ in range(POOL_SIZE):
            session = await open_at_once.enter_async_context(transaction())
            await session.execute(text("SELECT 1"))
    yield
    wire.switch(PASS, reset=True)
    await close_engine()


async def ask() -> None:
    async with transaction() as session:
        await session.execute(text("SELECT 1"))


async def find() -> None:
    async with transaction() as session:
        await session.get(User, uuid4())


@pytest.mark.parametrize("read", [ask, find])
async def test_one_who_waits_in_vain_spares_the_others(
    database: None, wire: Proxy, read: Callable[[], Awaitable[None]]
) -> None:
    """The connections of a primary that is gone lead nowhere; the one behind the wire now is well."""
    wire.switch(BLACK_HOLE)
    wire.switch(PASS)

    with pytest.raises(Exception) as failure:  # noqa: PT011 - whatever it is, it is an outage
        async with asyncio.timeout(DEADLINE_SECONDS):
            await read()
    assert is_outage(failure.value)

    async with asyncio.timeout(AT_ONCE_SECONDS):
        for _ in range(2 * POOL_SIZE):
            await read()


async def test_whoever_ran_out_of_time_does_not_wait_to_say_good_bye(database: None, wire: Proxy) -> None:
    wire.switch(BLACK_HOLE)

    async with asyncio.timeout(AT_ONCE_SECONDS):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask()


async def test_many_connections_say_good_bye_at_once(database: None, wire: Proxy) -> None:
    """Or a process with ten of them would stop a minute later."""
    wire.switch(BLACK_HOLE)

    async with asyncio.timeout(GOODBYE_SECONDS):
        await close_engine()


async def test_the_server_hears_the_good_bye(database: None, wire: Proxy) -> None:
    await close_engine()

    async def are_gone() -> bool:
        return wire.open_connections() == 0

    await eventually(are_gone)

"""The dispatcher as a task: it ends when it is told to."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from src.config import get_settings, load_settings, use_settings
from src.outbox.services import dispatch
from src.outbox.services.publishing import wake_ups
from src.shared.database import close_engine
from tests.support.postgres import drop_database, fresh_database
from tests.support.waiting import eventually

PATIENCE_SECONDS = 10


@pytest.fixture
async def database() -> AsyncIterator[None]:
    before, url = get_settings(), fresh_database("sqlite")
    use_settings(load_settings(app={"env": "test"}, auth={"secret": "of this test, and of no other"}, db={"url": url}))
    yield
    await close_engine()
    use_settings(before)
    drop_database(url)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.usefixtures("database")
async def test_who_is_told_to_end_while_being_woken_ends(turns: int) -> None:
    """So many turns of the event loop lie between the two."""
    dispatching = asyncio.create_task(dispatch({}))

    async def waits() -> bool:
        return any(woken._waiters for woken in wake_ups.waiting)

    await eventually(waits)

    for woken in wake_ups.waiting:
        woken.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    dispatching.cancel()

    ended, _ = await asyncio.wait([dispatching], timeout=PATIENCE_SECONDS)
    dispatching.cancel()
    assert ended == {dispatching}

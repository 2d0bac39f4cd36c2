"""Requests that are let in, and then wait for one lock, one behind the other: a race whose order is known."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import asyncpg
import httpx2

from tests.support.waiting import eventually

ADMIN_ROLE = "SELECT id FROM roles WHERE name = 'admin' FOR UPDATE"
"""Whoever changes roles, or takes an administrator away, waits for it."""


def in_a_queue(url: str, calls: Sequence[Callable[[], httpx2.Response]], *, lock: str) -> list[httpx2.Response]:
    """Answers to calls, each of which got as far as it gets on PostgreSQL while somebody else has the lock."""
    return asyncio.run(_in_a_queue(url, calls, lock))


async def _in_a_queue(url: str, calls: Sequence[Callable[[], httpx2.Response]], lock: str) -> list[httpx2.Response]:
    holder, watch = await asyncpg.connect(url), await asyncpg.connect(url)
    answers: list[Future[httpx2.Response]] = []

    async def waits_or_is_answered(number: int) -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return answers[-1].done() or bool(await watch.fetchval(query) == number)

    try:
        with ThreadPoolExecutor(len(calls)) as threads:
            async with holder.transaction():
                await holder.execute(lock)
                for number, call in enumerate(calls, 1):
                    answers.append(threads.submit(call))
                    await eventually(partial(waits_or_is_answered, number))
            return [await asyncio.wrap_future(answer) for answer in answers]
    finally:
        await holder.close()
        await watch.close()

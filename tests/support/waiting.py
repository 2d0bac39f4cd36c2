"""Waiting for what happens soon, without a sleep that is a guess."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, sleep


async def eventually(condition: Callable[[], Awaitable[bool]], *, within_seconds: float = 10) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not."""
    async with asyncio.timeout(within_seconds):
        while not await condition():  # noqa: ASYNC110 - what is awaited here happens outside this process
            await asyncio.sleep(0.005)


def wait_for(condition: Callable[[], bool], *, within_seconds: float = 30) -> None:
    """The same for code that is not async."""
    deadline = monotonic() + within_seconds
    while not condition():
        assert monotonic() < deadline, "it did not come to that"
        sleep(0.005)

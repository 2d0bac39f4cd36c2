"""Waiting for what happens soon, without a sleep that is a guess."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], Awaitable[bool]], *, within_seconds: float = 10) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not."""
    async with asyncio.timeout(within_seconds):
        while not await condition():  # noqa: ASYNC110 - what is awaited here happens outside this process
            await asyncio.sleep(0.005)

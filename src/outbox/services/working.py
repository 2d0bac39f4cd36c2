"""The loop of who works off a table: woken when something was written, and looking for what others left."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from loguru import logger

from src.config import get_settings
from src.outbox.services.waking import WakeUps
from src.shared.database import DATABASE_ERRORS

T = TypeVar("T")
_GRACE_SECONDS: Final = 5


async def keep_working(
    take_up: Callable[[int], Awaitable[Sequence[T]]],
    carry_out: Callable[[T], Coroutine[Any, Any, None]],  # Any: as a task has it
    *,
    at_once: int,
    woken_by: WakeUps,
) -> None:
    """Until cancelled; what is under way then may end within a few seconds. `take_up(most)` gives what is this process's
    to do now and nobody else's, and `carry_out` raises nothing."""
    woken, under_way = asyncio.Event(), set[asyncio.Task[None]]()
    woken_by.waiting.add(woken)

    def ended(task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        # What waited for it may go.
        woken.set()

    try:
        while True:
            woken.clear()
            if len(under_way) < at_once:
                for each in await _taken_up(take_up, at_once - len(under_way)):
                    task = asyncio.create_task(carry_out(each))
                    under_way.add(task)
                    task.add_done_callback(ended)
            with suppress(TimeoutError):
                # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with what it waits for.
                async with asyncio.timeout(get_settings().outbox.poll_seconds):
                    await woken.wait()
    finally:
        woken_by.waiting.discard(woken)
        if under_way:
            await asyncio.wait(under_way, timeout=_GRACE_SECONDS)
        for task in under_way:
            task.cancel()


async def _taken_up(take_up: Callable[[int], Awaitable[Sequence[T]]], most: int) -> Sequence[T]:
    """Nothing, when it cannot be read."""
    try:
        return await take_up(most)
    except DATABASE_ERRORS as error:
        logger.bind(error=type(error).__name__).warning("The outbox cannot be read now")
    except Exception:  # noqa: BLE001 - whatever it is, mails must not wait for a restart
        logger.exception("The outbox cannot be read")
    return []

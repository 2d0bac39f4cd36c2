"""Whether this process should be sent traffic."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Annotated

from fastapi import Depends
from loguru import logger

from src.shared import migrations
from src.shared.database import DATABASE_ERRORS


class Readiness:
    """Asks the database with each call; that its tables are of this version is remembered once it was true."""

    def __init__(self) -> None:
        self.draining = False

    async def problem(self) -> str | None:
        """Why not, for people; None when ready."""
        if self.draining:
            return "Shutting down"
        try:
            current = await migrations.is_current()
        except DATABASE_ERRORS as error:
            logger.bind(error=type(error).__name__).warning("Not ready: no database, or no tables in it")
            return "The database does not answer, or has no tables yet"
        return None if current else "The database's tables are of another version: run `python -m src migrate`"

    @contextmanager
    def drained_first(self, seconds: float) -> Iterator[None]:
        """Within the block SIGTERM is first told by /health/ready alone, and reaches the server so much later.

        Who sends traffic has that time to send it elsewhere; all that still comes is served, each connection once more.
        """
        stop = signal.getsignal(signal.SIGTERM)
        if current_thread() is not main_thread() or not callable(stop):
            yield  # there is no server that would be stopped so
            return
        loop = asyncio.get_running_loop()

        def drain(number: int, frame: FrameType | None) -> None:
            if self.draining:
                return  # a supervisor may signal a worker that its parent has signalled
            self.draining = True
            if seconds > 0:
                loop.call_soon_threadsafe(loop.call_later, seconds, stop, number, None)
            else:
                stop(number, frame)

        signal.signal(signal.SIGTERM, drain)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, stop)


_readiness = Readiness()


async def get_readiness() -> Readiness:
    return _readiness


def leaving() -> bool:
    """Whether the process was told to stop: then a connection is not kept for another request."""
    return _readiness.draining


ReadinessDep = Annotated[Readiness, Depends(get_readiness)]

"""SQL on a test database, beside the service: what a test plants, and what it reads back.

Watched as the service's own is, so that what is planted counts for the next request.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Executable, NullPool, Row, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from src.shared.watching import watch_writes

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def execute(url: str, statement: Executable) -> Sequence[Row[Any]]:  # Any: columns of any type
    """Run one statement in a transaction of its own; callable with an event loop running, too."""
    return execute_each(url, [statement])[0]


def execute_each(url: str, statements: Sequence[Executable]) -> list[Sequence[Row[Any]]]:  # Any: as above
    """The same for several in one transaction."""

    async def run() -> list[Sequence[Row[Any]]]:  # Any: as above
        parsed = make_url(url)
        engine = create_async_engine(parsed.set(drivername=_DRIVERS[parsed.get_backend_name()]), poolclass=NullPool)
        watch_writes(engine, lease_seconds=1)
        try:
            async with engine.begin() as connection:
                found: list[Sequence[Row[Any]]] = []  # Any: as above
                for statement in statements:
                    result = await connection.execute(statement)
                    found.append(result.all() if result.returns_rows else [])
                return found
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()

"""Who remembers rights, and for how long: each process says so in the database before it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from uuid import UUID, uuid4

from loguru import logger
from sqlalchemy import text
from sqlmodel import Field, SQLModel

from src.shared.database import DATABASE_ERRORS, get_engine, transaction
from src.shared.watching import TRUSTED_SECONDS, Watch, steady_seconds, watch_of

_RENEWED_EVERY_SECONDS = 2.0


class CacheLease(SQLModel, table=True):
    __tablename__ = "cache_leases"

    id: UUID = Field(primary_key=True)
    """Of one process."""
    domain: UUID
    """Processes of one domain share a generation: a write of one is known to all at once."""
    lease_seconds: float
    renewed_at: datetime
    """By the database's clock."""


# Statements of their own words: the clock is the database's, and the session's own would be the process's.
_REMOVE_DEAD = text("DELETE FROM cache_leases WHERE renewed_at < clock_timestamp() - interval '1 hour'")
_REMOVE = text("DELETE FROM cache_leases WHERE id = CAST(:id AS uuid)")
_RENEW = text(
    "INSERT INTO cache_leases (id, domain, lease_seconds, renewed_at) "
    "VALUES (CAST(:id AS uuid), CAST(:domain AS uuid), :lease_seconds, clock_timestamp()) "
    "ON CONFLICT (id) DO UPDATE SET renewed_at = clock_timestamp()"
)


@asynccontextmanager
async def keeping_lease(lease_seconds: float) -> AsyncIterator[None]:
    """While the block runs, rights may be remembered for `lease_seconds`, as long as the database knows it."""
    watch = watch_of(get_engine())
    if not watch.registers or not lease_seconds:
        yield
        return
    own = uuid4()
    await _renew(watch, own, lease_seconds)
    renewing = asyncio.create_task(_keep_renewing(watch, own, lease_seconds))
    try:
        yield
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        watch.registered(until=0.0)
        # Not needed: without it writers wait for a process that is gone, for a few seconds more.
        with suppress(*DATABASE_ERRORS):
            async with transaction() as session:
                await session.execute(_REMOVE, {"id": str(own)})


async def _keep_renewing(watch: Watch, own: UUID, lease_seconds: float) -> None:
    renewed = True
    while True:
        await asyncio.sleep(_RENEWED_EVERY_SECONDS)
        before, renewed = renewed, await _renew(watch, own, lease_seconds)
        if before and not renewed:
            logger.warning("Not registered as one who remembers rights: each request reads them until it is")


async def _renew(watch: Watch, own: UUID, lease_seconds: float) -> bool:
    """Trusted from before it was asked for: the database's clock was read later."""
    asked = steady_seconds()
    try:
        async with transaction() as session:
            await session.execute(_REMOVE_DEAD)
            await session.execute(
                _RENEW,
                {"id": str(own), "domain": str(watch.generation.domain), "lease_seconds": lease_seconds},
            )
    except DATABASE_ERRORS:
        return False
    watch.registered(until=asked + TRUSTED_SECONDS)
    return True

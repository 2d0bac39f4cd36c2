"""Who remembers rights, and for how long: each process says so in the database before it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from loguru import logger
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, SQLModel, col

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


_NOW = func.clock_timestamp()  # the database's clock, and not that of a process


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
                await session.execute(delete(CacheLease).where(col(CacheLease.id) == own))


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
            await session.execute(delete(CacheLease).where(col(CacheLease.renewed_at) < _NOW - timedelta(hours=1)))
            lease = insert(CacheLease).values(
                id=own, domain=watch.generation.domain, lease_seconds=lease_seconds, renewed_at=_NOW
            )
            await session.execute(lease.on_conflict_do_update(index_elements=["id"], set_={"renewed_at": _NOW}))
    except DATABASE_ERRORS:
        return False
    watch.registered(until=asked + TRUSTED_SECONDS)
    return True

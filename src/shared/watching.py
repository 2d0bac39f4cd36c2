"""Writes that may take a right away: whoever remembers rights is told before anybody reads that the write is done.

Each engine is watched, so it does not matter who writes or how: the ORM, Core, text, a session's own commit. What is not
seen is SQL that does not pass through an engine of ours, and what a function inside the database does on its own; that
ends with the lease of what is remembered.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache, partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExceptionContext, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from src.shared.generation import Generation, open_generation


class Effect(IntEnum):
    NONE = 0
    GIVES = 1
    """What is remembered lacks something: processes of this machine read it again."""
    TAKES = 2
    """What is remembered may say too much: nobody anywhere may act on it once the write is acknowledged."""


@dataclass(frozen=True, slots=True)
class WatchedTable:
    name: str
    new_rows: Effect = Effect.NONE
    """What a row that was not there before can change."""
    idle_columns: tuple[str, ...] = ()
    """An UPDATE of one row that sets nothing else changes nothing that is remembered."""


_tables: tuple[WatchedTable, ...] | None = None


def watch_tables(*tables: WatchedTable) -> None:
    """Say which tables matter. Until somebody does, each write does: a script that never imports `auth` is watched too."""
    global _tables  # noqa: PLW0603 - the tables of the process, as its metadata are
    _tables = tables
    _judged.cache_clear()


_ROW_LOCK = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)
_WRITES = re.compile(
    r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|ALTER|DROP|CALL|DO|EXECUTE|OR\s+REPLACE|REPLACE\s+INTO)\b",
    re.IGNORECASE,
)
_OPAQUE = re.compile(r"\s*(?:CALL|DO|EXECUTE)\b", re.IGNORECASE)
_INSERT = re.compile(r'\s*INSERT\s+INTO\s+(?:"?\w+"?\.)?"?(\w+)"?', re.IGNORECASE)
_PLACEHOLDER = r"(?:\?|\$\d+(?:::[\w ]+)?)"
_LONGEST_KEPT = 4096


def effect_of(statement: str) -> Effect:
    """Judged by its words, and when in doubt as one that takes away: that costs a read, the opposite a right."""
    return _judged(statement) if len(statement) <= _LONGEST_KEPT else _judge(statement)


def _judge(statement: str) -> Effect:
    words = _WRITES.findall(_ROW_LOCK.sub("", statement))
    if not words:
        return Effect.NONE
    if _tables is None or _OPAQUE.match(statement):
        return Effect.TAKES
    mentioned = [table for table in _tables if re.search(rf"\b{table.name}\b", statement, re.IGNORECASE)]
    if not mentioned:
        return Effect.NONE
    plain = _INSERT.match(statement)
    if plain and len(words) == 1:  # no ON CONFLICT, no CTE that writes
        return max((table.new_rows for table in mentioned if table.name == plain[1].lower()), default=Effect.NONE)
    return Effect.NONE if any(_is_idle(table, statement) for table in mentioned) else Effect.TAKES


def _is_idle(table: WatchedTable, statement: str) -> bool:
    if not table.idle_columns:
        return False
    sets = rf"(?:{'|'.join(table.idle_columns)})={_PLACEHOLDER}"
    one_row = rf"UPDATE {table.name} SET {sets}(?:, {sets})* WHERE {table.name}\.id = {_PLACEHOLDER}"  # noqa: S608 - a pattern
    return re.fullmatch(one_row, statement) is not None


_judged = lru_cache(maxsize=1024)(_judge)


# A clock that nobody sets, and that goes on while the machine sleeps: a lease is over then for others as well.
steady_seconds: Final = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)

# A registration counts for writers far longer than its holder trusts it: the difference is how much the clock of the
# database may jump, by a failover for instance.
TRUSTED_SECONDS: Final = 10.0
_LIVE_SECONDS: Final = 20.0
# Clocks of two machines do not go equally fast.
_PATIENCE: Final = 1.1
_UNDEFINED_TABLE = "42P01"
_ELSEWHERE = (
    "SELECT coalesce(max(lease_seconds), 0) FROM cache_leases "
    "WHERE domain <> '{domain}' AND renewed_at > clock_timestamp() - interval '{seconds} seconds'"
)

# In the info of a pooled connection: what was written through it, and the session that has it.
_EFFECT = "undercroft.effect"
_OWNER = "undercroft.owner"


class WatchedSession(Session):
    """Waits in `settle`, when its connection is back in the pool: others are not kept from writing by those who wait."""

    owes_until = 0.0
    """By `steady_seconds`."""
    touched = False
    """Wrote to a watched table and has not committed: it sees what nobody else does."""


class Watch:
    """What an engine's writes do to those who remember, and how long these may."""

    def __init__(self, engine: Engine, lease_seconds: float) -> None:
        self._url, self._lease_seconds = engine.url, lease_seconds
        self._registers = engine.dialect.name != "sqlite"
        self._do_commit, self._do_rollback = engine.dialect.do_commit, engine.dialect.do_rollback
        self._registered_until = 0.0
        event.listen(engine, "after_cursor_execute", self._note)
        event.listen(engine, "handle_error", self._note_failed)
        event.listen(engine, "checkin", self._catch_up)
        # SQLAlchemy tells before a COMMIT that it comes, and nobody that it was.
        engine.dialect.do_commit = self._commit  # type: ignore[assignment, method-assign] # as above

    @cached_property
    def generation(self) -> Generation:
        # On first use: the file of a SQLite database, whose owner and rights are copied, may not be there before.
        return open_generation(self._url)

    @property
    def registers(self) -> bool:
        """Whether machines have to find each other in the database. A SQLite file is on one."""
        return self._registers

    @property
    def trusted_until(self) -> float:
        """Until when, by `steady_seconds`, each writer is sure to know of this process."""
        if self._registers:
            return self._registered_until
        return float("inf") if self.generation.reaches_all else 0.0

    def registered(self, until: float) -> None:
        self._registered_until = until

    def _note(
        self,
        connection: Connection,
        _cursor: DBAPICursor,
        statement: str,
        _parameters: object,
        _context: ExecutionContext | None,
        _executemany: bool,  # noqa: FBT001 - SQLAlchemy's signature
    ) -> None:
        effect = effect_of(statement)
        if effect is Effect.NONE:
            return
        pooled = connection.connection
        info = pooled.record_info
        if info is None or not _in_transaction(pooled.driver_connection):
            self._done(pooled, effect)
        _mark(pooled, effect)

    def _note_failed(self, context: ExceptionContext) -> None:
        """A statement that ran out of time may have done its work; somebody may catch the error and commit."""
        connection, statement = context.connection, context.statement
        if connection is not None and statement is not None and not connection.invalidated:
            _mark(connection.connection, effect_of(statement))

    def _commit(self, pooled: PoolProxiedConnection) -> None:
        info = pooled.record_info
        effect = Effect.TAKES if info is None else info.pop(_EFFECT, Effect.NONE)
        if effect is Effect.NONE:
            self._do_commit(pooled)
            return
        try:
            self._do_commit(pooled)
        except BaseException:
            # It may have come about all the same.
            self.generation.advance()
            raise
        if info is not None and isinstance(owner := info.get(_OWNER), WatchedSession):
            owner.touched = False
        self._done(pooled, effect)

    def _done(self, pooled: PoolProxiedConnection, effect: Effect) -> None:
        self.generation.advance()
        if effect is Effect.TAKES:
            self.wait_for_others(pooled)

    def wait_for_others(self, pooled: PoolProxiedConnection, *, in_transaction: bool = False) -> None:
        """Until the leases of those who do not share the generation are over; within SQLAlchemy's greenlet."""
        if self._registers:
            seconds = self._longest_lease_elsewhere(pooled, in_transaction=in_transaction)
        else:
            seconds = 0.0 if self.generation.reaches_all else self._lease_seconds
        if not seconds:
            return
        deadline = steady_seconds() + seconds * _PATIENCE
        owner = (pooled.record_info or {}).get(_OWNER)
        if isinstance(owner, WatchedSession):
            owner.owes_until = deadline
        else:
            await_only(_sleep_until(deadline))

    def _longest_lease_elsewhere(self, pooled: PoolProxiedConnection, *, in_transaction: bool) -> float:
        """An error here is one of the COMMIT: nobody was told that it took place."""
        cursor = pooled.cursor()
        try:
            cursor.execute(_ELSEWHERE.format(domain=self.generation.domain, seconds=_LIVE_SECONDS))
            row = cursor.fetchone()
            assert row is not None
            return float(row[0])
        except Exception as error:
            if getattr(error, "sqlstate", None) != _UNDEFINED_TABLE:
                raise
            return 0.0  # before its migration, nobody remembers
        finally:
            cursor.close()
            if not in_transaction:
                self._do_rollback(pooled)

    def _catch_up(self, _connection: object, record: ConnectionPoolEntry) -> None:
        """For what was written and not committed by SQLAlchemy: rolled back, or committed by a text."""
        info = record.record_info or {}
        info.pop(_OWNER, None)
        if info.pop(_EFFECT, Effect.NONE):
            self.generation.advance()


_watches: WeakKeyDictionary[Engine, Watch] = WeakKeyDictionary()


def watch_writes(engine: AsyncEngine, *, lease_seconds: float) -> None:
    _watches[engine.sync_engine] = Watch(engine.sync_engine, lease_seconds)


def watch_of(engine: AsyncEngine) -> Watch:
    return _watches[engine.sync_engine]


def _mark(pooled: PoolProxiedConnection, effect: Effect) -> None:
    info = pooled.record_info
    if info is None or effect is Effect.NONE:
        return
    info[_EFFECT] = max(effect, info.get(_EFFECT, Effect.NONE))
    if isinstance(owner := info.get(_OWNER), WatchedSession):
        owner.touched = True


def _in_transaction(driver_connection: Any) -> bool:  # Any: of one driver or the other
    if hasattr(driver_connection, "is_in_transaction"):
        return bool(driver_connection.is_in_transaction())
    return bool(driver_connection.in_transaction)


async def _sleep_until(deadline: float) -> None:
    while (left := deadline - steady_seconds()) > 0:  # noqa: ASYNC110 - time is all that is waited for
        await asyncio.sleep(left)


@event.listens_for(WatchedSession, "after_begin", propagate=True)
def _own(session: WatchedSession, _transaction: SessionTransaction, connection: Connection) -> None:
    info = connection.connection.record_info
    if info is not None:
        info[_OWNER] = session


async def settle(session: AsyncSession) -> None:
    """Wait until what this session committed counts everywhere. Before somebody is told that it is done."""
    real = real_session(session)
    if real is not None and real.owes_until:
        deadline, real.owes_until = real.owes_until, 0.0
        await _sleep_until(deadline)


def real_session(session: AsyncSession) -> WatchedSession | None:
    """What does the work behind ours, once there is some: to ask for it would make it."""
    real = session.__dict__.get("sync_session")
    return real if isinstance(real, WatchedSession) else None


async def vouch(session: AsyncSession) -> None:
    """Before acknowledging what another request committed, which perhaps did not live to see it through."""

    def see_it_through(sync_session: Session) -> None:
        connection = sync_session.connection()
        watch = _watches.get(connection.engine)
        if watch is not None:
            watch.generation.advance()
            watch.wait_for_others(connection.connection, in_transaction=True)

    await session.run_sync(see_it_through)

"""Connections of SQLAlchemy's pool, lent for one statement without what SQLAlchemy wraps around each."""

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

import asyncpg
from sqlalchemy import Connection, Select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty

from src.shared.lane.wire import wire_of
from src.shared.types import MAX_INT32

Record = _ConnectionRecord
"""A place in the pool, with the connection that is there."""
Fail = Callable[[Record, str | None, BaseException], Awaitable[NoReturn]]
"""What takes a connection over whose statement failed, and raises."""

# A statement takes less than a millisecond, a new connection several: whoever finds none idle waits so long at most for one
# that is out for a statement, before the pool opens one beyond its size and closes it again. And whoever reads by identity
# waits so long at most for the statement of others that is under way: who comes meanwhile shares the next one. Under load
# that is one statement for many; without load nobody waits.
PATIENCE_SECONDS: Final = 0.05

# Their listeners order parts, take turns at writing, and watch writes: nothing that a read here would miss.
_OURS: Final = frozenset({"src.shared.database", "src.shared.watching"})
_SESSION_EVENTS: Final = (
    "do_orm_execute",
    "after_begin",
    "before_commit",
    "after_commit",
    "after_rollback",
    "loaded_as_persistent",
    "detached_to_persistent",
    "persistent_to_detached",
)


Rows = Sequence[Sequence[Any]]  # Any: values of columns


class ByIdentity(Protocol):
    """The statements of one entity."""

    sql: str
    many_sql: str
    batched: tuple[type[Any], ...]  # Any: of identities
    """Types of which the driver takes many at once and gives them back as they are; none where it does not."""
    place: int
    """Of the identity in a row."""


_Found = dict[Any, Sequence[Any]]  # Any: identities, and values of columns


@dataclass(slots=True)
class _Batch:
    wanted: dict[Any, None]  # Any: identities
    waiting: "list[asyncio.Future[_Found | None]]"


@dataclass(slots=True)
class _Reads:
    """By identity, of one entity."""

    next: _Batch | None = None
    under_way: int = 0
    free: "asyncio.Future[None] | None" = None
    """What the next one waits for."""


class Lane:
    """What sessions of one engine share: its connections, and what was compiled for its dialect."""

    def __init__(
        self, engine: AsyncEngine, session_class: type[Session], ordered: Callable[[Select[Any]], Select[Any]]
    ) -> None:  # Any: of whatever is selected
        self.engine = engine
        self.sync_engine = engine.sync_engine
        self.dialect = self.sync_engine.dialect
        self.session_class = session_class
        self.ordered = ordered
        self.plans: dict[object, Any] = {}  # Any: each kind of plan knows its own, see the callers
        postgres = self.dialect.name == "postgresql"
        self._fetch = _fetch_postgres if postgres else _fetch_sqlite
        self._fetch_often = _fetch_postgres_often if postgres else _fetch_sqlite
        self._plain_return = self.dialect.name == "postgresql"
        self._checkins = len(self.sync_engine.pool.dispatch.checkin)
        self._reads: dict[ByIdentity, _Reads] = {}
        self._out = 0
        self._line: deque[asyncio.Future[None]] = deque()
        # A session of this class, never used: its dispatch shows who listens to all of them.
        session = session_class()
        self._heard_always = [getattr(session.dispatch, name) for name in _SESSION_EVENTS]
        self._note_listeners()

    def _heard_here(self) -> list[object]:
        dispatch = self.sync_engine.dispatch
        return [
            dispatch.before_cursor_execute,
            dispatch.after_cursor_execute,
            dispatch.before_execute,
            dispatch.after_execute,
            self.sync_engine.pool.dispatch.checkout,
        ]

    def _note_listeners(self) -> None:
        self._collections = self._heard_here()
        self._listeners = [each for heard in (*self._collections, *self._heard_always) for each in _lists(heard)]
        self._count = sum(map(len, self._listeners))
        self._quiet = all(_is_ours(each) for listeners in self._listeners for each in listeners)

    @property
    def quiet(self) -> bool:
        """Nobody but ourselves listens: somebody else hears every statement, and perhaps sets a role when one begins."""
        # The first listener to something replaces an empty collection, later ones join it.
        if sum(map(len, self._listeners)) != self._count or self._heard_here() != self._collections:
            self._note_listeners()
        return self._quiet

    # Lending

    async def fetch(
        self, sql: str, arguments: Sequence[Any], fail: Fail, *, often: bool = False
    ) -> Sequence[Sequence[Any]]:  # Any: values of columns
        """The rows of one reading statement, outside any transaction. One that comes `often` stays prepared for good.

        On PostgreSQL a statement alone is a transaction of its own, and at READ COMMITTED a statement sees what was
        committed when it began, in a transaction or not: BEGIN and ROLLBACK around it would change nothing. On SQLite
        reads are outside transactions anyway (decision 10).
        """
        record = await self.borrow()
        try:
            rows = await (self._fetch_often if often else self._fetch)(record, sql, arguments)
        except BaseException as error:
            self.let_go()
            await fail(record, sql, error)
            raise  # not reached
        pool: Any = self.sync_engine.pool  # Any: QueuePool, see _idle
        if self._plain_return and pool.overflow() <= 0 and len(pool.dispatch.checkin) == self._checkins:
            # It was read from, nothing else: there is nothing to reset, and our own listeners look for what was written.
            self._out -= 1
            pool._pool.put_nowait(record)  # noqa: SLF001 - where `_idle` took it from
            if self._line:
                self._call_next()
        else:
            await self.give_back(record)
        return rows

    async def fetch_one(
        self, plan: ByIdentity, arguments: Sequence[Any], fail: Fail
    ) -> Sequence[Any] | None:  # Any: values of columns
        """The row of an identity. Those who ask before a statement is sent share it: each sees what was committed when
        it was sent, and that was after each had asked."""
        wanted = arguments[0]
        # What the driver would refuse must not be among what others wait for.
        if not isinstance(wanted, plan.batched) or (isinstance(wanted, int) and not -MAX_INT32 <= wanted <= MAX_INT32):
            return _first(await self.fetch(plan.sql, arguments, fail, often=True))
        reads = self._reads.get(plan)
        if reads is None:
            reads = self._reads[plan] = _Reads()
        if reads.next is None:
            return await self._lead(reads, plan, arguments, fail)
        reads.next.wanted[wanted] = None
        # A future for each: who is cancelled while he waits must not cancel the others.
        turn = asyncio.get_running_loop().create_future()
        reads.next.waiting.append(turn)
        found: _Found | None = await turn
        if found is not None:
            return found.get(wanted)
        # It failed for whoever led: now each for himself.
        return _first(await self.fetch(plan.sql, arguments, fail, often=True))

    async def _lead(
        self, reads: _Reads, plan: ByIdentity, arguments: Sequence[Any], fail: Fail
    ) -> Sequence[Any] | None:  # Any: as above
        wanted = arguments[0]
        batch = reads.next = _Batch({wanted: None}, [])
        found: _Found | None = None  # as it stays when the statement fails
        try:
            try:
                await self._until_free(reads)
            finally:
                reads.next = None
            reads.under_way += 1
            try:
                if len(batch.wanted) == 1:
                    row = _first(await self.fetch(plan.sql, arguments, fail, often=True))
                    found = {} if row is None else {wanted: row}
                else:
                    rows = await self.fetch(plan.many_sql, [list(batch.wanted)], fail, often=True)
                    found = {row[plan.place]: row for row in rows}
            finally:
                reads.under_way -= 1
                if reads.free is not None:
                    _done(reads.free)
        finally:
            for turn in batch.waiting:
                if not turn.done():
                    turn.set_result(found)
        return found.get(wanted)

    @staticmethod
    async def _until_free(reads: _Reads) -> None:
        await asyncio.sleep(0)  # those who ask in the same turn of the event loop come along
        if reads.under_way:
            loop = asyncio.get_running_loop()
            free = reads.free = loop.create_future()
            alarm = loop.call_later(PATIENCE_SECONDS, _done, free)
            try:
                await free
            finally:
                alarm.cancel()

    async def borrow(self) -> Record:
        if not self._line and (record := self._idle()) is not None:
            self._out += 1
            return record
        return await self._wait()

    def _idle(self) -> Record | None:
        pool = self.sync_engine.pool
        try:
            record = pool._pool.get_nowait()  # type: ignore[attr-defined] # noqa: SLF001 - QueuePool's queue; `connect()` would wrap what it gives
        except Empty:
            return None
        assert isinstance(record, Record)
        if record.dbapi_connection is not None and record.starttime > max(
            pool._invalidate_time,  # noqa: SLF001 - what get_connection() looks at
            record._soft_invalidate_time,  # noqa: SLF001 - as above
        ):
            return record
        record.checkin(_fairy_was_created=False)  # it is to be connected anew: not here
        return None

    async def _wait(self) -> Record:
        loop = asyncio.get_running_loop()
        deadline, pool, waited = loop.time() + PATIENCE_SECONDS, self.sync_engine.pool, False
        while self._out and pool.overflow() >= 0 and (left := deadline - loop.time()) > 0:  # type: ignore[attr-defined] # QueuePool's
            turn = loop.create_future()
            (self._line.appendleft if waited else self._line.append)(turn)
            alarm = loop.call_later(left, self._call, turn)
            try:
                await turn
            except BaseException:
                if turn in self._line:
                    self._line.remove(turn)
                else:
                    self._call_next()
                raise
            finally:
                alarm.cancel()
            waited = True
            if (record := self._idle()) is not None:
                self._out += 1
                return record
        self._call_next()
        record = await greenlet_spawn(self._check_out)
        self._out += 1
        return record

    def _check_out(self) -> Record:
        """The first half of the pool's own `connect()`, with the engine's way of failing."""
        try:
            record = self.sync_engine.pool._do_get()  # noqa: SLF001 - as above
            assert isinstance(record, Record)
            try:
                record.get_connection()
            except BaseException as error:
                record._checkin_failed(error, _fairy_was_created=False)  # noqa: SLF001 - as above
                raise
        except self.dialect.loaded_dbapi.Error as error:
            Connection._handle_dbapi_exception_noconnection(error, self.dialect, self.sync_engine)  # noqa: SLF001 - as above
        return record

    def _call(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._line:
            self._line.remove(turn)
        _done(turn)

    def _call_next(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def give_back(self, record: Record) -> None:
        """Clean: outside a transaction, and with nothing under way."""
        self._out -= 1
        if self.sync_engine.pool.overflow() > 0:  # type: ignore[attr-defined] # QueuePool's
            # The pool may close it.
            await greenlet_spawn(record.checkin, _fairy_was_created=False)
        else:
            record.checkin(_fairy_was_created=False)
        if self._line:
            self._call_next()

    # Handing over to SQLAlchemy

    def let_go(self) -> None:
        self._out -= 1

    def wrapped(self, record: Record) -> Connection:
        """The lent connection as SQLAlchemy has it: from here on it is SQLAlchemy that gives it back."""
        pool = self.sync_engine.pool
        assert record.dbapi_connection is not None
        fairy = _ConnectionFairy(pool, record.dbapi_connection, record, echo=pool._should_log_debug())  # noqa: SLF001 - what checkout() does
        record.fairy_ref = weakref.ref(fairy, lambda _: None)
        fairy._counter = 1  # noqa: SLF001 - as above
        return Connection(self.sync_engine, connection=fairy)


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _lists(collection: Any) -> list[Any]:  # Any: SQLAlchemy's, of listeners
    own = getattr(collection, "listeners", None)
    return [collection.parent_listeners, *([] if own is None else [own])]


def _is_ours(listener: Callable[..., object]) -> bool:
    if listener.__module__ in _OURS:
        return True
    # SQLAlchemy puts a function around one that returns nothing.
    inside = [cell.cell_contents for cell in getattr(listener, "__closure__", None) or ()]
    wrapped = [each for each in inside if callable(each)]
    return listener.__module__ == "sqlalchemy.engine.events" and len(wrapped) == 1 and wrapped[0].__module__ in _OURS


def _first(rows: Rows) -> Sequence[Any] | None:  # Any: as above
    return rows[0] if rows else None


async def _fetch_postgres(
    record: Record, sql: str, arguments: Sequence[Any]
) -> Sequence[Sequence[Any]]:  # Any: as above
    rows: Sequence[Sequence[Any]] = await record.dbapi_connection._connection.fetch(sql, *arguments)  # type: ignore[union-attr] # noqa: SLF001 - asyncpg's, which keeps prepared statements
    return rows


async def _fetch_postgres_often(
    record: Record, sql: str, arguments: Sequence[Any]
) -> Sequence[Sequence[Any]]:  # Any: as above
    wire = wire_of(record)
    try:
        return await wire.fetch(sql, arguments)
    except asyncpg.InvalidCachedStatementError:
        return await wire.fetch(sql, arguments)  # prepared anew: a table was altered


async def _fetch_sqlite(record: Record, sql: str, arguments: Sequence[Any]) -> Sequence[Sequence[Any]]:  # Any: as above
    # One hop to the connection's thread, where a cursor takes four.
    rows: Sequence[Sequence[Any]] = await record.dbapi_connection._connection.execute_fetchall(sql, arguments)  # type: ignore[union-attr] # noqa: SLF001 - aiosqlite's
    return rows

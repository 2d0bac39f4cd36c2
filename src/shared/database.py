"""The engine, the session, and the ONE place that commits."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import asyncpg
from fastapi import Depends
from sqlalchemy import URL, Connection, MetaData, Select, event, inspect, make_url
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapper, ORMExecuteState, QueryableAttribute
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet
from sqlmodel import SQLModel

from src.config import Settings, get_settings
from src.shared.endings import EndingSession
from src.shared.inline import inline_context, plainly
from src.shared.lane import LaneSession, open_lane
from src.shared.watching import WatchedSession, settle, watch_writes


def metadata() -> MetaData:
    return SQLModel.metadata


class _OrderedSession(WatchedSession):
    """A part of a result has an order: without one, pages overlap and miss rows."""


@event.listens_for(_OrderedSession, "do_orm_execute")
def _order_parts(executed: ORMExecuteState) -> None:
    if isinstance(executed.statement, Select):
        executed.statement = _ordered(executed.statement)


def _ordered(statement: Select[Any]) -> Select[Any]:  # Any: of whatever is selected
    if statement._has_row_limiting_clause and not (  # noqa: SLF001 - no public way to ask
        statement._order_by_clauses or statement._group_by_clauses or statement._distinct  # noqa: SLF001 - as above
    ):
        return statement.order_by(*_primary_keys(statement))
    return statement


def _primary_keys(statement: Select[Any]) -> Iterator[QueryableAttribute[Any]]:  # Any: of whatever is selected
    """Those of the tables that it selects, whole or by column, under their aliases. Expressions have none: a count
    must not be ordered by what it counts."""
    entities = {
        entity: None
        for selected in statement.column_descriptions
        # Those of Core say nothing of an entity.
        if (entity := selected.get("entity")) is not None
        and (selected["expr"] is entity or isinstance(selected["expr"], QueryableAttribute))
    }
    for entity in entities:
        mapper: Mapper[Any] = inspect(entity).mapper  # Any: as above
        for column in mapper.primary_key:
            yield getattr(entity, mapper.get_property_by_column(column).key)


_engine: AsyncEngine | None = None
_open_session: Callable[[], AsyncSession] | None = None


def get_engine() -> AsyncEngine:
    """The engine of the process, opened on first use from its settings."""
    global _engine, _open_session  # noqa: PLW0603 - one engine a process, as its settings are
    if _engine is None:
        settings = get_settings()
        _engine = create_engine(settings)
        _open_session = _session_maker(_engine, settings)
    return _engine


def _session_maker(engine: AsyncEngine, settings: Settings) -> Callable[[], AsyncSession]:
    # Without prepared statements a pooler is in between, which lends a connection for a transaction: begin one.
    if settings.db.data_lane and settings.db.prepared_statements:
        opened = open_lane(engine, _OrderedSession, _ordered)
        if opened is not None:
            return opened
    return async_sessionmaker(
        engine,
        class_=EndingSession,
        sync_session_class=_OrderedSession,
        expire_on_commit=False,
        # A closed session stays closed: a stream that outlives its request opens `transaction()` itself,
        # where a session that silently began again would never commit.
        close_resets_only=False,
    )


async def close_engine() -> None:
    global _engine, _open_session
    engine, _engine, _open_session = _engine, None, None
    if engine is not None:
        await engine.dispose()
        if leaving := [task for task in _leaving if task.get_loop() is asyncio.get_running_loop()]:
            await asyncio.wait(leaving)


def transaction() -> AbstractAsyncContextManager[AsyncSession]:
    """One unit of work: committed at the end of the block, rolled back when the block raises.

    For jobs, scripts, streams, background tasks, and for what must survive a refusal. On SQLite a second writer
    waits for the first: inside a request, run it before the request's own session writes.
    """
    return _Transaction()


class _Transaction:
    """Not a generator: most requests use no session, and should not pay for one."""

    __slots__ = ("_session",)

    async def __aenter__(self) -> AsyncSession:
        return self.open()

    def open(self) -> AsyncSession:
        if _open_session is None:
            get_engine()
        assert _open_session is not None
        # Not `session.begin()`: under it, the `await session.commit()` that people bring along would forbid all that follows.
        self._session = _open_session()
        return self._session

    def end_unused(self) -> bool:
        return isinstance(self._session, LaneSession) and self._session.end_unused()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._session
        try:
            if kind is None:
                await session.commit()
            else:
                await session.rollback()
        finally:
            await session.__aexit__(kind, error, traceback)  # it closes, even when the task is cancelled meanwhile
        # A refusal too: what the session had committed on its own before is told by it.
        if kind is None or issubclass(kind, Exception):
            await settle(session)


@inline_context(_Transaction)
async def _request_session() -> AsyncIterator[AsyncSession]:
    async with transaction() as session:
        yield session


# FastAPI ends a dependency of scope "request", the default, AFTER the answer has left: a client would read 201 and
# the COMMIT would fail behind it. Scope "function" ends before the first byte. It is asked for here, on the inner
# generator, so that `Depends(get_session)` is safe as everybody types it. Nobody else may depend on
# `_request_session`: FastAPI caches by (callable, scope), and the request would have two sessions.
@plainly(lambda session: session)
async def get_session(
    session: Annotated[AsyncSession, Depends(_request_session, scope="function")],
) -> AsyncSession:
    """The request's session: one transaction, committed before the first byte of the answer, rolled back by a refusal."""
    return session


SessionDep = Annotated[AsyncSession, Depends(get_session)]


# What the database, its driver or the network below it can raise; OSError and TimeoutError come from a connect.
DATABASE_ERRORS: tuple[type[Exception], ...] = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
)
# SQLSTATE classes: 08 connection, 53 resources, 57 operator intervention, 58 system, 40 asks for a retry;
# 55P03 is a lock that did not come in time, 25P03 an idle transaction that the server ended, 25006 a standby.
_OUTAGE_STATES = ("08", "53", "57", "58", "40", "55P03", "25P03", "25006")
# SQLite's primary result codes: BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN.
_OUTAGE_CODES = frozenset({5, 6, 7, 8, 10, 13, 14})


def is_outage(error: BaseException) -> bool:
    """Whether the database could not do its work now, so that the same request may succeed later."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_outage(error.orig))
    state = getattr(error, "sqlstate", None)
    if state:
        return str(state).startswith(_OUTAGE_STATES)
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _OUTAGE_CODES
    return isinstance(
        error, PoolTimeoutError | asyncpg.InterfaceError | ConnectionError | TimeoutError | socket.gaierror
    )


def is_conflict(error: DBAPIError) -> bool:
    """Whether a transaction lost against another one, so that all of it may be done again: a serialisation failure, or
    a deadlock."""
    return getattr(error.orig, "sqlstate", None) in {"40001", "40P01"}


def create_engine(settings: Settings) -> AsyncEngine:
    url = database_url(settings)
    sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite_engine(url, settings) if sqlite else _postgres_engine(url, settings)
    watch_writes(engine, lease_seconds=settings.auth.principal_cache_seconds)
    return engine


def database_url(settings: Settings) -> URL:
    """`DB__URL` with the driver that we use: operators write `postgresql://…` and `sqlite:///…`."""
    url = make_url(settings.db.url)
    driver = "sqlite+aiosqlite" if url.get_backend_name() == "sqlite" else "postgresql+asyncpg"
    return url.set(drivername=driver)


def _postgres_engine(url: URL, settings: Settings) -> AsyncEngine:
    db = settings.db
    connect_args: dict[str, Any] = {  # Any: asyncpg's own arguments
        "timeout": db.connect_timeout_seconds,
        # The server ends a statement first; this is for a server that no longer answers.
        "command_timeout": db.statement_timeout_seconds + 1,
        "server_settings": {
            "application_name": settings.app.name,
            "timezone": "UTC",
            "statement_timeout": _milliseconds(db.statement_timeout_seconds),
            "lock_timeout": _milliseconds(db.lock_timeout_seconds),
            "idle_in_transaction_session_timeout": _milliseconds(settings.http.request_timeout_seconds),
        },
    }
    if not db.prepared_statements:
        connect_args |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    # libpq's word for it, which operators have in their URLs; asyncpg calls it ssl.
    sslmode = url.query.get("sslmode")
    if isinstance(sslmode, str):
        url = url.difference_update_query(["sslmode"])
        connect_args["ssl"] = sslmode
    engine = create_async_engine(
        url,
        pool_size=db.pool_size,
        max_overflow=db.max_overflow,
        pool_timeout=db.pool_timeout_seconds,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args=connect_args,
    )
    dialect = engine.sync_engine.dialect
    dialect.do_terminate = dialect.do_close = _leave  # type: ignore[assignment, method-assign] # the pool asks nobody else
    event.listen(engine.sync_engine, "checkin", _discard_unclean)
    return engine


def _discard_unclean(connection: Any, record: ConnectionPoolEntry) -> None:  # Any: SQLAlchemy's around the driver's
    """A BEGIN that the server cancels leaves asyncpg with a transaction that never was: each one after it would be a
    savepoint in nothing, and refused. A ROLLBACK that it cancels leaves one that failed and goes on."""
    driver = connection and connection.driver_connection
    if driver is not None and (driver.is_in_transaction() or driver._top_xact is not None):  # noqa: SLF001 - no public way to ask
        record.invalidate()


_leaving: set[asyncio.Task[None]] = set()
_GOODBYE_SECONDS = 2.0


def _leave(connection: Any) -> None:  # Any: SQLAlchemy's around the driver's
    """Say good-bye, so that the server ends what is under way, but let nobody wait for its answer: a request that ran out
    of time has none left, and a process that stops has other connections to close."""
    if connection.driver_connection.is_closed() or not in_greenlet():
        connection.terminate()
        return
    task = asyncio.get_running_loop().create_task(_say_goodbye(connection))
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


async def _say_goodbye(connection: Any) -> None:  # Any: as above
    with suppress(*DATABASE_ERRORS):
        await connection.driver_connection.close(timeout=_GOODBYE_SECONDS)


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def _sqlite_engine(url: URL, settings: Settings) -> AsyncEngine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    db = settings.db
    engine = create_async_engine(
        url,
        pool_size=db.pool_size,
        max_overflow=db.max_overflow,
        # Writers queue up for the one lock, so a burst waits here as long as a request may take.
        pool_timeout=settings.http.request_timeout_seconds,
        hide_parameters=True,
        connect_args={"timeout": db.lock_timeout_seconds},
    )
    event.listen(engine.sync_engine, "connect", _tune_sqlite)
    event.listen(engine.sync_engine, "reset", _end_failed_commit)
    turns = _WriteTurns()
    event.listen(engine.sync_engine, "before_cursor_execute", turns.begin_before_first_write)
    event.listen(engine.sync_engine, "checkin", turns.give_back)
    return engine


def _tune_sqlite(connection: Any, _record: object) -> None:  # Any: the driver's connection, adapted
    # The driver's own BEGIN is deferred: two such transactions that read and then write fail at once with BUSY.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _end_failed_commit(connection: Any, _record: object, state: PoolResetState) -> None:  # Any: as above
    """A COMMIT that a deferred constraint refuses leaves SQLite's transaction open, and SQLAlchemy takes it for ended:
    the next request would find its rows, and commit them."""
    if state.asyncio_safe and connection.driver_connection.in_transaction:
        connection.rollback()


_READS = re.compile(
    r"\s*(?:SELECT|PRAGMA|EXPLAIN|VALUES|WITH(?!.*\b(?:INSERT|UPDATE|DELETE)\b))", re.IGNORECASE | re.DOTALL
)


class _WriteTurns:
    """Reads see the last commit, as READ COMMITTED does on PostgreSQL; the first write, or a row lock that SQLite
    cannot express, takes the write lock.

    Within the process writers take turns in the order in which they came. SQLite itself has no queue: whoever waits
    asks again every now and then, and under load some ask in vain until their time is up.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[object] | None = None

    def begin_before_first_write(
        self,
        connection: Connection,
        cursor: DBAPICursor,
        statement: str,
        _parameters: object,
        context: ExecutionContext | None,
        _executemany: bool,  # noqa: FBT001 - SQLAlchemy's signature
    ) -> None:
        if not _locks_rows(context) and _READS.match(statement):
            return
        pooled = connection.connection
        if pooled.driver_connection is None or pooled.driver_connection.in_transaction:
            return
        # Kept with the pool's record, which outlives a connection that breaks.
        kept = pooled.record_info
        assert kept is not None
        if _TURN not in kept:
            await_only(self._take())
            kept[_TURN] = True
        cursor.execute("BEGIN IMMEDIATE")

    async def _take(self) -> None:
        task = asyncio.current_task()
        if self._turn.locked() and self._holder is task:
            # It would wait for itself until its deadline.
            raise RuntimeError("This task writes in another transaction already: SQLite has one writer")
        await self._turn.acquire()
        self._holder = task

    def give_back(self, _connection: object, record: ConnectionPoolEntry) -> None:
        """When the connection returns to the pool: after COMMIT or ROLLBACK, and when it broke."""
        if record.record_info and record.record_info.pop(_TURN, False):
            self._holder = None
            self._turn.release()


_TURN = "undercroft.write_turn"


def _locks_rows(context: ExecutionContext | None) -> bool:
    statement = getattr(getattr(context, "compiled", None), "statement", None)
    return getattr(statement, "_for_update_arg", None) is not None

"""A session that costs nothing until it is used, and little for what it can read in one statement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session
from sqlalchemy.orm import session as orm_session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.identity import IdentityMap, _WeakInstanceDict
from sqlalchemy.util import await_only, greenlet_spawn

from src.shared.endings import EndingSession
from src.shared.lane.connections import Lane, Record
from src.shared.lane.entities import EntityPlan, plan_for
from src.shared.lane.wire import wire_of

if TYPE_CHECKING:
    from src.shared.lane.letters import PageWriter

_T = TypeVar("_T")
_TAKEN: Final = -1
"""Of an instance that a session has adopted: no session has this number."""
_UNIQUE_VIOLATION: Final = "23505"
_UNIQUE_VIOLATIONS: Final = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})
_MADE_LATE: Final = frozenset({"sync_session", "_proxied", "_async_bind", "_async_binds"})


@dataclass(frozen=True, slots=True)
class PutOff:
    """A write that nobody waits for, on its way to the database."""

    sql: str
    arguments: Sequence[Any]  # Any: values of columns
    message: bytes
    table: str
    taken: Callable[[], Exception] | None


class LaneSession(EndingSession):
    """An AsyncSession in all that it does.

    Its real Session is made when something is asked of it that the lane cannot do. Until then it knows what was read
    through the lane in an identity map, which the real Session takes over.
    """

    page_json: "PageWriter | None" = None
    """Set by whoever sends a page as it comes: `apaginate` then answers with `PageJson`, where it can."""

    is_real = False
    """The Session behind it was made: it is an ordinary one now."""
    _closed = False
    _begun = False
    """Something was read: the ordinary session would be in a transaction."""
    _stale = False
    """Rolled back: what is known is expired, and read again as the real Session does it."""
    _identities: IdentityMap | None = None
    _waiting: object | None = None
    """One that was adopted and is not in the map yet: most requests never ask for their caller again."""
    _record: Record | None = None
    """The connection of a transaction that was begun without the real Session."""
    _put_off: Sequence[PutOff] = ()
    """In that transaction; sent before whatever else is."""
    _at_work = False
    """A statement is under way without the real Session."""
    _id = 0

    def __init__(self, lane: Lane) -> None:
        # Not `super().__init__()`, which makes the Session: see `__getattr__`.
        self.lane = lane

    def __getattr__(self, name: str) -> Any:  # Any: what AsyncSession expects under that name
        if name not in _MADE_LATE:
            raise AttributeError(name)
        self._become_real()
        return self.__dict__[name]

    @property
    def sync_session_class(self) -> type[Session]:  # type: ignore[override] # it cannot be set here
        return self.lane.session_class

    def _become_real(self) -> None:
        self._alone()
        lane = self.lane
        session = lane.session_class(bind=lane.sync_engine, expire_on_commit=False, close_resets_only=False)
        self.is_real = True
        self._async_bind = lane.engine
        self._async_binds = {}
        self.sync_session = self._proxied = self._assign_proxied(session)
        if self._known is not None:
            # Instances in the map name their session by this number.
            del orm_session._sessions[session.hash_key]  # noqa: SLF001 - where `object_session` looks
            session.hash_key = self._id
            orm_session._sessions[self._id] = session  # noqa: SLF001 - as above
            session.identity_map = self._known
        self._id = session.hash_key
        if self._closed:
            session.close()
        elif self._record is not None:
            record, self._record = self._record, None
            lane.let_go()
            connection = self._join(record)
            if self._put_off:
                for moment in ("before_cursor_execute", "commit"):
                    event.listen(connection, moment, self._send_through)
                event.listen(connection, "rollback", self._drop)
        elif self._begun:
            session._autobegin_t()  # noqa: SLF001 - no public way to begin as a first read does

    def _join(self, record: Record) -> Connection:
        """The real Session goes on with this connection, in the transaction that is open on it, if any."""
        transaction = self.sync_session._autobegin_t()  # noqa: SLF001 - as above
        return transaction._connection_for_bind(_Lent(self.lane.wrapped(record)), None)  # type: ignore[arg-type] # noqa: SLF001 - it asks an engine to connect(), and gets this one

    # Knowing instances

    @property
    def fresh(self) -> bool:
        """Nothing has begun, nothing was changed: a read may take the lane."""
        return (
            not self.is_real
            and not self._closed
            and not self._stale
            and self._record is None
            and not self._changed
            and self.lane.quiet
        )

    @property
    def _known(self) -> IdentityMap | None:
        """What was loaded or adopted."""
        if self._waiting is not None:
            self._enter(self._waiting)
        return self._identities

    def _enter(self, instance: object) -> None:
        self._waiting, state, known = None, instance_state(instance), self._map()
        state.session_id = self._id
        assert state.key is not None
        known._add_unpresent(state, state.key)  # noqa: SLF001 - as orm/loading.py does
        if state.modified:
            known._modified.add(state)  # noqa: SLF001 - as the change itself would have done

    @property
    def _changed(self) -> bool:
        """Whether there is something that a flush would write."""
        waiting, known = self._waiting, self._identities
        return (waiting is not None and instance_state(waiting).modified) or (
            known is not None and bool(known._modified)  # noqa: SLF001 - as Session.flush() asks
        )

    def _map(self) -> IdentityMap:
        known = self._identities
        if known is None:
            known = self._identities = _WeakInstanceDict()
            self._number()
        return known

    def _number(self) -> int:
        if not self._id:
            self._id = orm_session._new_sessionid()  # noqa: SLF001 - a Session numbers itself so
        return self._id

    def load(self, plan: EntityPlan, row: Any) -> object:  # Any: values of columns
        if self._waiting is not None:
            self._enter(self._waiting)  # the row may be its own
        instance = plan.load(row, self._map(), self._id)
        if plan.has_relationships and not self.is_real:
            self._become_real()  # a lazy load asks for the Session by its number
        return instance

    @property
    def holds_connection(self) -> bool:
        """Without the real Session."""
        return self._record is not None

    def read(self) -> None:
        """Note that a statement was answered."""
        self._begun = True

    def adopt(self, instance: _T) -> _T:
        """An instance that has an identity and no changes, as if this session had loaded it; one that it knows wins."""
        state = instance_state(instance)
        key: Any = state.key  # Any: or None
        if key is None or state.modified:
            raise InvalidRequestError("Only what was stored and is unchanged can be adopted")
        if self._closed or (state.session_id not in (None, self._id) and instance is not self._waiting):
            raise InvalidRequestError("The session is closed, or another session has this instance")
        if state.expired or state.mapper.relationships:
            _ = self.sync_session  # it looks for what is missing there by itself
        identities = self.identity_map if self.is_real else self._known
        known: _T | None = None if identities is None else identities.get(key)
        if known is not None:
            return known
        if self.is_real:
            self.add(instance)
            self.sync_session._autobegin_t()  # noqa: SLF001 - as a load does
            return instance
        state.session_id = _TAKEN
        self._waiting = instance
        self._begun = True
        return instance

    async def get(self, entity: Any, ident: Any, **how: Any) -> Any:  # Any: as AsyncSession has it
        if not how and self.fresh and (plan := plan_for(self.lane, entity)) is not None:
            key = plan.identity(ident)
            if key is not None:
                known = None if self._known is None else self._known.get(key)
                if known is not None:
                    return known if isinstance(known, entity) else None
                try:
                    arguments = plan.arguments(key)
                except Exception:  # noqa: BLE001 - of any type's: the ordinary path raises it with its words
                    return await super().get(entity, ident)
                row = await self.lane.fetch_one(plan, arguments, self.fail)
                self._begun = True
                return None if row is None else self.load(plan, row)
        return await super().get(entity, ident, **how)

    # Writing

    @property
    def writes(self) -> bool:
        """Whether statements can run past SQLAlchemy here."""
        if self._record is not None:
            return True  # one did, in this transaction
        return self.lane.dialect.name == "postgresql" and not self._closed and self.lane.quiet

    async def run(self, sql: str, arguments: Sequence[Any]) -> Sequence[Sequence[Any]]:  # Any: values of columns
        """One statement in this session's transaction, which begins here if it has not."""
        if self.is_real or self._changed:
            return await self._run_real(sql, arguments)
        self._alone()
        self._at_work = True
        try:
            return await self._run(sql, arguments)
        finally:
            self._at_work = False

    def _alone(self) -> None:
        if self._at_work:
            raise InvalidRequestError(
                "A statement of this session is under way: concurrent operations are not permitted"
            )

    async def _run(self, sql: str, arguments: Sequence[Any]) -> Sequence[Sequence[Any]]:  # Any: as above
        record = self._record
        if record is None:
            record = await self.lane.borrow()
        try:
            wire = wire_of(record)
            if self._record is None:
                await wire.begin()
            for each in self._put_off:
                await wire.fetch(each.sql, each.arguments)
            rows = await wire.fetch(sql, arguments)
        except BaseException as error:  # noqa: BLE001 - as in Lane.fetch
            await self._fail_under_way(record, sql, error)
        self._record, self._put_off = record, ()
        return rows

    async def put_off(
        self, sql: str, arguments: Sequence[Any], table: str, taken: Callable[[], Exception] | None
    ) -> None:  # Any: as above
        """A write whose result nobody waits for: it goes with COMMIT, or before what is asked next."""
        record = self._record
        if record is not None and not self.is_real and not self._changed:
            self._alone()
            self._at_work = True
            try:
                message = await wire_of(record).put_off(sql, arguments)
            except BaseException as error:  # noqa: BLE001 - as in Lane.fetch
                await self._fail_under_way(record, sql, error)
            finally:
                self._at_work = False
            if message is not None:
                self._put_off = [*self._put_off, PutOff(sql, arguments, message, table, taken)]
                return
        await self.run(sql, arguments)

    async def _fail_under_way(self, record: Record, sql: str | None, error: BaseException) -> NoReturn:
        put_off, self._put_off, self._record, self._at_work = self._put_off, (), None, False
        self.lane.let_go()
        try:
            await self.fail(record, sql, error)
        except IntegrityError as failed:
            raise _refusal(put_off, failed) from None

    def _send_through(self, connection: Connection, *_: object) -> None:
        """Through the real Session's connection, within its greenlet."""
        put_off, self._put_off = self._put_off, ()
        adapter: Any = connection.connection.dbapi_connection  # Any: SQLAlchemy's around asyncpg
        for each in put_off:
            try:
                await_only(adapter._connection.fetch(each.sql, *each.arguments))  # noqa: SLF001 - asyncpg's
            except BaseException as error:  # noqa: BLE001 - as in Lane.fetch
                try:
                    self._raise_through(connection, adapter, each.sql, error)
                except IntegrityError as failed:
                    raise _refusal((each,), failed) from None

    def _drop(self, _: Connection) -> None:
        self._put_off = ()

    async def connection(self, *given: Any, **how: Any) -> AsyncConnection:  # Any: as AsyncSession has it
        connection = await super().connection(*given, **how)
        if self._put_off:
            await greenlet_spawn(self._send_through, connection.sync_connection)
        return connection

    async def _run_real(self, sql: str, arguments: Sequence[Any]) -> Sequence[Sequence[Any]]:  # Any: as above
        await self.flush()
        connection: Connection = (await self.connection()).sync_connection  # type: ignore[assignment] # it has one
        adapter: Any = connection.connection.dbapi_connection  # Any: as above
        try:
            if adapter._transaction is None:  # noqa: SLF001 - as above
                await adapter._start_transaction()  # noqa: SLF001 - as above
            rows: Sequence[Sequence[Any]] = await adapter._connection.fetch(sql, *arguments)  # noqa: SLF001 - as above
        except BaseException as error:
            if isinstance(error, GeneratorExit):
                raise
            await greenlet_spawn(self._raise_through, connection, adapter, sql, error)
            raise  # not reached
        return rows

    # Ends

    async def commit(self) -> None:
        if self.last_words:
            await self.say_last_words()
        if self.is_real or self._closed or self._changed or (self._begun and not self.lane.quiet):
            await super().commit()
            return
        if self._record is not None:
            await self._end(commit=True)
        self._begun = False
        if self.afterwards:
            self.go_on()

    async def rollback(self) -> None:
        if self.last_words or self.afterwards:
            self.fall_silent()
        if self.is_real or self._closed or (self._begun and not self.lane.quiet):
            await super().rollback()
            return
        if self._record is not None:
            self._put_off = ()
            await self._end(commit=False)
        if self._begun and (known := self._known) is not None:
            self._stale = True
            for state in known.all_states():
                state._expire(state.dict, known._modified)  # noqa: SLF001 - as Session.rollback() does
        self._begun = False

    async def close(self) -> None:
        if self.is_real:
            await super().close()
            return
        if self._record is not None:
            self._put_off = ()
            try:
                await self._end(commit=False)
            except DBAPIError:
                await super().close()  # of the real Session, which the failure has made
                raise
        self._closed = True
        if self._known is not None:
            self._forget(self._known)

    def end_unused(self) -> bool:
        """Close it, if there is nothing to commit or to wait for."""
        if self.is_real or self._record is not None or self._changed or self.last_words or self.afterwards:
            return False
        self._closed = True
        if self._waiting is not None:
            instance_state(self._waiting).session_id = None  # as Session.close() does
            self._waiting = None
        if self._identities is not None:
            self._forget(self._identities)
        return True

    def _forget(self, known: IdentityMap) -> None:
        for state in known.all_states():
            state._detach()  # noqa: SLF001 - as Session.close() does
        known._kill()  # noqa: SLF001 - as above
        self._identities = None

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_real or self._record is not None:
            await super().__aexit__(type_, value, traceback)
        else:
            await self.close()

    async def _end(self, *, commit: bool) -> None:
        """Of a transaction that was begun without the real Session."""
        self._alone()
        record = self._record
        assert record is not None
        sql = "; ".join(each.sql for each in self._put_off)
        self._at_work = True
        try:
            if commit:
                await wire_of(record).commit([each.message for each in self._put_off])
            else:
                adapter: Any = record.dbapi_connection  # Any: SQLAlchemy's around asyncpg
                await adapter._call_and_discard(adapter._transaction.rollback)  # noqa: SLF001 - its rollback(), without a greenlet
        except BaseException as error:  # noqa: BLE001 - as in Lane.fetch
            await self._fail_under_way(record, sql or None, error)
        finally:
            self._at_work = False
        self._record, self._put_off = None, ()
        await self.lane.give_back(record)

    # Failing

    async def fail(self, record: Record, sql: str | None, error: BaseException) -> NoReturn:
        """Raise what the ordinary path raises, and leave session, connection and pool as it leaves them."""
        if isinstance(error, GeneratorExit):
            # Nobody waits any more, and nothing can be waited for.
            record.invalidate(error)
            record.checkin(_fairy_was_created=False)
            raise error
        await greenlet_spawn(self._fail, record, sql, error)
        raise error  # not reached

    def _fail(self, record: Record, sql: str | None, error: BaseException) -> None:
        self._raise_through(self._join(record), record.dbapi_connection, sql, error)

    def _raise_through(
        self, connection: Connection, adapter: Any, sql: str | None, error: BaseException
    ) -> None:  # Any: SQLAlchemy's around the driver's
        raised = error
        if isinstance(error, Exception):
            try:
                adapter._handle_exception(error)  # noqa: SLF001 - the driver's error in DBAPI's words
            except Exception as translated:  # noqa: BLE001 - whatever that is
                raised = translated
        said = sql if isinstance(raised, self.lane.dialect.loaded_dbapi.Error) else None
        try:
            raise raised  # noqa: TRY301 - it asks for the error that is being handled
        except BaseException as handled:  # noqa: BLE001 - a cancelled statement too makes a connection unfit
            connection._handle_dbapi_exception(handled, said, None, None, None)  # noqa: SLF001 - as its execute() does


class _Lent:
    """What a Session takes for an engine when it asks for a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connect(self) -> Connection:
        return self._connection


def _refusal(put_off: Sequence[PutOff], failed: IntegrityError) -> Exception:
    for each in put_off:
        if each.taken is not None and is_taken(failed, each.table):
            return each.taken()
    return failed


def is_taken(failed: IntegrityError, table: str) -> bool:
    """Whether a row of that table with such a key is there already."""
    driver = getattr(failed.orig, "__cause__", None) or failed.orig
    if getattr(driver, "sqlstate", None) == _UNIQUE_VIOLATION:
        return getattr(driver, "table_name", None) == table
    return getattr(driver, "sqlite_errorname", None) in _UNIQUE_VIOLATIONS and f"failed: {table}." in str(driver)

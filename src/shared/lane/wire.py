"""A PostgreSQL connection on which BEGIN, and writes that return nothing, travel with the statement that comes next.

The server executes what it is sent in that order up to the next Sync, and skips to it after an error. asyncpg sends one
statement and a Sync at a time, and passes over what is answered before it: so whatever was written to its transport
just before goes in the same packet, and costs no round trip of its own.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.transaction import TransactionState
from sqlalchemy.pool.base import _ConnectionRecord

_BEGIN: Final = "BEGIN"
_COMMIT: Final = "COMMIT"
_PLACE: Final = "undercroft.wire"
Rows = Sequence[Sequence[Any]]  # Any: values of columns


def wire_of(record: _ConnectionRecord) -> "Wire":
    """The one of a pooled connection, and gone with it."""
    found: Wire | None = record.info.get(_PLACE)
    if found is None:
        found = record.info[_PLACE] = Wire(record.dbapi_connection)
    return found


class Wire:
    def __init__(self, adapter: Any) -> None:  # Any: SQLAlchemy's around asyncpg
        self._adapter = adapter
        self._connection: Any = adapter._connection  # noqa: SLF001 - asyncpg's # Any: its protocol is in C
        self._protocol = self._connection._protocol  # noqa: SLF001 - where its own statements are sent
        self._transport = self._connection._transport  # noqa: SLF001 - as above
        self._known: dict[str, PreparedStatement[Any]] = {}  # Any: of any record class
        self._encoders: dict[str, list[Encoder] | None] = {}
        self._ahead: list[bytes] = []
        self._busy = False

    async def begin(self) -> None:
        """A transaction, with the statement that comes next."""
        adapter = self._adapter
        if adapter.isolation_level is not None or adapter.readonly or adapter.deferrable:
            await adapter._start_transaction()  # noqa: SLF001 - as its execute() does
            return
        if _BEGIN not in self._known:
            await self._prepare(_BEGIN)
        transaction = self._connection.transaction()
        transaction._state = TransactionState.STARTED  # noqa: SLF001 - as its start() leaves it
        self._connection._top_xact = adapter._transaction = transaction  # noqa: SLF001 - as above
        self._ahead.append(_message(self._known[_BEGIN], ()))

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> Rows:  # Any: values of columns
        statement = self._known.get(sql) or await self._prepare(sql)
        protocol = self._protocol
        self._connection._check_open()  # noqa: SLF001 - as its fetch() does
        if self._busy:
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        ahead = self._ahead
        self._busy = True
        try:
            if ahead:
                await protocol._wait_for_cancellation()  # noqa: SLF001 - of the last statement: it must not hit what goes ahead
                self._transport.write(b"".join(ahead))
                ahead.clear()
            rows: Rows = await protocol.bind_execute(statement._state, arguments, "", 0, False, None)  # noqa: FBT003, SLF001 - as PreparedStatement.fetch() does
        except Exception as error:
            await self._recover(error, sql)
            raise
        finally:
            self._busy = False
        return rows

    async def _recover(self, error: Exception, sql: str) -> None:
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            self._known.pop(sql, None)  # a table was altered
        transaction = self._adapter._transaction  # noqa: SLF001 - as above
        if transaction is not None and not self._connection.is_closed() and not self._protocol.is_in_transaction():
            # The arguments were refused on our side, so nothing followed what went ahead. This ends it.
            await self._connection.execute("")

    async def put_off(self, sql: str, arguments: Sequence[Any]) -> bytes | None:  # Any: as above
        """The statement as it can go ahead of COMMIT. None for one that returns rows, or whose arguments are not plainly
        of its types: that is to be fetched."""
        statement = self._known.get(sql) or await self._prepare(sql)
        encoders = self._encoders[sql]
        if encoders is None:
            return None
        try:
            return _message(statement, [encode(value) for encode, value in zip(encoders, arguments, strict=True)])
        except (TypeError, ValueError, OverflowError):
            return None

    async def commit(self, ahead: Sequence[bytes]) -> None:
        """What was put off, and COMMIT."""
        adapter, connection = self._adapter, self._connection
        transaction = adapter._transaction  # noqa: SLF001 - as above
        if not ahead:
            await adapter._call_and_discard(transaction.commit)  # noqa: SLF001 - its commit(), without a greenlet
            return
        if _COMMIT not in self._known:
            await self._prepare(_COMMIT)
        connection._top_xact = None  # noqa: SLF001 - as Transaction.commit() does, and the next lines too
        adapter._transaction = None  # noqa: SLF001 - as above
        self._ahead.extend(ahead)
        try:
            await self.fetch(_COMMIT, ())
        except BaseException:
            transaction._state = TransactionState.FAILED  # noqa: SLF001 - as above
            raise
        transaction._state = TransactionState.COMMITTED  # noqa: SLF001 - as above

    async def _prepare(self, sql: str) -> "PreparedStatement[Any]":  # Any: of any record class
        statement = self._known[sql] = await self._connection.prepare(sql)
        types = [_ENCODERS.get(each.name) for each in statement.get_parameters()]
        returns = bool(statement.get_attributes())
        self._encoders[sql] = None if returns or None in types else [each for each in types if each is not None]
        return statement


# Arguments in PostgreSQL's binary format, of which only one reading is possible.

Encoder = Callable[[Any], bytes | None]  # Any: an argument
_ALL_BINARY: Final = (1).to_bytes(2)


def _message(statement: "PreparedStatement[Any]", values: Sequence[bytes | None]) -> bytes:  # Any: of any record class
    """Bind and Execute (PostgreSQL, "Message Formats")."""
    parts = [
        b"\0%b\0" % statement.get_name().encode(),
        (1).to_bytes(2),
        _ALL_BINARY,
        len(values).to_bytes(2),
    ]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (len(value).to_bytes(4), value)
    parts.append(b"\0\0")
    bind = b"".join(parts)
    return b"B%b%bE\0\0\0\x09\0\0\0\0\0" % ((len(bind) + 4).to_bytes(4), bind)


_NULL: Final = (-1).to_bytes(4, signed=True)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _exactly(kind: type[Any], write: Callable[[Any], bytes]) -> Encoder:  # Any: values of that type
    def encode(value: Any) -> bytes | None:  # Any: an argument
        if value is None:
            return None
        if type(value) is not kind:
            raise TypeError
        return write(value)

    return encode


def _identifier(value: Any) -> bytes | None:  # Any: as above
    if value is None:
        return None
    if not isinstance(value, UUID):  # asyncpg reads a subclass of its own
        raise TypeError
    return value.bytes


def _integer(size: int) -> Encoder:
    return _exactly(int, lambda value: value.to_bytes(size, signed=True))


def _moment(value: datetime) -> bytes:
    return ((value - _EPOCH) // _MICROSECOND).to_bytes(8, signed=True)  # a naive one is a TypeError


def _many(element: int, encode: Encoder) -> Encoder:
    """An array of one dimension."""
    head = element.to_bytes(4)

    def write(values: list[Any]) -> bytes:  # Any: arguments
        if not values:
            return bytes(8) + head
        encoded = [encode(value) for value in values]
        nulls = None in encoded
        parts = [(1).to_bytes(4), nulls.to_bytes(4), head, len(values).to_bytes(4), (1).to_bytes(4)]
        for value in encoded:
            parts += (_NULL,) if value is None else (len(value).to_bytes(4), value)
        return b"".join(parts)

    return _exactly(list, write)


_PLAIN: Final[dict[str, tuple[int, Encoder]]] = {  # by name, with the number that PostgreSQL has given each for good
    "bool": (16, _exactly(bool, lambda value: value.to_bytes(1))),
    "bytea": (17, _exactly(bytes, bytes)),
    "int8": (20, _integer(8)),
    "int2": (21, _integer(2)),
    "int4": (23, _integer(4)),
    "text": (25, _exactly(str, str.encode)),
    "varchar": (1043, _exactly(str, str.encode)),
    "timestamptz": (1184, _exactly(datetime, _moment)),
    "uuid": (2950, _identifier),
}
_ENCODERS: Final[dict[str, Encoder]] = {name: encode for name, (_, encode) in _PLAIN.items()} | {
    f"{name}[]": _many(number, encode) for name, (number, encode) in _PLAIN.items()
}

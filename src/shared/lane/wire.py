"""A PostgreSQL connection on which BEGIN, and writes that return nothing, travel with the statement that comes next.

The server executes what it is sent in that order up to the next Sync, and skips to it after an error. asyncpg sends one
statement and a Sync at a time, and passes over what is answered before it: so whatever was written to its transport
just before goes in the same packet, and costs no round trip of its own.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from struct import Struct, error
from typing import Any, Final
from uuid import UUID

import asyncpg
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
        self._known: dict[str, Any] = {}  # Any: asyncpg's prepared statements, with what they keep for themselves
        self._letters: dict[str, tuple[bytes, list[Encoder]] | None] = {}
        self._ahead: list[bytes] = []
        self._busy = False
        self._begins = False
        """BEGIN waits among what goes ahead."""

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
        self._ahead.append(_message(_head(self._known[_BEGIN], 0), ()))
        self._begins = True

    async def fetch(self, sql: str, arguments: Sequence[Any]) -> Rows:  # Any: values of columns
        if self._busy:
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
        connection, protocol, ahead = self._connection, self._protocol, self._ahead
        self._busy = True
        try:
            statement = self._known.get(sql) or await self._prepare(sql)
            connection._check_open()  # noqa: SLF001 - as its fetch() does
            if ahead:
                await protocol._wait_for_cancellation()  # noqa: SLF001 - of the last statement: it must not hit what goes ahead
                self._transport.write(b"".join(ahead))
                self._begins = False
            rows: Rows = await protocol.bind_execute(statement._state, arguments, "", 0, False, None)  # noqa: FBT003, SLF001 - as PreparedStatement.fetch() does
        except Exception as error:
            await self._recover(error)
            raise
        finally:
            ahead.clear()
            self._busy = False
            if self._begins:
                # It was never sent: the statement could not even be prepared.
                self._begins = False
                connection._top_xact = self._adapter._transaction = None  # noqa: SLF001 - as in begin()
        return rows

    async def _recover(self, error: Exception) -> None:
        if isinstance(error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
            self._known.clear()  # a table was altered
        if isinstance(error, asyncpg.OutdatedSchemaCacheError):
            await self._connection.reload_schema_state()
        transaction = self._adapter._transaction  # noqa: SLF001 - as above
        begun = transaction is not None and not self._begins
        if begun and not self._connection.is_closed() and not self._protocol.is_in_transaction():
            # The arguments were refused on our side, so nothing followed what went ahead. This ends it.
            await self._connection.execute("")

    async def put_off(self, sql: str, arguments: Sequence[Any]) -> bytes | None:  # Any: as above
        """The statement as it can go ahead of COMMIT. None for one that returns rows, or whose arguments are not plainly
        of its types: that is to be fetched."""
        if sql not in self._known:
            await self._prepare(sql)
        letter = self._letters[sql]
        if letter is None:
            return None
        head, encoders = letter
        try:
            return _message(head, [encode(value) for encode, value in zip(encoders, arguments, strict=True)])
        except (TypeError, ValueError, error):  # error: an integer beyond its column
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
        self._ahead.extend(ahead)
        try:
            await self.fetch(_COMMIT, ())
        finally:
            # What went ahead may have been refused: then the server never came to COMMIT, and there is a transaction to end.
            if not self._protocol.is_in_transaction():
                connection._top_xact = adapter._transaction = None  # noqa: SLF001 - as Transaction.commit() does
                transaction._state = TransactionState.COMMITTED  # noqa: SLF001 - as above

    async def _prepare(self, sql: str) -> Any:  # Any: as above
        statement = self._known[sql] = await self._connection.prepare(sql)
        encoders = [_ENCODERS.get(each.name) for each in statement.get_parameters()]
        known = [each for each in encoders if each is not None]
        plain = len(known) == len(encoders) and not statement.get_attributes()
        self._letters[sql] = (_head(statement, len(known)), known) if plain else None
        return statement


# Arguments in PostgreSQL's binary format, of which only one reading is possible, each behind its length.

Encoder = Callable[[Any], bytes]  # Any: an argument
_EXECUTE: Final = b"E\0\0\0\x09\0\0\0\0\0"
_NULL: Final = (-1).to_bytes(4, signed=True)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SECONDS_A_DAY: Final = 86_400
_length, _array = Struct("!i").pack, Struct("!iiiii").pack
_int2, _int4, _int8, _bool = (Struct(f"!i{kind}").pack for kind in "hiq?")


def _head(statement: Any, count: int) -> bytes:  # Any: asyncpg's
    """Of a Bind message (PostgreSQL, "Message Formats") behind its length: each argument is in binary."""
    return b"\0%b\0\0\1\0\1%b" % (statement.get_name().encode(), count.to_bytes(2))


def _message(head: bytes, arguments: Sequence[bytes]) -> bytes:
    """Bind, with no wishes as to the format of results, and Execute."""
    body = b"".join((head, *arguments, b"\0\0"))
    return b"".join((b"B", _length(len(body) + 4), body, _EXECUTE))


def _exactly(kind: type[Any], write: Encoder) -> Encoder:  # Any: values of that type
    def encode(value: Any) -> bytes:  # Any: an argument
        if type(value) is kind:
            return write(value)
        if value is None:
            return _NULL
        raise TypeError

    return encode


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def _moment(value: datetime) -> bytes:
    since = value - _EPOCH  # a TypeError for a naive one
    return _int8(8, (since.days * _SECONDS_A_DAY + since.seconds) * 1_000_000 + since.microseconds)


def _identifier(value: Any) -> bytes:  # Any: an argument
    if isinstance(value, UUID):  # asyncpg reads a subclass of its own
        return b"\0\0\0\x10" + value.bytes
    if value is None:
        return _NULL
    raise TypeError


def _many(element: int, encode: Encoder) -> Encoder:
    """An array of one dimension."""

    def write(values: list[Any]) -> bytes:  # Any: arguments
        encoded = [encode(value) for value in values]
        # Dimensions, whether there is a null, the elements' type, how many, and where they begin to count.
        shape = _array(bool(values), _NULL in encoded, element, len(values), 1)[: 20 if values else 12]
        body = b"".join((shape, *encoded))
        return _length(len(body)) + body

    return _exactly(list, write)


_PLAIN: Final[dict[str, tuple[int, Encoder]]] = {  # by name, with the number that PostgreSQL has given each for good
    "bool": (16, _exactly(bool, lambda value: _bool(1, value))),
    "bytea": (17, _exactly(bytes, lambda value: _length(len(value)) + value)),
    "int8": (20, _exactly(int, lambda value: _int8(8, value))),
    "int2": (21, _exactly(int, lambda value: _int2(2, value))),
    "int4": (23, _exactly(int, lambda value: _int4(4, value))),
    "text": (25, _exactly(str, _text)),
    "varchar": (1043, _exactly(str, _text)),
    "timestamptz": (1184, _exactly(datetime, _moment)),
    "uuid": (2950, _identifier),
}
_ENCODERS: Final[dict[str, Encoder]] = {name: encode for name, (_, encode) in _PLAIN.items()} | {
    f"{name}[]": _many(number, encode) for name, (number, encode) in _PLAIN.items()
}

"""Statements built once from SQLAlchemy's own constructs, and run on the session's connection as they are.

    _RESERVE = prepared(update(_products).where(_products.c.id == bindparam("product_id"))….returning(_products.c.sku))
    rows = await fetch_all(session, _RESERVE, product_id=…)

They run in the session's transaction: the one that the session has begun, else one that they begin, which the session
goes on with. Compiled once for each dialect. On SQLite, with the lane off, and for whatever the lane does not
understand, `session.execute` does the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Dialect, Executable, Table, inspect
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import SQLModel

from src.shared.lane.entities import plain_type
from src.shared.lane.session import LaneSession, is_taken
from src.shared.watching import Effect, effect_of

Convert = Callable[[Any], Any]  # Any: a value as Python has it, and as the driver takes it
_NOT_YET: Final = object()


class Prepared:
    """A Core statement whose values come by name; each must be a `bindparam` of it."""

    def __init__(self, statement: Executable, taken: Callable[[], Exception] | None) -> None:
        self.statement = statement
        self.taken = taken
        self.table: str = getattr(getattr(statement, "table", None), "name", "")
        self._plan: Any = _NOT_YET  # Any: or a _Plan, or None

    def plan(self, dialect: Dialect) -> "_Plan | None":
        if self._plan is _NOT_YET:
            self._plan = _understood(self.statement, dialect)
        plan: _Plan | None = self._plan
        # A write to a table that somebody watches goes where it is seen: past SQLAlchemy's events.
        return plan if plan is not None and effect_of(plan.sql) is Effect.NONE else None

    def refusal(self, failed: IntegrityError) -> Exception:
        return self.taken() if self.taken is not None and is_taken(failed, self.table) else failed


class _Plan:
    def __init__(self, compiled: SQLCompiler, dialect: Dialect) -> None:
        self.sql = str(compiled)
        binders: Any = compiled._bind_processors  # noqa: SLF001 - what executing uses # Any: of tuples too, for what is expanding
        binds = {name: compiled.binds[name] for name in compiled.positiontup or ()}
        self._arguments: list[tuple[str, Convert | None]] = [
            (name, None if _passes_lists(binds[name].type, dialect) else binders.get(name))
            for name in compiled.positiontup or ()
        ]
        self._names = {name for name, bind in binds.items() if bind.required}
        self._constants = {name: bind.effective_value for name, bind in binds.items() if not bind.required}
        self._converters = [
            (place, convert)
            for place, column in enumerate(compiled._result_columns)  # noqa: SLF001 - what a result uses
            if (convert := column.type._cached_result_processor(dialect, None)) is not None  # noqa: SLF001 - as above
        ]

    def arguments(self, values: dict[str, Any]) -> list[Any]:  # Any: of columns
        if values.keys() != self._names:
            raise TypeError(f"The statement takes {sorted(self._names)}")
        given = values | self._constants if self._constants else values
        return [given[name] if convert is None else convert(given[name]) for name, convert in self._arguments]

    def rows(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:  # Any: as above
        if not self._converters:
            return [tuple(row) for row in rows]
        made = []
        for row in rows:
            values = list(row)
            for place, convert in self._converters:
                values[place] = convert(values[place])
            made.append(tuple(values))
        return made


def _passes_lists(kind: Any, dialect: Dialect) -> bool:  # Any: a type of any values
    """An array whose elements go to the driver as they are: SQLAlchemy would copy it."""
    if not isinstance(kind, ARRAY) or kind.dimensions is not None:
        return False
    return kind.item_type._cached_bind_processor(dialect) is None  # noqa: SLF001 - as above


def prepared(statement: Executable, *, taken: Callable[[], Exception] | None = None) -> Prepared:
    """`taken` gives what is raised when an INSERT finds a row with a key of its own there already."""
    return Prepared(statement, taken)


async def fetch_all(
    session: AsyncSession, statement: Prepared, **values: Any
) -> Sequence[tuple[Any, ...]]:  # Any: of columns
    """The rows that it returns, if any."""
    found = _quick(session, statement, values)
    try:
        if found is not None:
            lane, plan, arguments = found
            return plan.rows(await lane.run(plan.sql, arguments))
        result: Any = await session.execute(statement.statement, values)  # Any: a CursorResult, of Core statements
    except IntegrityError as failed:
        raise statement.refusal(failed) from None
    return [tuple(row) for row in result] if result.returns_rows else []


async def later(session: AsyncSession, statement: Prepared, **values: Any) -> None:  # Any: as above
    """A write whose rows nobody asks for: it travels with COMMIT, or before whatever the session is asked next, and
    costs no round trip of its own. What the database has against it comes then."""
    found = _quick(session, statement, values)
    try:
        if found is None:
            await session.execute(statement.statement, values)
        else:
            lane, plan, arguments = found
            await lane.put_off(plan.sql, arguments, statement.table, statement.taken)
    except IntegrityError as failed:
        raise statement.refusal(failed) from None


def _quick(
    session: AsyncSession, statement: Prepared, values: dict[str, Any]
) -> tuple[LaneSession, "_Plan", list[Any]] | None:  # Any: as above
    """What it takes to run it past SQLAlchemy, where that can be done."""
    if not (isinstance(session, LaneSession) and session.writes):
        return None
    plan = statement.plan(session.lane.dialect)
    if plan is None:
        return None
    try:
        return session, plan, plan.arguments(values)
    except (TypeError, ValueError, AttributeError, LookupError):
        return None  # of a column's type: the ordinary path raises it with its words


def table_of(entity: type[SQLModel]) -> Table:
    """What Core's constructs take: they build rows, and no instances."""
    table = inspect(entity).local_table
    assert isinstance(table, Table)
    return table


def dialect_of(session: AsyncSession) -> str:
    """ "postgresql" or "sqlite"; asking costs nothing."""
    dialect = session.lane.dialect if isinstance(session, LaneSession) else session.get_bind().dialect
    return dialect.name


def _understood(statement: Executable, dialect: Dialect) -> _Plan | None:
    compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined] # each of ours can # Any: an SQLCompiler
    if not isinstance(compiled, SQLCompiler) or compiled.literal_execute_params or compiled.post_compile_params:
        return None
    if compiled.insert_prefetch or compiled.update_prefetch or compiled.compile_state is None:
        return None  # values that SQLAlchemy would make when it executes
    if not all(plain_type(column.type, dialect) for column in compiled._result_columns):  # noqa: SLF001 - what a result uses
        return None
    return _Plan(compiled, dialect)

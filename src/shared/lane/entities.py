"""Tables whose rows the lane can turn into instances as SQLAlchemy would, and how."""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    Date,
    Dialect,
    Enum,
    Float,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Uuid,
    any_,
    bindparam,
    inspect,
    select,
)
from sqlalchemy import DateTime as SQLDateTime
from sqlalchemy.engine.processors import to_float
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.identity import IdentityMap
from sqlalchemy.types import TypeEngine
from sqlmodel.sql.sqltypes import UTCDateTime

from src.shared.lane.connections import Lane

Convert = Callable[[Any], Any]  # Any: a value as the driver has it, and as SQLAlchemy has it
Key = tuple[type[Any], tuple[Any, ...], None]  # Any: SQLAlchemy's identity key

# Their result processors look at the value only. Others ask which type the server says that it is.
_PLAIN = (String, Integer, Boolean, Uuid, SQLDateTime, Date, Enum, LargeBinary, Float)
_COLUMN_STRATEGY = (("deferred", False), ("instrument", True))
_LAZY = ("select", True, "raise", "raise_on_sql")


class EntityPlan:
    """How rows of one table become instances of its class on one dialect."""

    def __init__(self, mapper: Mapper[Any], dialect: Dialect) -> None:  # Any: of whatever class
        # In the order in which the ORM fills an instance: pydantic writes a model's fields in the order of its `__dict__`.
        properties = [each for each in mapper._prop_set if isinstance(each, ColumnProperty)]  # noqa: SLF001 - what orm/loading.py goes through
        self.mapper = mapper
        self.table = mapper.local_table
        self.columns: list[Column[Any]] = [each.columns[0] for each in properties]  # type: ignore[misc] # plain columns, see plan_for
        self.keys = [each.key for each in properties]
        self.converters = [
            (key, convert)
            for key, column in zip(self.keys, self.columns, strict=True)
            if (convert := result_converter(column, dialect)) is not None
        ]
        self.has_relationships = bool(mapper.relationships)
        self._class = mapper.class_
        self._new_instance = mapper.class_manager.new_instance
        self._load_event = mapper.class_manager.dispatch.load
        self._identity_class = mapper._identity_class  # noqa: SLF001 - first part of its identity keys
        self._load_path = mapper._path_registry  # noqa: SLF001 - what the ORM notes with each instance
        self._primary = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        wanted = [bindparam(None, type_=column.type) for column in mapper.primary_key]
        statement = select(*self.columns).where(
            *(column == value for column, value in zip(mapper.primary_key, wanted, strict=True))
        )
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._arguments = [
            next(place for place, value in enumerate(wanted) if compiled.bind_names[value] == name)
            for name in compiled.positiontup or ()
        ]
        self._binders = [value.type._cached_bind_processor(dialect) for value in wanted]  # noqa: SLF001 - what compiling uses
        self.many_sql = ""
        self.batched: tuple[type[Any], ...] = ()  # Any: as in ByIdentity
        self.place = self.keys.index(self._primary[0])
        kind = mapper.primary_key[0].type.python_type
        plain = kind is UUID or (kind is int and not isinstance(mapper.primary_key[0].type, SmallInteger))
        if dialect.name == "postgresql" and len(wanted) == 1 and plain and self._binders == [None]:
            many = bindparam(None, type_=ARRAY(mapper.primary_key[0].type))
            self.many_sql = str(
                select(*self.columns).where(mapper.primary_key[0] == any_(many)).compile(dialect=dialect)
            )
            self.batched = (kind,)

    @property
    def unheard(self) -> bool:
        """No event waits for a load of such an instance."""
        return not self._load_event

    def identity(self, ident: Any) -> Key | None:  # Any: as Session.get() takes it
        """Its identity key, when it is given plainly."""
        if type(ident) in (tuple, list):
            values = tuple(ident)
        elif type(ident) is dict:
            return None
        else:
            values = (ident,)
        if len(values) != len(self._primary) or None in values:
            return None
        return self._identity_class, values, None

    def arguments(self, key: Key) -> list[Any]:  # Any: values of columns
        bound = [value if bind is None else bind(value) for value, bind in zip(key[1], self._binders, strict=True)]
        return [bound[place] for place in self._arguments]

    def load(self, row: Sequence[Any], known: IdentityMap, session_id: int) -> object:  # Any: as above
        """The row as a persistent instance; one that is known wins, as it does in a session."""
        values = dict(zip(self.keys, row, strict=False))
        for name, convert in self.converters:
            values[name] = convert(values[name])
        key = self._identity_class, tuple([values[name] for name in self._primary]), None
        instance = known.get(key)
        if instance is None:
            instance = self._new_instance()
            state = instance_state(instance)
            state.dict.update(values)
            state.key = key
            state.load_path = self._load_path
            state.session_id = session_id
            known._add_unpresent(state, key)  # noqa: SLF001 - as orm/loading.py does
        return instance


def plan_for(lane: Lane, entity: Any) -> EntityPlan | None:  # Any: whatever Session.get() is asked for
    """None for what is not a plain class on a plain table."""
    try:
        plan: EntityPlan | None = lane.plans[entity]
    except KeyError:
        plan = lane.plans[entity] = _plan(lane.dialect, entity)
    except TypeError:  # not hashable
        return None
    return plan if plan is not None and plan.unheard else None


def _plan(dialect: Dialect, entity: Any) -> EntityPlan | None:  # Any: as above
    try:
        mapper = inspect(entity)
    except NoInspectionAvailable:
        return None
    if not isinstance(mapper, Mapper) or not isinstance(entity, type) or not _plain(mapper, dialect):
        return None
    return EntityPlan(mapper, dialect)


def _plain(mapper: Mapper[Any], dialect: Dialect) -> bool:  # Any: as above
    return (
        mapper.inherits is None
        and mapper.polymorphic_on is None
        and len(list(mapper.self_and_descendants)) == 1
        and isinstance(mapper.local_table, Table)
        and mapper.persist_selectable is mapper.local_table
        and not mapper.always_refresh
        and mapper.with_polymorphic is None
        and all(_plain_property(each, mapper.local_table, dialect) for each in mapper.attrs)
    )


def _plain_property(each: object, table: Table, dialect: Dialect) -> bool:
    if isinstance(each, RelationshipProperty):
        return each.lazy in _LAZY
    return (
        isinstance(each, ColumnProperty)
        and len(each.columns) == 1
        and isinstance(column := each.columns[0], Column)
        and column.table is table
        and each.strategy_key == _COLUMN_STRATEGY
        and plain_type(column.type, dialect)
    )


def plain_type(kind: TypeEngine[Any], dialect: Dialect) -> bool:  # Any: as above
    """Its values are made from the driver's without regard to what the server calls them."""
    inner = kind._unwrapped_dialect_impl(dialect)  # noqa: SLF001 - what a TypeDecorator stands on
    return (
        isinstance(inner, _PLAIN)
        and not kind._has_column_expression  # noqa: SLF001 - SQL of its own around the column
        and not kind._has_bind_expression  # noqa: SLF001 - as above
        and not (isinstance(inner, Float) and inner.asdecimal)
    )


def result_converter(column: Column[Any], dialect: Dialect) -> Convert | None:  # Any: as above
    """What SQLAlchemy does with a value of this column that the driver gave it."""
    if isinstance(column.type, Float):
        as_float: Convert = to_float
        return as_float
    convert: Convert | None = column.type._cached_result_processor(dialect, None)  # noqa: SLF001 - what a result uses
    if type(column.type) is UTCDateTime and convert is not None and dialect.name == "postgresql":
        # asyncpg gives UTC; the type would turn UTC into UTC.
        given: Convert = convert
        return lambda moment: moment if moment is None or moment.tzinfo is UTC else given(moment)
    return convert

"""Rows to the bytes of a page's items."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from pydantic_core import SchemaSerializer, core_schema
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Dialect,
    Float,
    Integer,
    SmallInteger,
    String,
    Text,
    Uuid,
    case,
    cast,
    func,
    literal_column,
)
from sqlalchemy import DateTime as SQLDateTime
from sqlalchemy import Enum as SQLEnum
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

from src.config import get_settings
from src.shared.lane.entities import EntityPlan, result_converter
from src.shared.lane.letters import PageWriter, ShownField
from src.shared.types import to_local

Convert = Callable[[Any], Any]  # Any: a value as the driver has it, and as JSON shows it


class RowWriter:
    """How rows of one table become the items of a page, on one dialect and in one presentation zone."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.expressions: list[Any] = []  # Any: SQL of several types
        self._texts: list[str] = []
        """Moments that come as text."""
        self._converters: list[tuple[str, Convert]] = []
        self._fields: dict[str, Any] = {}  # Any: pydantic's schemas

    def add(self, field: ShownField, column: Column[Any], dialect: Dialect) -> None:  # Any: a column of any type
        expression, convert, schema = _way(field, column, dialect)
        self.names.append(field.name)
        self.expressions.append(expression)
        if convert is _iso:
            self._texts.append(field.name)
        elif convert is not None:
            self._converters.append((field.name, convert))
        self._fields[field.name] = core_schema.typed_dict_field(
            core_schema.nullable_schema(schema) if field.optional else schema
        )

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return SchemaSerializer(core_schema.list_schema(core_schema.typed_dict_schema(self._fields)))

    def items(self, rows: Sequence[Sequence[Any]]) -> bytes:  # Any: values of columns
        """Raises when a value is not what the model says: the ordinary path then speaks."""
        names = self.names
        letters = [dict(zip(names, row, strict=False)) for row in rows]
        for name in self._texts:
            for letter in letters:
                text = letter[name]
                if text is None or len(text) != _MOMENT_LENGTH or text.endswith(_NO_FRACTION):
                    letter[name] = _iso(text)
        for name, convert in self._converters:
            for letter in letters:
                letter[name] = convert(letter[name])
        return self._serializer.to_json(letters, warnings="error")


def row_writer(writer: PageWriter, entity: EntityPlan, dialect: Dialect) -> RowWriter | None:
    if writer.is_table and writer.item is not entity.mapper.class_:
        return None
    columns = dict(zip(entity.keys, entity.columns, strict=True))
    rows = RowWriter()
    fields = writer.fields
    if writer.is_table:  # an instance is written in the order in which it was filled
        fields = tuple(sorted(fields, key=lambda field: entity.keys.index(field.name) if field.name in columns else -1))
    for field in fields:
        column = columns.get(field.name)
        if column is None or not _shows(field, column) or (column.nullable and not field.optional):
            return None
        rows.add(field, column, dialect)
    return rows


_COLUMNS: Final[dict[str, tuple[type[Any], ...]]] = {  # Any: SQLAlchemy's types are generic
    "str": (String, AutoString, Text),
    "int": (Integer, BigInteger, SmallInteger),
    "bool": (Boolean,),
    "float": (Float,),
    "uuid": (Uuid,),
    "datetime": (UTCDateTime, SQLDateTime),
    "local": (UTCDateTime,),
    "date": (Date,),
    "enum": (SQLEnum,),
}


def _shows(field: ShownField, column: Column[Any]) -> bool:  # Any: as above
    """The column's values are of the field's type, so that nothing is coerced."""
    kind = column.type
    return (
        type(kind) in _COLUMNS[field.kind]
        and (not isinstance(kind, SQLEnum) or kind.enum_class is field.enum)
        and (not isinstance(kind, Uuid) or kind.as_uuid)
    )


def _way(
    field: ShownField, column: Column[Any], dialect: Dialect
) -> tuple[Any, Convert | None, Any]:  # Any: SQL; pydantic's schema
    """What to select, what to do with each value, and how to write it."""
    convert = result_converter(column, dialect)
    way: tuple[Any, Convert | None, Any]  # Any: as above
    match field.kind:
        case "enum":
            way = column, _enum_values(column.type, optional=field.optional), core_schema.any_schema()
        case "uuid" if dialect.name == "postgresql":
            way = cast(column, Text), None, core_schema.str_schema()
        case "local" if get_settings().app.timezone != 0:
            way = column, _in_zone(convert), core_schema.datetime_schema()
        case "local" | "datetime" if dialect.name == "postgresql" and isinstance(column.type, UTCDateTime):
            way = _moment(column), _iso, core_schema.str_schema()
        case "local":
            way = column, convert, core_schema.datetime_schema()
        case kind:
            way = column, convert, {"type": kind}
    return way


def _enum_values(kind: Any, *, optional: bool) -> Convert:  # Any: an Enum type
    values = {stored: member.value for stored, member in kind._object_lookup.items() if stored is not None}  # noqa: SLF001 - what its result processor looks into
    if optional:
        values[None] = None
    return values.__getitem__


def _in_zone(convert: Convert | None) -> Convert:
    def shown(value: Any) -> Any:  # Any: a moment as the driver has it, or None
        moment = value if convert is None else convert(value)
        return None if moment is None else to_local(moment)

    return shown


def _moment(column: Column[Any]) -> Any:  # Any: as above
    # PostgreSQL writes a moment in a tenth of the time that it takes to make a datetime of it here and to write that.
    # What Python has no datetime for comes as it is, and is refused by `_iso`.
    text = func.to_char(func.timezone(literal_column("'UTC'"), column), literal_column(_ISO_8601))
    known = column.between(literal_column("'0001-01-01Z'::timestamptz"), literal_column("'10000-01-01Z'::timestamptz"))
    return case((known, text), else_=cast(column, Text))


_ISO_8601: Final = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
_MOMENT_LENGTH: Final = len("2026-01-31T23:59:59.123456Z")
_NO_FRACTION: Final = ".000000Z"


def _iso(text: str | None) -> str | None:
    """As pydantic writes it: without a fraction that is zero."""
    if text is None:
        return None
    if len(text) != _MOMENT_LENGTH:
        raise ValueError("Not a moment that Python knows")
    return text.removesuffix(_NO_FRACTION) + "Z" if text.endswith(_NO_FRACTION) else text

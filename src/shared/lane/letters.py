"""Response models that only show columns: those whose pages can be written from rows."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, get_args, get_origin

from fastapi_pagination import Page
from pydantic import BaseModel

from src.shared.types import to_local


class PageJson(bytes):
    """The JSON of a page, as FastAPI would write it from the `Page`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ShownField:
    name: str
    kind: str
    """What pydantic's schema calls it; `local` for a LocalDatetime."""
    optional: bool
    enum: type[Enum] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PageWriter:
    """What a response model shows of each row."""

    page: Any  # Any: a parametrised Page
    item: type[BaseModel]
    fields: tuple[ShownField, ...]
    is_table: bool
    """The item is a table's own class: its instances are shown as they are. A letter is made from one, and may refuse."""


class _More(Exception):  # noqa: N818 - not an error: the ordinary path writes it
    """The model does more than show columns."""


def page_writer(response_model: Any) -> PageWriter | None:  # Any: whatever a route has
    """None for a model whose items are more than columns by their names: validators, aliases, constraints, computed
    fields, serialisers of one's own, nested models, another kind of page.

    For routes that send the model whole: no `response_model_exclude` and its like, no `by_alias` of its own.
    """
    if not (isinstance(response_model, type) and issubclass(response_model, Page)):
        return None
    if response_model.__pydantic_generic_metadata__["origin"] is not Page:
        return None
    annotation = response_model.model_fields["items"].annotation
    item = get_args(annotation)[0] if get_origin(annotation) is not None else None
    if list(response_model.model_fields) != _PAGE_FIELDS or not (
        isinstance(item, type) and issubclass(item, BaseModel)
    ):
        return None
    is_table = hasattr(item, "__table__")
    try:
        return PageWriter(response_model, item, _fields(item, is_table=is_table), is_table)
    except _More:
        return None


# What a model may say without changing a byte of what it writes: all else is more.
_PAGE_FIELDS: Final = ["items", "total", "page", "size", "pages"]
_CONFIG: Final = {"from_attributes", "title", "read_from_attributes", "read_with_orm_mode", "table", "registry"}
_CONFIG_OF_CLASS: Final = {"json_schema_serialization_defaults_required", "orm_mode", "arbitrary_types_allowed"}
_MODEL: Final = {"type", "cls", "schema", "config", "metadata", "ref", "custom_init", "root_model"}
_MODEL_FIELDS: Final = {"type", "fields", "model_name", "computed_fields"}
_MODEL_FIELD: Final = {"type", "schema", "metadata", "serialization_exclude"}
_DEFAULT: Final = {"type", "schema", "default", "default_factory", "default_factory_takes_data", "metadata"}
_NULLABLE: Final = {"type", "schema", "metadata"}
_SILENT: Final = {"type", "metadata", "ref"}
_BOUNDS: Final = {"max_length", "min_length", "ge", "le", "gt", "lt"}
_OF_KIND: Final[dict[str, set[str]]] = {
    "str": set(),
    "int": set(),
    "bool": set(),
    "float": set(),
    "uuid": set(),
    "date": {"microseconds_precision"},
    "datetime": {"microseconds_precision", "serialization"},
    "enum": {"cls", "members", "sub_type"},
}
_LOCAL: Final = {
    "type": "function-plain",
    "function": to_local,
    "info_arg": False,
    "return_schema": {"type": "datetime", "microseconds_precision": "truncate"},
    "when_used": "json-unless-none",
}


def _only(said: Any, allowed: set[str]) -> None:  # Any: a dict of pydantic's
    if set(said) - allowed:
        raise _More


def _fields(item: type[BaseModel], *, is_table: bool) -> tuple[ShownField, ...]:
    model: Any = item.__pydantic_core_schema__  # Any: pydantic's core schema, a dict of dicts
    if model["type"] == "definitions":
        model = model["schema"]
    if model["type"] != "model" or model["root_model"] or (model["custom_init"] and not is_table):
        raise _More
    _only(model, _MODEL)
    _only(model["config"], _CONFIG)
    _only(item.model_config, _CONFIG | _CONFIG_OF_CLASS)
    inner = model["schema"]
    if inner["type"] != "model-fields" or inner.get("computed_fields"):
        raise _More
    _only(inner, _MODEL_FIELDS)
    shown = []
    for name, field in inner["fields"].items():
        _only(field, _MODEL_FIELD)
        if not field.get("serialization_exclude"):
            shown.append(_field(name, field["schema"], is_table=is_table))
        elif not is_table:
            raise _More  # it is read all the same, and may be refused
    return tuple(shown)


def _field(name: str, schema: Any, *, is_table: bool) -> ShownField:  # Any: as above
    optional = False
    while schema["type"] in ("default", "nullable"):
        _only(schema, _NULLABLE if schema["type"] == "nullable" else _DEFAULT)
        optional = optional or schema["type"] == "nullable"
        schema = schema["schema"]
    kind = schema["type"]
    if kind not in _OF_KIND or (kind == "enum" and schema.get("sub_type") not in ("str", "int")):
        raise _More
    # Rows of a table are not judged by its class; a letter that may refuse a value is made the ordinary way.
    _only(schema, _SILENT | _OF_KIND[kind] | (_BOUNDS if is_table else set()))
    if "serialization" in schema:
        if schema["serialization"] != _LOCAL:
            raise _More
        kind = "local"
    return ShownField(name, kind, optional, schema.get("cls") if kind == "enum" else None)

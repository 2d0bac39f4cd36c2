"""Query parameters that no part of a route knows, or that come twice, are refused: a typo in a filter must not show
the whole list, and two readers of one URL must not read two different values."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from urllib.parse import parse_qsl

from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies.models import Dependant, _unwrapped_call
from fastapi.dependencies.utils import _get_flat_fields_from_params
from fastapi.exceptions import RequestValidationError

Check = Callable[[bytes], None]
"""Takes a query that is not empty."""
Pairs = tuple[tuple[str, str], ...]
LONGEST_KEPT = 256


def query_check(dependant: Dependant) -> Check | None:
    """None for a route that reads the query by itself, from the request."""
    if dependant.request_param_name or dependant.http_connection_param_name or _reads_query(dependant):
        return None
    declared = list(_declared(dependant))
    if any(_takes_anything(field) for field in declared):
        return None
    fields = _get_flat_fields_from_params(declared)
    known = frozenset(name for field in fields for name in (field.alias, field.validation_alias) if name)
    repeatable = frozenset(field.alias for field in fields if field_annotation_is_sequence(field.field_info.annotation))

    def check(query: bytes) -> None:
        given = Counter(name for name, _ in parsed_query(query))
        errors = [
            _error(name, "extra_forbidden", "Extra inputs are not permitted") for name in given if name not in known
        ]
        errors += [
            _error(name, "repeated", "Give this once")
            for name, count in given.items()
            if count > 1 and name in known and name not in repeatable
        ]
        if errors:
            raise RequestValidationError(errors)

    return check


def parsed_query(query: bytes) -> Pairs:
    """As Starlette reads it. Short ones are the same again and again."""
    return _parsed_once(query) if len(query) <= LONGEST_KEPT else _parsed(query)


def _parsed(query: bytes) -> Pairs:
    return tuple(parse_qsl(query.decode("latin-1"), keep_blank_values=True))


_parsed_once = lru_cache(maxsize=1024)(_parsed)


def _declared(dependant: Dependant) -> Iterator[ModelField]:
    yield from dependant.query_params
    for sub in dependant.dependencies:
        yield from _declared(sub)


def _reads_query(dependant: Dependant) -> bool:
    """Whether a dependency does: one that names `query_params`, or a security scheme of FastAPI's with its key there."""
    call = _unwrapped_call(dependant.call)
    function = call if inspect.isroutine(call) else inspect.getattr_static(type(call), "__call__", None)
    code = getattr(function, "__code__", None)
    return (code is not None and "query_params" in code.co_names) or any(map(_reads_query, dependant.dependencies))


def _takes_anything(field: ModelField) -> bool:
    config = getattr(field.field_info.annotation, "model_config", {})
    return config.get("extra") == "allow"


def _error(name: str, kind: str, message: str) -> dict[str, object]:
    return {"loc": ("query", name), "type": kind, "msg": message}

"""What the docs say, made true: enveloped schemas, real statuses, and each error code that a route can answer with."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import FunctionType
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from src.http.envelope import install_envelope, is_unwrapped
from src.shared.errors import ErrorCode, explain, http_status

Schema = dict[str, Any]  # Any: JSON

_NULL: Schema = {"type": "null"}
_ANY_ROUTE = (
    ErrorCode.HOST_NOT_ALLOWED,
    ErrorCode.HEADERS_TOO_LARGE,
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.SERVICE_UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED,
)


def install_openapi(app: FastAPI) -> None:
    app.openapi = functools.partial(_openapi, app)  # type: ignore[method-assign] # the hook that FastAPI documents


def operation_id(route: APIRoute) -> str:
    """`orders_place_order`: stable, readable, and a good method name in a generated client."""
    return "_".join([*(str(tag) for tag in route.tags[:1]), route.name]).replace("-", "_").replace(" ", "_")


def _openapi(app: FastAPI) -> Schema:
    if app.openapi_schema is None:
        install_envelope(app)
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=app.servers,
            tags=app.openapi_tags,
        )
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        for route in iter_route_contexts(app.routes):
            if isinstance(route.original_route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    operation = schema["paths"][route.path_format][method.lower()]
                    _tell_the_truth(operation, route, components)
        for replaced in ("HTTPValidationError", "ValidationError"):
            components.pop(replaced, None)
        components.update(_COMPONENTS)
        app.openapi_schema = schema
    return app.openapi_schema


def _tell_the_truth(
    operation: Schema, route: Any, components: Schema
) -> None:  # Any: a RouteContext forwards attributes
    responses = operation["responses"]
    takes_input = responses.pop("422", None) is not None
    if not is_unwrapped(route.endpoint):
        _tell_of_no_data(responses, route.endpoint)
        for status, response in responses.items():
            if _is_success(status):
                _wrap(response, int(status), operation["operationId"], components)
    codes = set(_ANY_ROUTE) | error_codes(route)
    _tell_what_can_be_sent(operation, codes)
    if takes_input:
        codes.add(ErrorCode.INVALID_REQUEST)
    if "requestBody" in operation:
        codes.add(ErrorCode.BODY_TOO_LARGE)
    by_status: dict[int, list[ErrorCode]] = {}
    for code in sorted(codes):
        by_status.setdefault(http_status(code), []).append(code)
    for status, raised in by_status.items():
        responses[str(status)] = _with_own(responses.get(str(status), {}), _error(raised))
    operation["responses"] = dict(sorted(responses.items()))


def _is_success(status: str) -> bool:
    return status.isdigit() and int(status) < HTTPStatus.MULTIPLE_CHOICES


def _tell_of_no_data(responses: Schema, endpoint: Callable[..., Any]) -> None:
    """`-> None` is null; and `-> X | None` is X where another success of the route stands for the None."""
    empty = [status for status, response in responses.items() if _is_success(status) and "content" not in response]
    for response in responses.values():
        json = response.get("content", {}).get("application/json", {})
        schema = json.get("schema")
        if schema is None:
            continue
        if not schema.keys() - {"title"} and inspect.signature(endpoint).return_annotation in (None, "None"):
            json["schema"] = _NULL
        elif empty:
            json["schema"] = _without_null(schema)


def _tell_what_can_be_sent(operation: Schema, codes: set[ErrorCode]) -> None:
    """Parameters are there or not, never null; header names are written as people write them."""
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
        if parameter["in"] == "header":
            parameter["name"] = parameter["name"].title()
            if parameter["name"] == "Idempotency-Key" and ErrorCode.IDEMPOTENCY_KEY_REQUIRED in codes:
                parameter["required"] = True


def _without_null(schema: Schema) -> Schema:
    kinds: list[Schema] = [kind for kind in schema.get("anyOf", ()) if kind != _NULL]
    if len(kinds) != 1:
        return schema
    # A title beside a reference would make a second type of it in generated clients.
    beside = {"anyOf", "title"} if "$ref" in kinds[0] else {"anyOf"}
    return {key: value for key, value in schema.items() if key not in beside} | kinds[0]


def _with_own(own: Schema, error: Schema) -> Schema:
    """An error answer of the route's own beside those that the error codes stand for."""
    json = own.get("content", {}).get("application/json")
    if json is None:
        return error | own
    error["description"] = f"{own['description']}\n{error['description']}"
    coded = error["content"]["application/json"]
    coded["schema"] = {"anyOf": [json["schema"], coded["schema"]]}
    return error


def _wrap(response: Schema, status: int, operation_id_: str, components: Schema) -> None:
    if status == HTTPStatus.NO_CONTENT or not response.setdefault("content", {"application/json": {"schema": _NULL}}):
        return
    json = response["content"].get("application/json")
    if json is None:
        return
    data = json.get("schema", {})
    # `Page[User]` is a component Page_User_.
    reference = "Null" if data == _NULL else data.get("$ref", "").rpartition("/")[2].rstrip("_")
    name = f"{reference}_Envelope" if reference else f"{operation_id_}_{status}_Envelope"
    components[name] = {
        "type": "object",
        "title": name,
        "required": ["code", "msg", "data"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status"},
            "msg": {"type": "string"},
            "data": {key: value for key, value in data.items() if key != "title"},
        },
    }
    json["schema"] = {"$ref": f"#/components/schemas/{name}"}


def _error(codes: list[ErrorCode]) -> Schema:
    told = "\n".join(f"- `{code.value}` {code.name}: {explain(code).meaning}" for code in codes)
    schemas = []
    if ErrorCode.INVALID_REQUEST in codes:
        schemas.append({"$ref": "#/components/schemas/InvalidRequestResponse"})
    if any(code is not ErrorCode.INVALID_REQUEST for code in codes):
        schemas.append({"$ref": "#/components/schemas/ErrorResponse"})
    return {
        "description": told,
        "content": {
            "application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}},
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
        "x-error-codes": {str(code.value): code.name for code in codes},
    }


_FIELD_ERROR = {
    "type": "object",
    "required": ["field", "message", "type"],
    "properties": {"field": {"type": "string"}, "message": {"type": "string"}, "type": {"type": "string"}},
}
_COMPONENTS: Schema = {
    "ErrorCode": {
        "type": "integer",
        "description": "The catalogue of error codes; their meaning never changes.",
        "enum": [code.value for code in ErrorCode],
        "x-enum-varnames": [code.name for code in ErrorCode],
    },
    "ErrorResponse": {
        "type": "object",
        "required": ["code", "msg", "data"],
        "properties": {
            "code": {"type": "integer", "description": "An ErrorCode, or the HTTP status where there is none"},
            "msg": {"type": "string", "description": "For people; never branch on it"},
            "data": {"description": "Facts, by code; or null"},
        },
    },
    "FieldError": _FIELD_ERROR,
    "InvalidRequestResponse": {
        "type": "object",
        "required": ["code", "msg", "data"],
        "properties": {
            "code": {"type": "integer"},
            "msg": {"type": "string"},
            "data": {
                "type": "object",
                "title": "InvalidRequestData",
                "required": ["errors"],
                "properties": {"errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}}},
            },
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457, on `Accept: application/problem+json`",
        "required": ["type", "title", "status", "detail", "code", "data"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": {"type": "integer"},
            "data": {},
        },
    },
}


def error_codes(route: Any) -> set[ErrorCode]:  # Any: see _tell_the_truth
    """Every code that the endpoint, its dependencies and what they call in the project mention.

    Read from the code itself, so that a route documents what it raises without a word about it. Too many is
    possible (a code that is only compared), too few is not, for calls by name.
    """
    return set().union(*(_mentioned(call) for call in _calls(route.endpoint, route.dependant)))


def _calls(endpoint: Callable[..., Any], dependant: Dependant) -> Iterator[Callable[..., Any]]:
    yield endpoint
    for sub in dependant.dependencies:
        assert sub.call is not None
        yield from _calls(sub.call, sub)


def _mentioned(call: Callable[..., Any]) -> set[ErrorCode]:
    found: set[ErrorCode] = set()
    pending, seen = [inspect.unwrap(call)], set()
    home = getattr(pending[0], "__module__", "").partition(".")[0]
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType):
            # An instance whose class has __call__, or a partial.
            function = getattr(function, "func", None) or vars(type(function)).get("__call__")
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        for value in _named_values(function):
            if isinstance(value, ErrorCode):
                found.add(value)
            elif isinstance(value, FunctionType):
                called = inspect.unwrap(value)
                if called.__module__.partition(".")[0] in (home, "src"):
                    pending.append(called)
    return found


@functools.cache
def _named_values(function: FunctionType) -> tuple[object, ...]:
    """What the names and dotted names in the function's body stand for."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ()
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    names = function.__globals__ | {name: _content(cell) for name, cell in cells}
    body = getattr(tree.body[0], "body", [])
    statements = body if isinstance(body, list) else [body]
    nodes = [node for statement in statements for node in ast.walk(statement)]
    return tuple(_value(node, names) for node in nodes if isinstance(node, ast.Name | ast.Attribute))


def _content(cell: Any) -> object:  # Any: types.CellType has no type for its content
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _value(node: ast.expr, names: dict[str, Any]) -> object:  # Any: a module's namespace
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, names)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return inspect.getattr_static(owner, node.attr, None)
    return None

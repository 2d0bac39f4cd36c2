"""What the docs say, made true: enveloped schemas, real statuses, and each error code that a route can answer with."""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi._compat import lenient_issubclass
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.utils import get_typed_return_annotation
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.responses import JSONResponse
from starlette.responses import Response as RawResponse

from src.http.answers import Answers, answers_of, sends_default_status
from src.http.envelope import CHECKS_QUERY, install_envelope, is_unwrapped, streams
from src.http.errors import BODILESS, phrase
from src.http.response import Response
from src.shared.errors import ErrorCode, explain, http_status

Schema = dict[str, Any]  # Any: JSON

_NULL: Schema = {"type": "null"}
_ANY_ROUTE = (
    ErrorCode.HOST_NOT_ALLOWED,
    ErrorCode.HEADERS_TOO_LARGE,
    ErrorCode.MALFORMED_REQUEST,  # REQUEST_TIMEOUT is said before there is a path
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.SERVICE_UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED,
)


def install_openapi(app: FastAPI) -> None:
    app.openapi = functools.partial(_openapi, app)  # type: ignore[method-assign] # the hook that FastAPI documents


def operation_id(route: APIRoute) -> str:
    """`orders_place_order`: stable, readable, and a good method name in a generated client."""
    return _identifier("_".join([*(str(tag) for tag in route.tags[:1]), route.name]))


def _identifier(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text, flags=re.ASCII).strip("_")


def _openapi(app: FastAPI) -> Schema:
    if app.openapi_schema is None:
        install_envelope(app)
        routes = list(_reachable(app))
        with warnings.catch_warnings():
            # Two routes of one name: that is settled here.
            warnings.filterwarnings("ignore", "Duplicate Operation ID", UserWarning)
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=routes,
                servers=app.servers,
                tags=app.openapi_tags,
            )
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        taken: set[str] = set()
        for route in routes:
            for method in sorted(route.methods or ()):
                operation = schema["paths"][route.path_format][method.lower()]
                operation["operationId"] = _unique(operation["operationId"], method, route, taken)
                _tell_the_truth(operation, route, components)
                if method == "HEAD":
                    for response in operation["responses"].values():
                        response.pop("content", None)
        for replaced in ("HTTPValidationError", "ValidationError"):
            components.pop(replaced, None)
        components.update(_COMPONENTS)
        app.openapi_schema = schema
    return app.openapi_schema


def _reachable(app: FastAPI) -> Iterator[RouteContext]:
    """What is documented: of two routes for the same, the first answers."""
    seen: set[tuple[str | None, str]] = set()
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            ways = {(route.path_format, method) for method in route.methods or ()}
            if not ways <= seen:
                seen |= ways
                yield route


def _unique(name: str, method: str, route: RouteContext, taken: set[str]) -> str:
    """The first route of a name has it; what comes later is told apart by its method and path."""
    if name in taken:
        name = _identifier(f"{name}_{method.lower()}_{route.path_format}")
    taken.add(name)
    return name


def _tell_the_truth(
    operation: Schema, route: Any, components: Schema
) -> None:  # Any: a RouteContext forwards attributes
    responses = operation["responses"]
    takes_input = responses.pop("422", None) is not None
    answers = answers_of(route)
    codes: set[int] = {*_ANY_ROUTE, *answers.codes, *answers.raised}
    wraps = not (is_unwrapped(route.endpoint) or streams(route))
    kind = _kind(route)
    if kind is not None:
        _tell_of_own_kind(responses, route, kind)
    elif wraps:
        _tell_of_no_data(responses, route.endpoint)
        _tell_of_statuses(responses, route, answers)
        codes |= {status for status in answers.rendered | answers.returned if status >= HTTPStatus.BAD_REQUEST}
    if wraps:
        codes |= {int(status) for status in responses if status.isdigit() and int(status) >= HTTPStatus.BAD_REQUEST}
        for status, response in responses.items():
            model = route.responses.get(int(status), {}).get("model") if status.isdigit() else Response
            if not lenient_issubclass(model, Response):
                _wrap(response, int(status), operation["operationId"], components)
    _tell_what_can_be_sent(operation, codes)
    if takes_input or getattr(route, CHECKS_QUERY):
        codes.add(ErrorCode.INVALID_REQUEST)
    if any("form" in media_type for media_type in operation.get("requestBody", {}).get("content", ())):
        codes.add(HTTPStatus.BAD_REQUEST)  # a form that cannot be read
    by_status: dict[int, list[int]] = {}
    for code in sorted(codes):
        by_status.setdefault(http_status(code) if isinstance(code, ErrorCode) else code, []).append(code)
    for status, raised in by_status.items():
        described = raised == [status] and status not in answers.raised
        responses[str(status)] = _with_own(responses.get(str(status), {}), _error(raised), described=described)
    operation["responses"] = dict(sorted(responses.items()))


def _kind(route: Any) -> type[RawResponse] | None:  # Any: see _tell_the_truth
    """The class of a route's answers when these are no values: files, text, redirects, streams."""
    chosen = route.response_class
    declared = get_typed_return_annotation(route.endpoint)
    kind = chosen.value if isinstance(chosen, DefaultPlaceholder) else chosen
    if lenient_issubclass(declared, RawResponse) and declared is not RawResponse:
        kind = declared
    values = streams(route) or issubclass(kind, JSONResponse) or kind is RawResponse
    return None if values else kind


def _tell_of_own_kind(responses: Schema, route: Any, kind: type[RawResponse]) -> None:  # Any: see _tell_the_truth
    default = inspect.signature(kind).parameters["status_code"].default
    status = str(route.status_code or default)
    told = responses.pop("200") if "200" in responses and status not in responses else responses[status]
    told.pop("content", None)
    if not HTTPStatus.MULTIPLE_CHOICES <= int(status) < HTTPStatus.BAD_REQUEST:
        told["content"] = {kind.media_type or "*/*": {"schema": {"type": "string"} if kind.media_type else {}}}
    responses[status] = told


def _tell_of_statuses(responses: Schema, route: Any, answers: Answers) -> None:  # Any: see _tell_the_truth
    """`Response.success(code=201)` is a 201, also where the decorator does not say so."""
    default = str(route.status_code or int(HTTPStatus.OK))
    main = responses[default]
    for status in sorted(answers.returned | answers.rendered):
        if status < HTTPStatus.MULTIPLE_CHOICES and str(status) not in responses:
            content = {} if status in answers.rendered else main.get("content", {}).get("application/json", {})
            responses[str(status)] = {"description": phrase(status), "content": {"application/json": dict(content)}}
    if route.status_code is None and len(responses) > 1 and not sends_default_status(route.endpoint):
        del responses[default]


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


def _tell_what_can_be_sent(operation: Schema, codes: set[int]) -> None:
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


def _with_own(own: Schema, error: Schema, *, described: bool) -> Schema:
    """An error answer of the route's own beside those that the error codes stand for, or the only one of its status."""
    json = own.get("content", {}).get("application/json")
    if json is None:
        return error | own
    error["description"] = f"{own['description']}\n{error['description']}"
    coded = error["content"]["application/json"]
    coded["schema"] = json["schema"] if described else {"anyOf": [json["schema"], coded["schema"]]}
    return error


def _wrap(response: Schema, status: int, operation_id_: str, components: Schema) -> None:
    if status in BODILESS:
        response.pop("content", None)
        return
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return
    if status < HTTPStatus.BAD_REQUEST:
        response.setdefault("content", {"application/json": {"schema": _NULL}})
    json = response.get("content", {}).get("application/json")
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


def _error(codes: list[int]) -> Schema:
    told = "\n".join(f"- `{int(code)}` {_told(code)}" for code in codes)
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
        "x-error-codes": {str(int(code)): code.name if isinstance(code, ErrorCode) else phrase(code) for code in codes},
    }


def _told(code: int) -> str:
    return f"{code.name}: {explain(code).meaning}" if isinstance(code, ErrorCode) else phrase(code)


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

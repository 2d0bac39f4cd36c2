"""Exceptions become envelopes (or RFC 9457 problem details, by `Accept`)."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi._body_limit import get_body_limit_error
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import iter_route_contexts
from loguru import logger
from pydantic_core import PydanticSerializationError, to_json
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response as RawResponse
from starlette.types import Scope

from src.cache import CacheUnavailableError
from src.exceptions import BusinessException
from src.http.denials import DENIALS, note_denial
from src.shared.database import DATABASE_ERRORS, is_outage
from src.shared.errors import ErrorCode, explain, http_status

BODILESS = frozenset({*range(100, 200), 204, 205, 304})
RETRY_AFTER_SECONDS = 1


Handler = Callable[[Request, Exception], Awaitable[RawResponse]]


class BodyTooLargeError(HTTPException):
    """Raised where a body is read: FastAPI lets HTTPExceptions through there, and nothing else."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.limit_bytes = limit_bytes


def envelope(code: int, msg: str, data: bytes) -> bytes:
    """Splice finished JSON into the envelope: the value is serialised once."""
    return b'{"code":%d,"msg":%b,"data":%b}' % (code, b'"success"' if msg == "success" else _json(msg), data)


def _json(facts: object) -> bytes:
    """What a refusal tells is for the client to read, never a reason to crash: unknown types become text."""
    try:
        return to_json(facts, fallback=str, inf_nan_mode="null")
    except PydanticSerializationError:
        return json.dumps(facts, default=str).encode()  # half a character, say: it goes out escaped


def error_response(  # noqa: PLR0913 - an answer has these parts
    scope: Scope, *, status: int, code: int, msg: str, data: object = None, headers: Mapping[str, str] | None = None
) -> RawResponse:
    if status in BODILESS:
        return RawResponse(status_code=status, headers=headers)
    facts = _json(data)
    if _wants_problem(scope):
        body = _problem(scope, status, code, msg, facts)
        return RawResponse(body, status, headers, media_type=_PROBLEM)
    return RawResponse(envelope(code, msg, facts), status, headers, media_type="application/json")


def code_response(scope: Scope, code: ErrorCode, msg: str = "", data: object = None) -> RawResponse:
    status = http_status(code)
    headers = _headers_for(code, status, data)
    return error_response(scope, status=status, code=code, msg=msg or explain(code).meaning, data=data, headers=headers)


def body_too_large(scope: Scope, limit_bytes: int) -> RawResponse:
    return code_response(scope, ErrorCode.BODY_TOO_LARGE, data={"limit_bytes": limit_bytes})


def _headers_for(code: ErrorCode, status: int, data: object) -> dict[str, str]:
    facts = data if isinstance(data, Mapping) else {}
    headers = {}
    if code is ErrorCode.STEP_UP_REQUIRED:
        age = f', max_age="{facts["max_age_seconds"]}"' if "max_age_seconds" in facts else ""
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_user_authentication"{age}'  # RFC 9470 §3
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1
    if "retry_after_seconds" in facts:
        headers["Retry-After"] = str(facts["retry_after_seconds"])
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


_PROBLEM = "application/problem+json"
_AS_JSON = ("application/json", "application/*", "*/*")


def _wants_problem(scope: Scope) -> bool:
    """RFC 9110 §12.5.1: who names it gets it, unless JSON is liked better."""
    accepted = dict(_accepted(scope))
    liked = accepted.get(_PROBLEM, 0.0)
    return liked > 0 and liked >= next((accepted[kind] for kind in _AS_JSON if kind in accepted), 0.0)


def _accepted(scope: Scope) -> Iterator[tuple[str, float]]:
    for name, value in scope.get("headers", ()):
        if name == b"accept":
            for choice in value.decode("latin-1").lower().split(","):
                kind, *parameters = (part.strip() for part in choice.split(";"))
                weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
                yield kind, float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0


def _problem(scope: Scope, status: int, code: int, msg: str, facts: bytes) -> bytes:
    """RFC 9457, with the same code and data as the envelope."""
    known = {
        "type": "about:blank" if code == status else f"urn:undercroft:error:{code}",
        "title": _title(status, code),
        "status": status,
        "detail": msg,
        "instance": f"urn:request:{scope['undercroft.request_id']}" if "undercroft.request_id" in scope else None,
        "code": code,
    }
    return _json({name: value for name, value in known.items() if value is not None})[:-1] + b',"data":%b}' % facts


def _title(status: int, code: int) -> str:
    return phrase(status) if code == status else ErrorCode(code).name


def install_error_handlers(app: FastAPI) -> None:
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _from_middleware)


async def _refusal(request: Request, error: Exception) -> RawResponse:
    assert isinstance(error, BusinessException)
    if error.code in DENIALS:
        await note_denial(error.code, f"{request.method} {route_template(request.scope)}")
    response = code_response(request.scope, error.code, error.msg, error.data)
    response.raw_headers.extend(getattr(error, "raw_headers", ()))
    return response


def route_template(scope: Scope) -> str | None:
    """With its prefixes: what statistics group by."""
    context = (
        scope.get("fastapi", {}).get("effective_route_context") if isinstance(scope.get("fastapi"), dict) else None
    )
    return getattr(context, "path", None) or getattr(scope.get("route"), "path", None)


async def _http_exception(request: Request, error: Exception) -> RawResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyTooLargeError):
        return body_too_large(request.scope, error.limit_bytes)
    if get_body_limit_error(error) is not None:
        return body_too_large(request.scope, request.scope[MAX_BODY_SIZE_SCOPE_KEY])
    status, detail, headers = error.status_code, error.detail, error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED and type(error) is HTTPException:
        # Raised by the first route that has the path; its own methods are not all.
        headers = {**(headers or {}), "Allow": ", ".join(sorted(_methods(request)))}
    plain = isinstance(detail, str)
    msg = detail if plain else phrase(status)
    data = None if plain else detail
    return error_response(request.scope, status=status, code=status, msg=msg, data=data, headers=headers)


def _methods(request: Request) -> set[str]:
    path = get_route_path(request.scope)
    routes = iter_route_contexts(request.app.routes)
    return {method for route in routes if route.methods and route.path_regex.match(path) for method in route.methods}


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _validation(request: Request, error: Exception) -> RawResponse:
    assert isinstance(error, RequestValidationError)
    return code_response(request.scope, ErrorCode.INVALID_REQUEST, data={"errors": field_errors(error.errors())})


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:  # Any: pydantic's error details
    """`[{field, message, type}]`; never the input, nor what quotes it."""
    return [{"field": _field(e), "message": _message(e), "type": e["type"]} for e in errors[:MAX_FIELD_ERRORS]]


MAX_FIELD_ERRORS = 50
"""More help nobody, and would make of a megabyte of nonsense nine megabytes of explanation."""


def _field(error: Mapping[str, Any]) -> str:  # Any: pydantic's error details
    """Dotted, as a client writes it: the body's own fields without a prefix, the others with their place."""
    parts = list(error["loc"])
    if parts[:1] == ["body"]:
        # What comes after is a field or an index; but in JSON that cannot be read it is a position in the text.
        unreadable = error["type"] == "json_invalid" and len(parts) == 2  # noqa: PLR2004 - body and position
        parts = parts[:1] if unreadable else parts[1:] or parts
    return ".".join(str(part)[:100] for part in parts)


def _message(error: Mapping[str, Any]) -> str:  # Any: pydantic's error details
    context = error.get("ctx", {})
    if error["type"] == "json_invalid" and "error" in context:
        return f"{error['msg']}: {context['error']}"
    if error["type"] == "union_tag_invalid":
        # Its own text quotes the tag that came in.
        return f"Input should be one of {context['expected_tags']}"
    if error["type"] in ("value_error", "assertion_error") and _quotes(error["msg"], error.get("input")):
        return "This value is not accepted"
    return str(error["msg"])[:500]


_MIN_QUOTE = 4
"""Shorter ones are in any sentence."""


def _quotes(message: str, given: object) -> bool:
    """Whether a validator's own words repeat what came in."""
    if isinstance(given, Mapping):
        return any(_quotes(message, part) for part in given.values())
    if isinstance(given, list | tuple):
        return any(_quotes(message, part) for part in given)
    text = str(given)
    return given is not None and not isinstance(given, bool) and len(text) >= _MIN_QUOTE and text in message


async def _outage_or_crash(request: Request, error: Exception) -> RawResponse:
    if not (is_outage(error) or isinstance(error, CacheUnavailableError)):
        return await crash(request, error)
    logger.bind(error=type(error).__name__, cause=type(error.__cause__).__name__).warning(
        "A server that we need does not answer"
    )
    return code_response(request.scope, ErrorCode.SERVICE_UNAVAILABLE)


async def _gone(_request: Request, _error: Exception) -> RawResponse:
    """The client hung up while it was sending: nobody hears the answer, and nothing is wrong here."""
    return RawResponse(status_code=_CLIENT_CLOSED_REQUEST)


_CLIENT_CLOSED_REQUEST = 499

_HANDLERS: dict[type[Exception], Handler] = {
    ClientDisconnect: _gone,
    BusinessException: _refusal,
    HTTPException: _http_exception,
    RequestValidationError: _validation,
    **dict.fromkeys((*DATABASE_ERRORS, CacheUnavailableError), _outage_or_crash),
}


async def _from_middleware(request: Request, error: Exception) -> RawResponse:
    """What a team's middleware raises passes no other handler; it is answered like what a route raises."""
    handler = next((_HANDLERS[kind] for kind in type(error).__mro__ if kind in _HANDLERS), crash)
    return await handler(request, error)


async def crash(request: Request, error: Exception) -> RawResponse:
    """The last resort: nothing of the exception is told, but the id under which the log has it."""
    _drop_values(error)
    logger.opt(exception=error).error("Unhandled exception")
    return code_response(request.scope, ErrorCode.INTERNAL_ERROR, data=_reference(request.scope))


def _drop_values(error: BaseException | None) -> None:
    """FastAPI's text for an answer that does not fit its model would write the row into the log, secrets included."""
    while error is not None:
        if isinstance(error, ResponseValidationError):
            error._errors = [{"loc": each["loc"], "type": each["type"]} for each in error.errors()]  # noqa: SLF001 - its text is made of this
            error.body = None
        error = error.__cause__ or error.__context__


def _reference(scope: Scope) -> dict[str, str]:
    return {"request_id": scope["undercroft.request_id"]} if "undercroft.request_id" in scope else {}

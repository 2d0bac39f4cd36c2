"""Exceptions become envelopes (or RFC 9457 problem details, by `Accept`)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as RawResponse
from starlette.types import Scope

from src.cache import CacheUnavailableError
from src.exceptions import BusinessException
from src.shared.database import DATABASE_ERRORS, is_outage
from src.shared.errors import ErrorCode, explain, http_status

BODILESS = frozenset({*range(100, 200), 204, 205, 304})
RETRY_AFTER_SECONDS = 1


def envelope(code: int, msg: str, data: bytes) -> bytes:
    """Splice finished JSON into the envelope: the value is serialised once."""
    return b'{"code":%d,"msg":%b,"data":%b}' % (code, b'"success"' if msg == "success" else to_json(msg), data)


def error_response(  # noqa: PLR0913 - an answer has these parts
    scope: Scope, *, status: int, code: int, msg: str, data: object = None, headers: Mapping[str, str] | None = None
) -> RawResponse:
    if status in BODILESS:
        return RawResponse(status_code=status, headers=headers)
    # What a refusal tells is for the client to read, never a reason to crash: unknown types become text.
    facts = to_json(data, fallback=str, inf_nan_mode="null")
    if _wants_problem(scope):
        body = _problem(scope, status, code, msg, facts)
        return RawResponse(body, status, headers, media_type="application/problem+json")
    return RawResponse(envelope(code, msg, facts), status, headers, media_type="application/json")


def code_response(scope: Scope, code: ErrorCode, msg: str = "", data: object = None) -> RawResponse:
    status = http_status(code)
    headers = _headers_for(status, data)
    return error_response(scope, status=status, code=code, msg=msg or explain(code).meaning, data=data, headers=headers)


def _headers_for(status: int, data: object) -> dict[str, str]:
    facts = data if isinstance(data, Mapping) else {}
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1
    if "retry_after_seconds" in facts:
        headers["Retry-After"] = str(facts["retry_after_seconds"])
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


def _wants_problem(scope: Scope) -> bool:
    return any(name == b"accept" and b"application/problem+json" in value for name, value in scope.get("headers", ()))


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
    return to_json(known, exclude_none=True)[:-1] + b',"data":%b}' % facts


def _title(status: int, code: int) -> str:
    return phrase(status) if code == status else ErrorCode(code).name


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(BusinessException, _refusal)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation)
    for kind in (*DATABASE_ERRORS, CacheUnavailableError):
        app.add_exception_handler(kind, _outage_or_crash)
    app.add_exception_handler(Exception, crash)


async def _refusal(request: Request, error: Exception) -> RawResponse:
    assert isinstance(error, BusinessException)
    response = code_response(request.scope, error.code, error.msg, error.data)
    response.raw_headers.extend(getattr(error, "raw_headers", ()))
    return response


async def _http_exception(request: Request, error: Exception) -> RawResponse:
    assert isinstance(error, HTTPException)
    status, detail = error.status_code, error.detail
    plain = isinstance(detail, str)
    msg = detail if plain else phrase(status)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return code_response(request.scope, ErrorCode.BODY_TOO_LARGE)
    data = None if plain else detail
    return error_response(request.scope, status=status, code=status, msg=msg, data=data, headers=error.headers)


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
    return [{"field": _field(e["loc"]), "message": _message(e), "type": e["type"]} for e in errors]


def _field(loc: Sequence[int | str]) -> str:
    """Dotted, as a client writes it: the body's own fields without a prefix, the others with their place."""
    parts = list(loc)
    if parts[:1] == ["body"]:
        # The position of a JSON error is a number alone, and belongs to the body as a whole.
        parts = parts[1:] if any(isinstance(part, str) for part in parts[1:]) else parts[:1]
    return ".".join(str(part)[:100] for part in parts)


def _message(error: Mapping[str, Any]) -> str:  # Any: pydantic's error details
    context = error.get("ctx", {})
    if error["type"] == "json_invalid" and "error" in context:
        return f"{error['msg']}: {context['error']}"
    if error["type"] == "union_tag_invalid":
        # Its own text quotes the tag that came in.
        return f"Input should be one of {context['expected_tags']}"
    return str(error["msg"])[:500]


async def _outage_or_crash(request: Request, error: Exception) -> RawResponse:
    if not (is_outage(error) or isinstance(error, CacheUnavailableError)):
        return await crash(request, error)
    logger.bind(error=type(error).__name__, cause=type(error.__cause__).__name__).warning(
        "A server that we need does not answer"
    )
    return code_response(request.scope, ErrorCode.SERVICE_UNAVAILABLE)


async def crash(request: Request, error: Exception) -> RawResponse:
    """The last resort: nothing of the exception is told, but the id under which the log has it."""
    logger.opt(exception=error).error("Unhandled exception")
    return code_response(request.scope, ErrorCode.INTERNAL_ERROR, data=_reference(request.scope))


def _reference(scope: Scope) -> dict[str, str]:
    return {"request_id": scope["undercroft.request_id"]} if "undercroft.request_id" in scope else {}

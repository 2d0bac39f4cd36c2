"""Each route's own envelope, hung up once at start: what a route returns is serialised once and spliced in.

FastAPI keeps the routing, the dependencies, the validation and the serialisation. Around its handler stand two
small pieces: one looks at what the endpoint returns before FastAPI serialises it, the other at the finished bytes.
"""

import json
import re
from collections.abc import Awaitable, Callable
from functools import partial, update_wrapper
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

from fastapi import FastAPI
from fastapi._body_limit import wrap_app_with_body_limit
from fastapi._compat import lenient_issubclass
from fastapi.dependencies.models import _is_async_gen_callable, _is_coroutine_callable, _is_gen_callable
from fastapi.routing import (
    APIRoute,
    _effective_route_context_var,
    iter_route_contexts,
    request_response,
)
from fastapi.utils import create_model_field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as RawResponse

from src.exceptions import BusinessException
from src.http.errors import BODILESS, envelope, phrase
from src.http.pagination import add_page_parameters
from src.http.query import Check, query_check
from src.http.response import Response
from src.shared.errors import ErrorCode

Handler = Callable[[Request], Awaitable[RawResponse]]
F = TypeVar("F", bound=Callable[..., Any])

_INSTALLED = "undercroft_installed"
_REQUEST = "undercroft_request"
_RESPONSE = "undercroft_response"
_ANSWER = "undercroft.answer"
_BEFORE_COMMIT = "undercroft.before_commit"

Finisher = Callable[[RawResponse], Awaitable[None]]


def before_commit(request: Request, finisher: Finisher) -> None:
    """Run when the bytes of a successful answer are made and the request's transaction is still open."""
    request.scope.setdefault(_BEFORE_COMMIT, []).append(finisher)


def unwrapped(endpoint: F) -> F:
    """Mark an endpoint whose body a standard fixes (RFC 6749, JWKS, webhooks): it leaves as it is returned."""
    endpoint.__unwrapped__ = True  # type: ignore[attr-defined] # a function's own namespace
    return endpoint


def is_unwrapped(endpoint: object) -> bool:
    return getattr(endpoint, "__unwrapped__", False)


def install_envelope(app: FastAPI) -> None:
    """Give each API route that has none its envelope: when the app starts, and for its OpenAPI page."""
    for found in iter_route_contexts(app.routes):
        original = found.original_route
        if isinstance(original, APIRoute):
            # A route below an included router is a context of its own there; elsewhere it is the route itself.
            route = found._route_context or original  # noqa: SLF001 - FastAPI offers no public way yet
            if not hasattr(route, _INSTALLED):
                setattr(route, _INSTALLED, True)
                _install(original, route)


def _install(original: APIRoute, route: Any) -> None:  # Any: APIRoute or FastAPI's private context, same attributes
    add_page_parameters(route)
    check = query_check(route.dependant)
    if is_unwrapped(route.endpoint) or _streams(route):
        route.app = _rebuild(original, route, partial(_strict, check=check))
        return
    if lenient_issubclass(route.response_model, Response):
        # `-> Response[Item]` says what is in the envelope; the envelope itself is ours.
        route.response_model = route.response_model.model_fields["data"].annotation
        route.response_field = None
    if route.response_field is None:
        # Without a model FastAPI turns Decimals into floats on its way to JSON; pydantic keeps every digit.
        declared = route.response_model if route.response_model is not None else Any
        route.response_field = create_model_field(f"Response_{route.unique_id}", type_=declared, mode="serialization")
    dependant = route.dependant
    dependant.call = _watched(
        dependant.call, dependant.request_param_name or _REQUEST, dependant.response_param_name or _RESPONSE
    )
    dependant.request_param_name = dependant.request_param_name or _REQUEST
    dependant.response_param_name = dependant.response_param_name or _RESPONSE
    route.app = _rebuild(original, route, partial(_enveloped, check=check))


def _streams(route: Any) -> bool:  # Any: see _install
    return _is_async_gen_callable(route.endpoint) or _is_gen_callable(route.endpoint)


def _rebuild(original: APIRoute, route: Any, around: Callable[[Handler], Handler]) -> Any:  # Any: see _install
    token = _effective_route_context_var.set(None if route is original else route)
    try:
        # The public hook, so that a team's own `route_class` keeps working underneath.
        handler = original.get_route_handler()
    finally:
        _effective_route_context_var.reset(token)
    return wrap_app_with_body_limit(request_response(around(handler)), route.max_body_size)


def _watched(endpoint: Callable[..., Any], request_name: str, response_name: str) -> Callable[..., Awaitable[Any]]:
    """The endpoint, with a look at what it returns: a value, our Response, or a Starlette response."""
    is_async = _is_coroutine_callable(endpoint)

    async def call(**values: Any) -> Any:
        request: Request = values.pop(request_name) if request_name == _REQUEST else values[request_name]
        response: RawResponse = values.pop(response_name) if response_name == _RESPONSE else values[response_name]
        returned = await endpoint(**values) if is_async else await run_in_threadpool(endpoint, **values)
        if isinstance(returned, RawResponse):
            request.scope[_ANSWER] = None
            return returned
        if not isinstance(returned, Response):
            request.scope[_ANSWER] = ("success", None)
            return returned
        code: int | None = returned.code
        if isinstance(code, ErrorCode):
            refusal = BusinessException(ErrorCode(code), returned.msg, returned.data)
            refusal.raw_headers = response.headers.raw  # type: ignore[attr-defined] # what the route set goes along
            raise refusal
        if code is not None and HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES:
            response.status_code = code
            code = None
        request.scope[_ANSWER] = (returned.msg, code)
        return returned.data

    update_wrapper(call, endpoint)
    vars(call).pop("__wrapped__", None)  # FastAPI would look through it and take a sync endpoint to its thread pool
    return call


def _strict(handler: Handler, *, check: Check | None) -> Handler:
    async def handle(request: Request) -> RawResponse:
        if check is not None:
            check(request)
        return await handler(_strict_request(request))

    return handle


def _strict_request(request: Request) -> "_StrictRequest":
    return _StrictRequest(request.scope, request.receive, request._send)  # noqa: SLF001 - as FastAPI's custom request classes do


def _enveloped(handler: Handler, *, check: Check | None) -> Handler:
    handle_strictly = _strict(handler, check=check)

    async def handle(request: Request) -> RawResponse:
        response = _wrapped(await handle_strictly(request), request.scope.get(_ANSWER))
        for finisher in request.scope.get(_BEFORE_COMMIT, ()):
            await finisher(response)
        return response

    return handle


def _wrapped(response: RawResponse, answer: tuple[str, int | None] | None) -> RawResponse:
    status = response.status_code
    if status in BODILESS:
        return _without_body(response)
    if answer is None:
        # The endpoint made the response itself: JSON is wrapped, anything else is its own business.
        if not isinstance(response, JSONResponse):
            return response
        return _spliced(response, status, "success" if status < HTTPStatus.BAD_REQUEST else phrase(status))
    if response.media_type != "application/json":
        # The route has a response class of its own, for text or HTML.
        return response
    msg, code = answer
    return _spliced(response, code if code is not None else status, msg)


def _without_body(response: RawResponse) -> RawResponse:
    if hasattr(response, "body"):
        response.body = b""
        del response.headers["content-length"]
        del response.headers["content-type"]
    return response


def _spliced(response: RawResponse, code: int, msg: str) -> RawResponse:
    body = envelope(code, msg, bytes(response.body) or b"null")
    response.body = body
    response.headers["content-length"] = str(len(body))
    return response


class _StrictRequest(Request):
    """JSON as RFC 8259 has it and as two parsers read it alike: UTF-8, no NaN, no duplicate keys, no lone surrogates."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = strict_json(await self.body())
        return self._json


_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def strict_json(body: bytes) -> Any:
    """Parse or refuse: json.JSONDecodeError, which FastAPI tells the client as `json_invalid`."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(_REASONS[type(error)], "", 0) from None
    return value


class _DuplicateKeyError(ValueError):
    pass


class _NotJsonError(ValueError):
    pass


_REASONS: dict[type[Exception], str] = {
    UnicodeDecodeError: "not UTF-8",
    UnicodeEncodeError: "lone surrogate",
    RecursionError: "nested too deep",
    ValueError: "number too long",
    _DuplicateKeyError: "duplicate key",
    _NotJsonError: "NaN and Infinity are not JSON",
}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


def _no_constant(_name: str) -> NoReturn:
    raise _NotJsonError

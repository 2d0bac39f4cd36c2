"""Each route's own envelope, hung up once at start: what a route returns is serialised once and spliced in.

FastAPI keeps the routing, the dependencies, the validation and the serialisation. Around its handler stand two
small pieces: one looks at what the endpoint returns before FastAPI serialises it, the other at the finished bytes.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial, update_wrapper
from http import HTTPStatus
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from fastapi import FastAPI
from fastapi._body_limit import wrap_app_with_body_limit
from fastapi._compat import ModelField, lenient_issubclass
from fastapi.datastructures import Default, DefaultPlaceholder
from fastapi.dependencies.models import Dependant, _is_async_gen_callable, _is_coroutine_callable, _is_gen_callable
from fastapi.exceptions import FastAPIError
from fastapi.routing import (
    APIRoute,
    _effective_route_context_var,
    iter_route_contexts,
    request_response,
)
from fastapi.utils import create_model_field
from pydantic.fields import FieldInfo
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as RawResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from src.exceptions import BusinessException
from src.http.attempts import BEFORE_COMMIT, run_again
from src.http.errors import BODILESS, body_too_large, envelope, phrase
from src.http.middleware import Stream
from src.http.pagination import add_page_parameters
from src.http.query import Check, query_check
from src.http.response import Response
from src.http.strict_json import strict_request
from src.shared.errors import ErrorCode

Handler = Callable[[Request], Awaitable[RawResponse]]
F = TypeVar("F", bound=Callable[..., Any])

CHECKS_QUERY = "undercroft_checks_query"
FACTS = "undercroft_facts"
_REQUEST = "undercroft_request"
_RESPONSE = "undercroft_response"
_ANSWER = "undercroft.answer"

NOT_SENT = (
    "Response not awaited. There's a high chance that the application code is raising an exception and a dependency "
    "with yield has a block with a bare except, or a block with except Exception, and is not raising the exception "
    "again. Read more about it in the docs: "
    "https://fastapi.tiangolo.com/tutorial/dependencies/dependencies-with-yield/"
    "#dependencies-with-yield-and-except"
)
"""What FastAPI says of a dependency that swallows the exception."""

Finisher = Callable[[RawResponse], Awaitable[None]]


@dataclass(frozen=True)
class Facts:
    """What is known of a route once its envelope hangs: all that stands around FastAPI's handler."""

    endpoint: Callable[..., Any]  # Any: whatever a team writes
    """As it was written, without our look at what it returns."""
    wraps: bool
    check: Check | None
    body_first: bool
    request_name: str | None
    """Of the endpoint's own parameter, as the next."""
    response_name: str | None


def before_commit(request: Request, finisher: Finisher) -> None:
    """Run when the bytes of a successful answer are made and the request's transaction is still open."""
    request.scope.setdefault(BEFORE_COMMIT, []).append(finisher)


def unwrapped(endpoint: F) -> F:
    """Mark an endpoint whose body a standard fixes (RFC 6749, JWKS, webhooks): it leaves as it is returned."""
    endpoint.__unwrapped__ = True  # type: ignore[attr-defined] # a function's own namespace
    return endpoint


def is_unwrapped(endpoint: object) -> bool:
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    return getattr(endpoint, "__unwrapped__", False)


def install_envelope(app: FastAPI) -> None:
    """Give each API route that has none its envelope: when the app starts, and for its OpenAPI page."""
    for found in iter_route_contexts(app.routes):
        original = found.original_route
        if isinstance(original, APIRoute):
            # A route below an included router is a context of its own there; elsewhere it is the route itself.
            route = found._route_context or original  # noqa: SLF001 - FastAPI offers no public way yet
            if not hasattr(route, FACTS):
                setattr(route, FACTS, _install(original, route))


def _install(original: APIRoute, route: Any) -> Facts:  # Any: APIRoute or FastAPI's private context, same attributes
    wraps = not (is_unwrapped(route.endpoint) or streams(route))
    if wraps:
        _look_into_envelope(route)
    add_page_parameters(route)
    check = query_check(route.dependant)
    body_first = _reads_body(route.dependant)
    setattr(route, CHECKS_QUERY, check is not None)
    dependant = route.dependant
    if not wraps and _keeps_answer(dependant):
        raise TypeError(
            f"{route.path}: a dependency keeps the finished answer, and a stream or an unwrapped one is none"
        )
    facts = Facts(route.endpoint, wraps, check, body_first, dependant.request_param_name, dependant.response_param_name)
    if not wraps:
        route.app = _rebuild(original, route, partial(_strict, check=check, body_first=body_first))
        return facts
    _keep_digits(route)
    dependant.call = _watched(
        dependant.call, dependant.request_param_name or _REQUEST, dependant.response_param_name or _RESPONSE
    )
    dependant.request_param_name = dependant.request_param_name or _REQUEST
    dependant.response_param_name = dependant.response_param_name or _RESPONSE
    route.app = _rebuild(original, route, partial(_enveloped, check=check, body_first=body_first))
    return facts


def _look_into_envelope(route: Any) -> None:  # Any: see _install
    """`-> Response[Item]` says what is in the envelope; the envelope itself is ours."""
    model = _data_type(route.response_model)
    if model is not route.response_model:
        route.response_model = model
        route.response_field = create_model_field(f"Response_{route.unique_id}", type_=model, mode="serialization")


def _data_type(declared: Any) -> Any:  # Any: a type, or a form of typing
    if lenient_issubclass(declared, Response):
        return declared.model_fields["data"].annotation
    kinds = get_args(declared) if get_origin(declared) in (Union, UnionType) else ()
    if any(lenient_issubclass(kind, Response) for kind in kinds):
        return Union[tuple(_data_type(kind) for kind in kinds)]  # noqa: UP007 - of a tuple there is no other form
    return declared


def _keep_digits(route: Any) -> None:  # Any: see _install
    """Without a model FastAPI turns Decimals into floats on its way to JSON; pydantic keeps every digit."""
    chosen = route.response_class
    if chosen is JSONResponse:
        route.response_class = Default(JSONResponse)  # what it is anyway, and FastAPI then serialises in one pass
    kind = chosen.value if isinstance(chosen, DefaultPlaceholder) else chosen
    if route.response_field is None and lenient_issubclass(kind, JSONResponse):
        route.response_field = AnyValue(FieldInfo(annotation=Any), f"Response_{route.unique_id}", "serialization")


class AnyValue(ModelField):
    """Whatever an endpoint without a response model returns, objects with attributes included, as FastAPI has it."""

    def serialize(self, value: Any, **how: Any) -> Any:
        how.setdefault("mode", "json")
        return self._type_adapter.dump_python(value, fallback=_as_data, **how)

    def serialize_json(self, value: Any, **how: Any) -> bytes:
        return self._type_adapter.dump_json(value, fallback=_as_data, **how)

    def writer(self, **how: Any) -> Callable[[Any], bytes]:
        """`serialize_json` with everything but the value decided."""
        return partial(self._type_adapter.serializer.to_json, fallback=_as_data, **how)


def _as_data(value: object) -> dict[Any, Any]:  # Any: whatever is in it, serialised in turn
    if isinstance(value, Mapping):
        return dict(value)
    return {name: part for name, part in vars(value).items() if not name.startswith("_")}


def streams(route: Any) -> bool:  # Any: see _install
    return _is_async_gen_callable(route.endpoint) or _is_gen_callable(route.endpoint)


def _rebuild(original: APIRoute, route: Any, around: Callable[[Handler], Handler]) -> Any:  # Any: see _install
    token = _effective_route_context_var.set(None if route is original else route)
    try:
        # The public hook, so that a team's own `route_class` keeps working underneath.
        handler = original.get_route_handler()
    finally:
        _effective_route_context_var.reset(token)
    return _limited(request_response(_streamed(around(handler))), route.max_body_size)


def _streamed(handler: Handler) -> Any:  # Any: request_response types its answer as a Response, and calls an ASGI app
    async def handle(request: Request) -> ASGIApp:
        response = await handler(request)
        return response if hasattr(response, "body") else Stream(response)

    return handle


def _limited(app: ASGIApp, max_body_bytes: int | None) -> ASGIApp:
    """`max_body_size` of a route or router. What Starlette answers to a declared length is text: here it is ours."""
    if max_body_bytes is None:
        return app
    counting = wrap_app_with_body_limit(app, max_body_bytes)

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        length = Request(scope).headers.get("content-length", "")
        if length.isdecimal() and int(length) > max_body_bytes:
            await body_too_large(scope, max_body_bytes)(scope, receive, send)
        else:
            await counting(scope, receive, send)

    return limited


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
        data, msg, code = open_envelope(returned, response)
        request.scope[_ANSWER] = (msg, code)
        return data

    update_wrapper(call, endpoint)
    vars(call).pop("__wrapped__", None)  # FastAPI would look through it and take a sync endpoint to its thread pool
    return call


def open_envelope(returned: Response[Any], response: RawResponse) -> tuple[Any, str, int | None]:
    """Data, message, and a code that is not the status. A refusal that is returned is raised."""
    code: int | None = returned.code
    if isinstance(code, ErrorCode):
        refusal = BusinessException(ErrorCode(code), returned.msg, returned.data)
        refusal.raw_headers = response.headers.raw  # type: ignore[attr-defined] # what the route set goes along
        raise refusal
    if code is not None and HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES:
        response.status_code = code
        code = None
    return returned.data, returned.msg, code


def reads_body(dependency: F) -> F:
    """Mark a dependency that reads the body: it is received before any dependency opens a transaction, or a client
    that sends slowly would hold a connection of the pool for as long as it likes."""
    dependency.__reads_body__ = True  # type: ignore[attr-defined] # a function's own namespace
    return dependency


def _reads_body(dependant: Dependant) -> bool:
    return getattr(dependant.call, "__reads_body__", False) or any(map(_reads_body, dependant.dependencies))


def keeps_answer(dependency: F) -> F:
    """Mark a dependency that does something with the finished answer, `before_commit`: a route that has none at that
    moment, since it streams or its answer is not ours, is refused when the app starts."""
    dependency.__keeps_answer__ = True  # type: ignore[attr-defined] # as above
    return dependency


def _keeps_answer(dependant: Dependant) -> bool:
    return getattr(dependant.call, "__keeps_answer__", False) or any(map(_keeps_answer, dependant.dependencies))


def _strict(handler: Handler, *, check: Check | None, body_first: bool) -> Handler:
    async def handle(request: Request) -> RawResponse:
        if check is not None and request.scope["query_string"]:
            check(request.scope["query_string"])
        strict = strict_request(request)
        if body_first:
            await strict.body()  # kept by the request, for FastAPI and for whoever asks again
        return await handler(strict)

    return handle


def _enveloped(handler: Handler, *, check: Check | None, body_first: bool) -> Handler:
    handle_strictly = _strict(handler, check=check, body_first=body_first)

    async def attempt(request: Request, behind_the_answer: AsyncExitStack) -> RawResponse:
        scope, finished = request.scope, None
        # Stacks of its own: what it opened ends with it, and a COMMIT that fails is raised here.
        async with AsyncExitStack() as request_stack:
            scope["fastapi_inner_astack"] = request_stack
            async with AsyncExitStack() as function_stack:
                scope["fastapi_function_astack"] = function_stack
                response = wrapped(await handle_strictly(request), scope.get(_ANSWER))
                for finisher in scope.get(BEFORE_COMMIT, ()):
                    await finisher(response)
            finished = response
            behind_the_answer.push_async_exit(request_stack.pop_all())
        if finished is None:
            raise FastAPIError(NOT_SENT)  # as FastAPI does where its own stacks are
        return finished

    async def handle(request: Request) -> RawResponse:
        stack: AsyncExitStack = request.scope["fastapi_inner_astack"]
        try:
            return await attempt(request, stack)
        except DBAPIError as lost:
            return await run_again(lambda: attempt(request, stack), request.scope, lost)

    return handle


def wrapped(response: RawResponse, answer: tuple[str, int | None] | None) -> RawResponse:
    status = response.status_code
    if status in BODILESS:
        return _without_body(response)
    if answer is None:
        # The endpoint made the response itself: JSON is wrapped, anything else is its own business.
        if not _is_value(response):
            return response
        answer = ("success" if status < HTTPStatus.BAD_REQUEST else phrase(status), None)
    elif response.media_type != "application/json":
        # The route has a response class of its own, for text or HTML.
        return response
    msg, code = answer
    return _spliced(response, code if code is not None else status, msg)


def _is_value(response: RawResponse) -> bool:
    """Finished JSON. A download, a part of something, a compressed body, a redirect or another JSON format is none."""
    headers = response.headers
    return (
        hasattr(response, "body")
        and headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        and not headers.get("content-disposition", "").lower().startswith("attachment")
        and "content-encoding" not in headers
        and "content-range" not in headers
        and not HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST
    )


def _without_body(response: RawResponse) -> RawResponse:
    if hasattr(response, "body"):
        response.body = b""
        del response.headers["content-length"]
        del response.headers["content-type"]
        if response.status_code == HTTPStatus.RESET_CONTENT:
            response.headers["content-length"] = "0"  # RFC 9110 §15.3.6: it has a length, and that is zero
    return response


def _spliced(response: RawResponse, code: int, msg: str) -> RawResponse:
    body = envelope(code, msg, bytes(response.body) or b"null")
    response.body = body
    response.headers["content-length"] = str(len(body))
    return response

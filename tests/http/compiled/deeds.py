"""What an app's functions can be told to do by a request's plan, and the names that its source text uses."""

import asyncio
import enum
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Security,
)
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from loguru import logger
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    field_serializer,
    field_validator,
)
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from starlette.responses import Response as RawResponse
from starlette.routing import Mount, NoMatchFound, Route
from starlette.types import Receive, Scope, Send

from src.cache import CacheUnavailableError
from src.exceptions import BusinessException
from src.http import Response, unwrapped
from src.http.envelope import before_commit
from src.shared.errors import ErrorCode
from src.shared.inline import inline
from src.shared.logging import current_request

NOW = datetime(2026, 2, 3, 4, 5, 6, 789, UTC)


VALIDATORS = ("checked", ".validate")
"""Sites inside validators."""


class TeapotError(Exception):
    """A team's own, with or without a handler of its own."""


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Point:
    x: int
    y: int = 2


class Row:
    """What a table gives: more columns than the letter has."""

    def __init__(self) -> None:
        self.a, self.b, self.password = 1, "text", "canary"


class Performance:
    """The plan of the request under way, and where to write down what happens."""

    def __init__(self, events: list[tuple[Any, ...]]) -> None:
        self.events = events
        self.plan: Mapping[str, tuple[str, ...]] = {}
        self.reached = False
        self._validated: set[str] = set()

    def begin(self, plan: Mapping[str, tuple[str, ...]]) -> None:
        self.plan, self.reached, self._validated = plan, False, set()

    def act(self, site: str, **values: Any) -> None:
        """At this point of the app: note what came in, then do what is planned."""
        self.reached = self.reached or site.startswith(("dep", "endpoint"))
        seen = (site, {name: shown(value) for name, value in values.items()})
        # FastAPI validates the input of a dependency once more with each of its uses; a compiled route does so once.
        if not (site.endswith(VALIDATORS) and repr(seen) in self._validated):
            self.events.append(seen)
            self._validated.add(repr(seen))
        for deed in self.plan.get(site, ()):
            if deed in _EXCEPTIONS:
                raise _made(deed)
            if deed in _MARKS:
                _MARKS[deed](self, site, tuple(values.values()))

    def caught(self, site: str, error: BaseException) -> None:
        self.events.append((site, "caught", type(error).__name__, str(error)))

    def returned(self, site: str, value: Any, response: RawResponse | None = None) -> Any:
        """What is planned to be returned there, or the value."""
        for deed in self.plan.get(site, ()):
            if deed in _VALUES:
                return _VALUES[deed](self, site, response)
        return value


def shown(value: Any) -> Any:
    """Something that compares equal in both worlds, whose classes are not the same."""
    if isinstance(value, RawResponse):
        return "Response", value.status_code, list(value.raw_headers)
    if isinstance(value, HTTPConnection):
        route = value.scope.get("route")
        return (
            type(value).__name__,
            value.url.path,
            dict(value.path_params),
            list(value.query_params.multi_items()),
            getattr(route, "path", None),
            getattr(value.scope.get("fastapi", {}).get("effective_route_context"), "path", None),
            _url_for(value, "endpoint0", x="1"),
        )
    if isinstance(value, SecurityScopes):
        return value.scopes, value.scope_str
    if isinstance(value, BackgroundTasks):
        return "BackgroundTasks", len(value.tasks)
    return repr(value)


def _url_for(request: HTTPConnection, name: str, **values: str) -> str | None:
    try:
        return str(request.url_for(name, **values))
    except (NoMatchFound, AssertionError, ValueError):
        return None


# --- exceptions ---------------------------------------------------------------------------------------------------------


def _made(deed: str) -> BaseException:
    return _EXCEPTIONS[deed]()


def _reused() -> Exception:
    return _REUSED


_REUSED = HTTPException(418, "the same one each time")

_EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "business": lambda: BusinessException(ErrorCode.PRODUCT_NOT_FOUND),
    "business-data": lambda: BusinessException(ErrorCode.TOO_MANY_ATTEMPTS, "Slowly", {"retry_after_seconds": 3}),
    "http-401": lambda: HTTPException(401, {"why": "no"}, {"WWW-Authenticate": "Basic"}),
    "http-404": lambda: HTTPException(404, "Nothing", {"X-Reason": "none"}),
    "http-405": lambda: HTTPException(405),
    "http-204": lambda: HTTPException(204, headers={"X-Reason": "empty"}),
    "http-503": lambda: HTTPException(503, ["a", {"b": Decimal("1.0")}]),
    "http-reused": _reused,
    "validation": lambda: RequestValidationError([{"loc": ("query", "q"), "type": "mine", "msg": "Mine"}], body="x"),
    "teapot": lambda: TeapotError("short and stout"),
    "value": lambda: ValueError("a value that is not accepted"),
    "assertion": lambda: AssertionError("not so"),
    "key": lambda: KeyError("key"),
    "crash": lambda: RuntimeError("crash"),
    "cache": lambda: CacheUnavailableError("away"),
    "gone": ClientDisconnect,
    "group": lambda: ExceptionGroup("both", [ValueError("one"), KeyError("two")]),
    "cancelled": asyncio.CancelledError,
    "stop-async": StopAsyncIteration,
}
RAISES = tuple(_EXCEPTIONS)
IN_VALIDATORS = ("value", "assertion", "key", "http-404", "business", "crash", "teapot")


# --- marks on what was handed over ------------------------------------------------------------------------------------

Mark = Callable[[Performance, str, tuple[Any, ...]], None]
T = TypeVar("T")


def _of(kind: type[T], values: tuple[Any, ...]) -> Iterator[T]:
    yield from (value for value in values if isinstance(value, kind))


def _header(name: str, text: str) -> Mark:
    def mark(_: Performance, site: str, values: tuple[Any, ...]) -> None:
        for response in _of(RawResponse, values):
            response.headers[name] = text.replace("SITE", site)

    return mark


def _status(status: int) -> Mark:
    def mark(_: Performance, _site: str, values: tuple[Any, ...]) -> None:
        for response in _of(RawResponse, values):
            response.status_code = status

    return mark


def _cookie(_: Performance, site: str, values: tuple[Any, ...]) -> None:
    for response in _of(RawResponse, values):
        response.set_cookie("site", site, max_age=60)
        response.set_cookie("other", "", httponly=True)


def _task(performance: Performance, site: str, values: tuple[Any, ...]) -> None:
    async def task() -> None:
        performance.act(f"{site}.task")

    for tasks in _of(BackgroundTasks, values):
        tasks.add_task(task)


def _plain_task(performance: Performance, site: str, values: tuple[Any, ...]) -> None:
    for tasks in _of(BackgroundTasks, values):
        tasks.add_task(performance.act, f"{site}.task")


def _user(_: Performance, site: str, _values: tuple[Any, ...]) -> None:
    context = current_request()
    if context is not None:
        context.user_id = f"user-of-{site}"


def _line(_: Performance, site: str, _values: tuple[Any, ...]) -> None:
    logger.bind(site=site).info("A line of the app")


def _finisher(performance: Performance, site: str, values: tuple[Any, ...]) -> None:
    async def finish(response: RawResponse) -> None:
        performance.act(f"{site}.finish", body=bytes(response.body), response=response)

    for request in _of(Request, values):
        before_commit(request, finish)


def _attribute(_: Performance, site: str, values: tuple[Any, ...]) -> None:
    for request in _of(Request, values):
        request.state.site = site
        request.path_params["added"] = site


def _later(performance: Performance, site: str, values: tuple[Any, ...]) -> None:
    for response in _of(RawResponse, values):
        response.background = _async_task(performance, site)


_MARKS: dict[str, Mark] = {
    "later": _later,
    "header": _header("X-Site", "SITE"),
    "header-type": _header("Content-Type", "application/vnd.site+json"),
    "header-length": _header("X-Content-Type-Options", "mine"),
    "header-broken": _header("X-Broken", "a\r\nb"),
    "cookie": _cookie,
    **{f"status-{status}": _status(status) for status in (200, 201, 202, 204, 205, 304, 299, 400, 503)},
    "task": _task,
    "plain-task": _plain_task,
    "user": _user,
    "line": _line,
    "finisher": _finisher,
    "attribute": _attribute,
}
MARKS = tuple(_MARKS)


# --- values to return -------------------------------------------------------------------------------------------------

Value = Callable[[Performance, str, RawResponse | None], Any]


def _values(*values: Any) -> Iterator[Any]:
    yield from values


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else []


def _failing_generator() -> Iterator[int]:
    yield 1
    raise TeapotError("in the middle")


async def _stream(performance: Performance, site: str) -> AsyncIterator[bytes]:
    yield b"one"
    performance.act(f"{site}.stream")
    yield b"two"


def _async_task(performance: Performance, site: str) -> BackgroundTask:
    async def task() -> None:
        performance.act(f"{site}.task")

    return BackgroundTask(task)


class _ResponseOfItsOwn(JSONResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.status_code == 418:
            raise HTTPException(418, "raised while it was sent")
        await super().__call__(scope, receive, send)


_VALUES: dict[str, Value] = {
    "dict": lambda *_: {"a": 1, "b": "text"},
    "dict-more": lambda *_: {"a": "1", "b": None, "password": "canary"},
    "list": lambda *_: [1, 2, 3],
    "tuple": lambda *_: ({"a": 1}, {"a": 2}),
    "set": lambda *_: {1},
    "text": lambda *_: 'a "text" \u2028 ü',
    "surrogate": lambda *_: "\ud800",
    "bytes": lambda *_: b"bytes",
    "not-utf8": lambda *_: b"\xff",
    "none": lambda *_: None,
    "false": lambda *_: False,
    "int": lambda *_: 7,
    "digits": lambda *_: "7",
    "huge": lambda *_: 10**400,
    "nan": lambda *_: float("nan"),
    "decimal": lambda *_: Decimal("1234567890123456789.123456789"),
    "datetime": lambda *_: NOW,
    "date": lambda *_: NOW.date(),
    "delta": lambda *_: timedelta(seconds=90),
    "uuid": lambda *_: UUID(int=7),
    "colour": lambda *_: Colour.RED,
    "point": lambda *_: Point(1),
    "row": lambda *_: Row(),
    "object": lambda *_: object(),
    "class": lambda *_: Row,
    "generator": lambda *_: _values(1, 2),
    "generator-wrong": lambda *_: _values(1, "x", 3),
    "generator-fails": lambda *_: _failing_generator(),
    "path": lambda *_: FilePath("a/b"),
    "mapping-keys": lambda *_: {1: "a", None: "b", (1, 2): "c"},
    "nested": lambda *_: _nested(300),
    "success": lambda *_: Response.success({"a": 1, "b": "x"}),
    "success-plain": lambda *_: Response.success(),
    "success-list": lambda *_: Response.success([1]),
    "success-201": lambda *_: Response.success({"a": 1}, code=201),
    "success-204": lambda *_: Response.success(code=204),
    "success-205": lambda *_: Response.success(code=205),
    "success-code": lambda *_: Response.success({"a": 1}, "Grüße \ud800", code=77001),
    "success-304": lambda *_: Response.success({"a": 1}, code=304),
    "success-generator": lambda *_: Response.success(_values(1, "x")),
    "success-typed": lambda *_: Response[dict[str, int]](code=None, msg="typed", data={"a": 1}),
    "error": lambda *_: Response.error(ErrorCode.PRODUCT_OUT_OF_STOCK, data={"left": 1}),
    "error-plain": lambda *_: Response.error(ErrorCode.SERVICE_UNAVAILABLE, "Later"),
    "json": lambda *_: JSONResponse({"a": 1}, 202, {"X-Made": "here"}),
    "json-404": lambda *_: JSONResponse({"a": 1}, 404),
    "json-204": lambda *_: JSONResponse(None, 204),
    "json-attachment": lambda *_: JSONResponse([1], headers={"Content-Disposition": "attachment; filename=a"}),
    "json-broken": lambda *_: JSONResponse([1], headers={"X-Broken": "a\nb"}),
    "json-task": lambda performance, site, _: JSONResponse([1], background=_async_task(performance, site)),
    "json-own": lambda *_: _ResponseOfItsOwn([1]),
    "json-own-raises": lambda *_: _ResponseOfItsOwn([1], 418),
    "plain": lambda *_: PlainTextResponse("plain"),
    "html": lambda *_: HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'self'"}),
    "raw": lambda *_: RawResponse(b"{}", media_type="application/json"),
    "raw-205": lambda *_: RawResponse(status_code=205),
    "raw-304": lambda *_: RawResponse(b"x", 304),
    "redirect": lambda *_: RedirectResponse("/elsewhere"),
    "stream": lambda performance, site, _: StreamingResponse(_stream(performance, site)),
    "stream-sync": lambda *_: StreamingResponse(iter([b"a", b"b"]), 206, {"X-Made": "here"}, "application/json"),
    "stream-task": lambda performance, site, _: StreamingResponse(
        _stream(performance, site), background=_async_task(performance, site)
    ),
    "file": lambda *_: FileResponse(__file__, filename="x.py"),
    "file-missing": lambda *_: FileResponse("/nowhere/at/all"),
    "own": lambda _, __, response: response,
    "own-body": lambda _, __, response: _with_body(response),
    "exception": lambda *_: HTTPException(404),
    "coroutine": lambda *_: _Awaitable(),
}
RETURNS = tuple(_VALUES)


class _Awaitable:
    def __await__(self) -> Iterator[Any]:
        yield from ()


def _with_body(response: RawResponse | None) -> Any:
    if response is None:
        return None
    response.status_code, response.body = 200, b"[1]"
    response.headers["content-type"] = "application/json"
    return response


# --- names ------------------------------------------------------------------------------------------------------------


def namespace(performance: Performance) -> dict[str, Any]:
    """What source text can refer to."""
    return {
        "act": performance.act,
        "caught": performance.caught,
        "returned": performance.returned,
        "asyncio": asyncio,
        "functools": functools,
        "json": json,
        **{thing.__name__: thing for thing in _NAMES},
        "RawResponse": RawResponse,
        "Annotated": Annotated,
        "Any": Any,
        "Literal": Literal,
        **{function.__name__: function for function in (Query, Header, Cookie, Path, Body, Depends, Security)},
    }


_NAMES: tuple[Any, ...] = (
    UUID, datetime, date, timedelta, Decimal, APIRouter, BackgroundTasks, FastAPI, HTTPException, RequestValidationError,
    APIKeyHeader, APIKeyQuery, HTTPBearer, OAuth2PasswordBearer, SecurityScopes, AfterValidator, AliasChoices, BaseModel,
    ConfigDict, Field, Json, PlainSerializer, field_serializer, field_validator, BaseHTTPMiddleware, HTTPConnection,
    Request, JSONResponse, PlainTextResponse, Mount, Route, Response, unwrapped, inline, TeapotError, Colour, Point,
    BusinessException, ErrorCode,
)  # fmt: skip

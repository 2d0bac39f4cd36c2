"""One app definition, played twice: by compiled routes and by FastAPI's own path. What happens is written down.

The definition is source text. What its functions do besides passing values on is decided by each request's `Plan`: at
a site (`dep1.enter`, `endpoint0`, `Model0.validate`) it names deeds (raise this, set a header, return that). So one app
is good for many requests, and a plan shrinks by itself.
"""

import asyncio
import linecache
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import routing as fastapi_routing
from loguru import logger
from starlette.types import Message, Scope

from src.config import AppSettings, AuthSettings, Env, HTTPSettings, Settings, use_settings
from src.http import compiled, middleware
from src.http.app import Undercroft
from src.http.compiled.source import Compiled, NotUnderstoodError, compile_route
from src.http.errors import install_error_handlers
from src.http.openapi import install_openapi, operation_id
from src.shared.logging import current_request
from tests.http.compiled import deeds

MAX_BODY_BYTES = 1024
SECRET = "an-app-of-a-test-signs-nothing-that-lasts-0123456789"
HANGING_SECONDS = 10
REQUEST_ID = b"same-in-both"
JSON = ((b"content-type", b"application/json"),)


def settings(*, compiled_routes: bool, **http: Any) -> Settings:
    limits = {"max_body_bytes": MAX_BODY_BYTES, "request_timeout_seconds": 30.0} | http
    return Settings(
        app=AppSettings(env=Env.TEST),
        auth=AuthSettings.model_validate({"secret": SECRET}),
        http=HTTPSettings.model_validate(limits | {"compiled_routes": compiled_routes}),
    )


@dataclass(frozen=True)
class Request:
    """As a server would hand it over."""

    method: str = "GET"
    target: str = "/"
    """Percent-encoded, with its query."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: tuple[bytes, ...] = ()
    """Chunk by chunk."""
    plan: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overridden: tuple[str, ...] = ()
    """Dependencies that are replaced while this request is served."""
    gone: bool = False
    """The client hangs up before its body is whole."""
    host: bytes | None = b"testserver"


@dataclass
class Tally:
    """How many routes, and calls of them, went which way."""

    compiled: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    reached: int = 0
    """Requests that got as far as a route's own code, on FastAPI's own path."""
    served: int = 0
    """Requests that a compiled route answered."""


@dataclass(frozen=True)
class Record:
    """All that can be told of a request from outside, in the order in which it happened."""

    events: list[tuple[Any, ...]]
    scope: dict[str, Any]

    def status(self) -> int:
        return next((event[1] for event in self.events if event[0] == "http.response.start"), 0)

    def body(self) -> bytes:
        return b"".join(event[1] for event in self.events if event[0] == "http.response.body")

    def headers(self) -> list[tuple[bytes, bytes]]:
        return next((event[2] for event in self.events if event[0] == "http.response.start"), [])


class Stage:
    """An app, and what happens on it."""

    def __init__(self, source: str, *, compiled_routes: bool, tally: Tally, root_path: str = "", **http: Any) -> None:
        use_settings(settings(compiled_routes=compiled_routes, root_path=root_path, **http))
        self.tally = tally
        self.events: list[tuple[Any, ...]] = []
        self.performance = deeds.Performance(self.events)
        app = Undercroft(
            title="Stage",
            openapi_url=None,
            redirect_slashes=False,
            generate_unique_id_function=operation_id,
            root_path=root_path,
        )
        app.settings = settings(compiled_routes=compiled_routes, root_path=root_path, **http)
        install_error_handlers(app)
        install_openapi(app)
        self.app = app
        self.names = deeds.namespace(self.performance) | {"app": app, "__name__": deeds.__name__}
        exec(compile(source, "<stage>", "exec"), self.names)
        app.middleware_stack = app.build_middleware_stack()

    async def play(self, request: Request) -> Record:
        self.events.clear()
        self.performance.begin(request.plan)
        scope = scope_of(request)
        finished = asyncio.Event()
        chunks = list(request.body) or [b""]

        async def receive() -> Message:
            if chunks:
                body = chunks.pop(0)
                if request.gone and not chunks:
                    return {"type": "http.disconnect"}
                return {"type": "http.request", "body": body, "more_body": bool(chunks)}
            await finished.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.events.append(_noted(message))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                finished.set()

        replaced = {self.names[name]: self.names[f"instead_of_{name}"] for name in request.overridden}
        self.app.dependency_overrides.update(replaced)
        try:
            # Who cancels the one half of a stream leaves the other waiting for the client to hang up.
            async with asyncio.timeout(HANGING_SECONDS):
                await self.app(scope, receive, send)
        except BaseException as error:  # noqa: BLE001 - a cancellation is an outcome as well
            self.events.append(("left", type(error).__name__, str(error)))
        finally:
            self.app.dependency_overrides.clear()
        self.tally.requests += 1
        self.tally.reached += self.performance.reached
        return Record([_without_addresses(event) for event in self.events], self._facts(scope))

    def _facts(self, scope: Scope) -> dict[str, Any]:
        route, context = scope.get("route"), scope.get("fastapi", {}).get("effective_route_context")
        return {
            "route": getattr(route, "path", None),
            "context": getattr(context, "path", None),
            "endpoint": getattr(scope.get("endpoint"), "__name__", None),
            "path_params": scope.get("path_params"),
            "app": scope.get("app") is self.app,
            "router": scope.get("router") is self.app.router,
            "client": scope["client"],
            "root_path": scope["root_path"],
            "path": scope["path"],
        }

    def retire(self) -> None:
        """Its timers would hold it for as long as a request may take."""
        limits = self.app.middleware_stack.app.app  # type: ignore[union-attr] # the guard, the proxies, the limits
        if limits.deadlines._timer is not None:
            limits.deadlines._timer.cancel()


def scope_of(request: Request) -> Scope:
    path, _, query = request.target.partition("?")
    host = [(b"host", request.host)] if request.host is not None else []
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [*host, (b"x-request-id", REQUEST_ID), *request.headers],
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


def _without_addresses(told: Any) -> Any:
    """`<object at 0x7f…>` differs from one object to the next, not from one world to the other."""
    match told:
        case str():
            # What FastAPI has when a dependency swallows an exception, whose text tells a variable's name.
            told = told.replace("local variable 'outcome'", "local variable 'response'")
            return re.sub(r"0x[0-9a-f]{6,}", "0x", told)
        case bytes():
            return re.sub(rb"0x[0-9a-f]{6,}", b"0x", told)
        case list() | tuple():
            return type(told)(map(_without_addresses, told))
        case dict():
            return {key: _without_addresses(value) for key, value in told.items()}
    return told


def _noted(message: Message) -> tuple[Any, ...]:
    if message["type"] == "http.response.start":
        return message["type"], message["status"], [(bytes(name), bytes(value)) for name, value in message["headers"]]
    return message["type"], bytes(message.get("body", b"")), message.get("more_body", False)


@contextmanager
def listening() -> Iterator[Callable[[Stage], None]]:
    """The log lines of a stage become events of it, and what is compiled is counted."""
    now = SimpleNamespace(stage=SimpleNamespace(events=[], tally=Tally()))

    def access(line: tuple[Any, ...]) -> None:
        _, method, route, path, status, _, request_id, user_id, client, size = line
        now.stage.events.append(("access", method, route, path, status, request_id, user_id, client, size))

    def written(record: Any) -> bool:
        context = current_request()
        error = record["exception"]
        told = None if error is None else (error.type.__name__, str(error.value))
        who = (context.request_id, context.user_id) if context is not None else None
        now.stage.events.append(("log", record["level"].name, record["message"], record["extra"], told, who))
        return False  # or loguru would render the traceback, which takes as long as the request

    def compiling(*arguments: Any) -> Compiled:
        tally = now.stage.tally
        try:
            made = compile_route(*arguments)
        except NotUnderstoodError as reason:
            tally.refused[str(reason)] = tally.refused.get(str(reason), 0) + 1
            raise
        tally.compiled += 1

        async def call(*given: Any) -> Any:
            tally.served += 1
            return await made.call(*given)

        return replace(made, call=call)

    planted = pytest.MonkeyPatch()
    planted.setattr(middleware, "log_access", access)
    planted.setattr(compiled, "compile_route", compiling)
    logger.remove()
    handler = logger.add(lambda _: None, level=0, filter=written, catch=False)
    try:
        with warnings.catch_warnings():
            # pydantic warns of a value that does not fit its type, as an exception in a test and as a line elsewhere.
            warnings.simplefilter("ignore")
            yield lambda stage: setattr(now, "stage", stage)
    finally:
        planted.undo()
        logger.remove(handler)


@dataclass
class Twins:
    compiled: Stage
    ordinary: Stage
    listen: Callable[[Stage], None]

    async def play(self, request: Request) -> tuple[Record, Record]:
        records = []
        for stage in (self.compiled, self.ordinary):
            self.listen(stage)
            fastapi_routing._endpoint_context_cache.clear()
            records.append(await stage.play(request))
        return records[0], records[1]

    def retire(self) -> None:
        self.compiled.retire()
        self.ordinary.retire()


class NoAppError(Exception):
    """FastAPI itself refuses the definition."""


def twins(source: str, listen: Callable[[Stage], None], tally: Tally, **how: Any) -> Twins:
    linecache.cache["<stage>"] = (len(source), None, source.splitlines(keepends=True), "<stage>")
    try:
        ordinary = Stage(source, compiled_routes=False, tally=Tally(), **how)
    except Exception as error:
        raise NoAppError from error
    return Twins(Stage(source, compiled_routes=True, tally=tally, **how), ordinary, listen)

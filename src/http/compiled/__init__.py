"""Compiled routes: each route that is fully understood becomes one straight-line coroutine, once, when it is first asked.

FastAPI keeps the routing semantics, OpenAPI, the dependency model and the exception handlers. Whatever is not
understood (forms, files, streams, mounts, a route class of its own, overrides in force) goes down FastAPI's own path,
with the same envelope around it; `docs/compiled-routes.md` tells the whole story. One door: `install(app)`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIRouter, RouteContext, _IncludedRouter, iter_route_contexts
from loguru import logger
from sqlalchemy.exc import DBAPIError
from starlette._exception_handler import wrap_app_handling_exceptions
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.responses import Response as RawResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.http.attempts import UNREPEATABLE, run_again
from src.http.compiled.runtime import deliver
from src.http.compiled.source import Compiled, NotUnderstoodError, compile_route
from src.http.compiled.table import Entry, Table
from src.http.envelope import FACTS, Facts

__all__ = ["OUTCOME", "Compiled", "CompiledRoutes", "Listed", "enter", "install", "list_routes"]

OUTCOME = "undercroft.outcome"
"""Where a scope carries what a route raised, or a response that may still raise, to the router's place, for its handlers."""

KNOWN_VERSIONS = {"fastapi": ("0.165.",), "starlette": ("1.10.",), "pydantic": ("2.14.",)}
"""Those whose every step was compared. With any other, routes are not compiled: slower, never wrong."""


@dataclass(frozen=True)
class Listed:
    methods: tuple[str, ...]
    path: str
    compiled: Compiled | None
    reason: str
    """Why it is not compiled, or empty."""


class CompiledRoutes:
    """Stands where the app's router stood, and hands on to it what it does not know."""

    def __init__(self, app: FastAPI, table: Table, router: ASGIApp) -> None:
        self._app = app
        self._find = table.find
        self._router = router

    def find(self, scope: Scope) -> tuple[Compiled, Entry, dict[str, Any]] | None:  # Any: path parameters
        # A test that replaces dependencies gets FastAPI's own solving, which asks for them with each request.
        # Path parameters that are there already come from an app that this one is mounted in.
        if self._app.dependency_overrides or "fastapi.telemetry" in scope or scope.get("path_params"):
            return None
        found = self._find(scope["method"], get_route_path(scope) if scope.get("root_path") else scope["path"])
        if found is None:
            return None
        entry, values = found
        compiled = entry.compiled
        return None if compiled is None else (compiled, entry, values)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if OUTCOME in scope:
            await _handled(partial(_tell, scope.pop(OUTCOME)), scope, receive, send)
            return
        found = self.find(scope) if scope["type"] == "http" else None
        if found is None:
            await self._router(scope, receive, send)
            return
        compiled, entry, values = found
        enter(scope, entry, values)

        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            if compiled.sends:
                send = _marking(scope, send)
            try:
                outcome = await compiled.call(scope, receive, send, values)
            except DBAPIError as lost:
                outcome = await run_again(lambda: compiled.call(scope, receive, send, values), scope, lost)
            if not compiled.sends:
                await deliver(outcome, compiled.status, scope, receive, send)

        await _handled(run, scope, receive, send)


def _marking(scope: Scope, send: Send) -> Send:
    async def marked(message: Message) -> None:
        scope[UNREPEATABLE] = True
        await send(message)

    return marked


async def _handled(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """With the app's exception handlers around it, as FastAPI has them around each route and once more around its router."""
    await wrap_app_handling_exceptions(app, Request(scope, receive, send))(scope, receive, send)


async def _tell(outcome: Exception | RawResponse, scope: Scope, receive: Receive, send: Send) -> None:
    if isinstance(outcome, Exception):
        raise outcome
    await deliver(outcome, outcome.status_code, scope, receive, send)


def enter(scope: Scope, entry: Entry, values: dict[str, Any]) -> None:  # Any: path parameters
    """What FastAPI's matching leaves in a scope, for whoever reads it there."""
    scope.update(entry.scope)
    if "fastapi" in entry.scope:
        # A route may hand its scope to another app, which would write into this.
        scope["fastapi"] = entry.scope["fastapi"].copy()
    scope["path_params"] = values


def install(app: FastAPI) -> CompiledRoutes | None:
    """Compile the routes of an app whose envelopes hang, and put them before its router. None when they are unknown."""
    if unknown := _unknown_versions():
        logger.bind(versions=unknown).warning(
            "Routes are not compiled: these versions are not known to behave as expected"
        )
        return None
    if _has_own_router(app.routes):
        logger.warning("Routes are not compiled: a router class of the app's own may have rules that are not known")
        return None
    table = Table(
        list(iter_route_contexts(app.routes)),
        lambda route: Entry(route, _scope_of(app, route), lambda: _compiled(route)[0]),
    )
    routes = CompiledRoutes(app, table, app.router.middleware_stack)
    app.router.middleware_stack = routes
    return routes


def list_routes(app: FastAPI) -> Iterator[Listed]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            made, reason = _compiled(context)
            yield Listed(tuple(sorted(context.methods or ())), context.path_format or "", made, reason)


def _compiled(context: RouteContext) -> tuple[Compiled | None, str]:
    original = context.original_route
    if not isinstance(original, APIRoute):
        return None, "no API route"
    route: Any = context._route_context or original  # noqa: SLF001 - FastAPI offers no public way yet. Any: either of two types
    facts: Facts = getattr(route, FACTS)
    try:
        return compile_route(original, route, facts), ""
    except NotUnderstoodError as unknown:
        return None, str(unknown)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the compiler, or with the route, a request must not see it
        logger.opt(exception=error).bind(route=context.path).warning("A route could not be compiled: FastAPI serves it")
        return None, f"the compiler failed: {type(error).__name__}"


def _scope_of(app: FastAPI, context: RouteContext) -> dict[str, Any]:  # Any: ASGI's scope
    known: dict[str, Any] = {  # Any: as above
        "app": app,
        "router": app.router,
        "route": context.original_route,
        "endpoint": context.endpoint,
    }
    if context._route_context is not None:  # noqa: SLF001 - as in _compiled
        known["fastapi"] = {"effective_route_context": context._route_context}  # noqa: SLF001 - as above
    return known


def _has_own_router(routes: Sequence[BaseRoute]) -> bool:
    """Whether an included router decides by itself which route takes a request, or how."""
    included = [route.original_router for route in routes if isinstance(route, _IncludedRouter)]
    own = ("__call__", "app", "handle", "matches")
    return any(
        any(getattr(type(router), name) is not getattr(APIRouter, name) for name in own)
        or _has_own_router(router.routes)
        for router in included
    )


@cache
def _unknown_versions() -> dict[str, str]:
    installed = {name: version(name) for name in KNOWN_VERSIONS}
    return {name: found for name, found in installed.items() if not found.startswith(KNOWN_VERSIONS[name])}

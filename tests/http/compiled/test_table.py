"""The table finds the route that FastAPI would have found, with the same path parameters, or leaves it to FastAPI."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.types import Message

from src.http.compiled.table import Entry, Table

PLAIN_SEGMENTS = ("a", "a", "b", "{x}", "{x}", "{y}", "", "7", "ü")
SEGMENTS = (*PLAIN_SEGMENTS, "{n:int}", "{rest:path}", "{x}.json", "a-{x}", "{u:uuid}")
METHODS = ((), ("GET",), ("GET",), ("GET",), ("POST",), ("GET", "POST"), ("HEAD",))
ASKED = ("a", "a", "b", "7", "", "a.json", "a-b", "ü", "a\n", "\n", "00000000-0000-0000-0000-000000000007", "{x}", "A")


@dataclass(frozen=True)
class Line:
    """A route, or something else that takes requests."""

    path: str
    methods: tuple[str, ...]
    router: int
    """0: the app itself."""
    kind: str = "api"


def paths(segments: tuple[str, ...], least: int = 1) -> st.SearchStrategy[str]:
    drawn = st.lists(st.sampled_from(segments), min_size=least, max_size=3)
    # A parameter's name comes once in a path.
    return drawn.map(lambda parts: "".join(f"/{part.replace('x', f'x{at}')}" for at, part in enumerate(parts))).filter(
        _once
    )


def _once(path: str) -> bool:
    names = [part.partition("}")[0].partition(":")[0] for part in path.split("{")[1:]]
    return len(names) == len(set(names))


def lines(segments: tuple[str, ...], *kinds: str) -> st.SearchStrategy[list[Line]]:
    line = st.builds(
        Line,
        paths(segments),
        st.sampled_from(METHODS[1:]),
        st.integers(0, 2),
        st.sampled_from(["api"] * 6 + list(kinds)),
    )
    return st.lists(line, min_size=1, max_size=7)


PREFIXES = st.tuples(paths(("a", "b", "{p}"), least=0), paths(("a", "{q}"), least=0))
QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "PUT"]),
        st.lists(st.sampled_from(ASKED), max_size=4).map(lambda parts: "/" + "/".join(parts)),
    ),
    min_size=4,
    max_size=10,
)


def built(drawn: list[Line], prefixes: tuple[str, str], *, nested: bool) -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    routers = [app.router, APIRouter(prefix=prefixes[0]), APIRouter(prefix=prefixes[1])]

    def endpoint_of(number: int) -> Any:  # Any: a function
        async def endpoint(request: Request) -> Any:  # Any: JSON
            return [f"route{number}", request.path_params]

        return endpoint

    for number, line in enumerate(drawn):
        router = routers[line.router]
        match line.kind:
            case "api":
                router.add_api_route(line.path, endpoint_of(number), methods=list(line.methods), name=f"route{number}")
            case "route":
                router.routes.append(Route(line.path, _elsewhere, methods=list(line.methods)))
            case "mount":
                router.routes.append(Mount(line.path.rstrip("/") or "/a", Starlette(routes=[Route("/a", _elsewhere)])))
            case "host":
                router.routes.append(Host("{tenant}.example", Starlette(routes=[Route("/a", _elsewhere)])))
        if number == len(drawn) // 2 and not nested:
            app.include_router(routers[1])
    (routers[1] if nested else app).include_router(routers[2])
    if nested:
        app.include_router(routers[1])
    return app


async def _elsewhere(_: Any) -> PlainTextResponse:
    return PlainTextResponse("elsewhere")


async def answer(app: FastAPI, method: str, path: str) -> object:
    """The name of the route that FastAPI chose, and its parameters; None for whatever else it said."""
    parts: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        parts.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
        "root_path": "",
        "scheme": "http",
    }
    await app(scope | {"client": None, "server": ("t", 80), "http_version": "1.1"}, receive, send)
    body = b"".join(part.get("body", b"") for part in parts)
    if parts[0]["status"] != 200 or body == b"elsewhere":
        return None
    # The path parameters of other convertors are text in JSON as well; only those of plain routes are compared.
    return json.loads(body)


def table_of(app: FastAPI) -> Table:
    return Table(list(iter_route_contexts(app.routes)), lambda route: Entry(route, {"name": route.name}, lambda: None))


def found(table: Table, method: str, path: str) -> object:
    entry_and_values = table.find(method, path)
    if entry_and_values is None:
        return None
    entry, values = entry_and_values
    return [entry.scope["name"], values]


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(drawn=lines(SEGMENTS, "route", "mount", "host"), prefixes=PREFIXES, nested=st.booleans(), questions=QUESTIONS)
def test_what_the_table_finds_is_what_fastapi_finds(
    run: asyncio.Runner, drawn: list[Line], prefixes: tuple[str, str], *, nested: bool, questions: list[tuple[str, str]]
) -> None:
    app = built(drawn, prefixes, nested=nested)
    table = table_of(app)

    for method, path in questions:
        mine = found(table, method, path)
        assert mine is None or mine == run.run(answer(app, method, path)), (method, path)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(drawn=lines(PLAIN_SEGMENTS), prefixes=PREFIXES, nested=st.booleans(), questions=QUESTIONS)
def test_among_plain_routes_the_table_finds_every_one(
    run: asyncio.Runner, drawn: list[Line], prefixes: tuple[str, str], *, nested: bool, questions: list[tuple[str, str]]
) -> None:
    app = built(drawn, prefixes, nested=nested)
    table = table_of(app)

    for method, path in questions:
        if "\n" not in path:
            assert found(table, method, path) == run.run(answer(app, method, path)), (method, path)

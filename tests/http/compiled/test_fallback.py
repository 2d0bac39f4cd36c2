"""What is not understood goes down FastAPI's own path, with the same envelope around it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from src.http import compiled
from src.http.compiled import list_routes
from src.http.compiled.source import NotUnderstoodError
from tests.http.compiled.stage import JSON, Request, Stage, Tally, Twins, twins

Listen = Callable[[Stage], None]
FORM = ((b"content-type", b"application/x-www-form-urlencoded"),)
FILE = ((b"content-type", b"multipart/form-data; boundary=x"),)
UPLOAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--x--\r\n'
IMPORTS = """
from fastapi import Form, UploadFile
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from opentelemetry.trace import NoOpTracer, TracerProvider
class Provider(TracerProvider):
    def get_tracer(self, *_, **__):
        act('tracer')
        return NoOpTracer()
"""
PLAIN = "@app.get('/')\nasync def endpoint0(x: int = 3):\n    act('endpoint0', x=x)\n    return x\n"


def served(run: asyncio.Runner, pair: Twins, request: Request) -> tuple[int, int, bytes]:
    """How many compiled routes answered, the status, and the body: the same as without compiled routes."""
    before = pair.compiled.tally.served
    mine, ordinary = run.run(pair.play(request))
    assert mine == ordinary
    return pair.compiled.tally.served - before, mine.status(), mine.body()


UNKNOWN = {
    "a form": (
        "@app.post('/')\nasync def endpoint0(a: Annotated[int, Form()]):\n    return a",
        Request("POST", "/", FORM, (b"a=1",)),
    ),
    "a file": (
        "@app.post('/')\nasync def endpoint0(file: UploadFile):\n    return (await file.read()).decode()",
        Request("POST", "/", FILE, (UPLOAD,)),
    ),
    "lines": ("@app.get('/')\nasync def endpoint0():\n    yield 1\n    act('endpoint0')\n    yield 2", Request()),
    "lines of a plain generator": (
        "@app.get('/')\ndef endpoint0():\n    yield 1\n    act('endpoint0')\n    yield 2",
        Request(),
    ),
    "server-sent events": (
        "@app.get('/', response_class=EventSourceResponse)\nasync def endpoint0():\n    yield 1\n    act('endpoint0')",
        Request(),
    ),
    "a route class of its own": (
        (
            "class Own(APIRoute):\n    def get_route_handler(self):\n        handle = super().get_route_handler()\n"
            "        async def own(request):\n            act('own')\n            return await handle(request)\n        return own\n"
            "router = APIRouter(route_class=Own)\n@router.get('/')\nasync def endpoint0():\n    return 1\napp.include_router(router)"
        ),
        Request(),
    ),
    "a router class of its own": (
        (
            "class Own(APIRouter):\n    def matches(self, scope):\n        act('matches')\n        return super().matches(scope)\n"
            "router = Own(prefix='/r')\n@router.get('/')\nasync def endpoint0():\n    return 1\napp.include_router(router)"
        ),
        Request(target="/r/"),
    ),
    "a mounted app": (
        "sub = FastAPI()\n@sub.get('/a')\nasync def below():\n    act('below')\n    return 1\napp.mount('/m', sub)",
        Request(target="/m/a"),
    ),
    "a response class": (
        "@app.get('/', response_class=PlainTextResponse)\nasync def endpoint0():\n    return 'text'",
        Request(),
    ),
    "what a standard fixes": ("@app.get('/')\n@unwrapped\nasync def endpoint0():\n    return {'a': 1}", Request()),
    "a body limit of its own": (
        "@app.post('/', max_body_size=10)\nasync def endpoint0(a: Annotated[Any, Body()]):\n    return a",
        Request("POST", "/", JSON, (b'"more than ten bytes"',)),
    ),
    "a status without a body": (
        "@app.delete('/', status_code=204)\nasync def endpoint0():\n    act('endpoint0')",
        Request("DELETE"),
    ),
    "a dependency without a cache": (
        (
            "async def dep0():\n    act('dep0')\n    return 1\n@app.get('/')\n"
            "async def endpoint0(a: Annotated[int, Depends(dep0, use_cache=False)], b: Annotated[int, Depends(dep0)]):\n    return a + b"
        ),
        Request(),
    ),
    "a convertor": ("@app.get('/{x:int}')\nasync def endpoint0(x: int):\n    return x", Request(target="/7")),
    "half a segment": ("@app.get('/{x}.json')\nasync def endpoint0(x: int):\n    return x", Request(target="/7.json")),
    "telemetry": (f"app._native_telemetry.config['tracer_provider'] = Provider()\n{PLAIN}", Request()),
    "a path that FastAPI decides": (
        f"app.router.routes.append(Route('/{{y}}', lambda request: PlainTextResponse('first')))\n{PLAIN.replace('/', '/a')}",
        Request(target="/a"),
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_understood_is_answered_by_fastapi(run: asyncio.Runner, listen: Listen, name: str) -> None:
    source, request = UNKNOWN[name]
    pair = twins(IMPORTS + source, listen, Tally())

    calls, status, body = served(run, pair, request)

    assert calls == 0
    assert status in (200, 204, 413)
    assert body or status == 204


def test_a_route_beside_it_is_compiled_all_the_same(run: asyncio.Runner, listen: Listen) -> None:
    pair = twins(f"{IMPORTS}{UNKNOWN['a form'][0]}\n{PLAIN.replace('endpoint0', 'endpoint1')}", listen, Tally())

    assert served(run, pair, UNKNOWN["a form"][1])[:2] == (0, 200)
    assert served(run, pair, Request())[:2] == (1, 200)


def test_what_is_not_compiled_is_listed_with_its_reason(listen: Listen) -> None:
    pair = twins(f"{IMPORTS}{UNKNOWN['a form'][0]}\n{PLAIN.replace('/', '/b')}", listen, Tally())

    listed = {
        (route.path, route.methods): (route.compiled is not None, route.reason)
        for route in list_routes(pair.compiled.app)
    }

    assert listed == {("/", ("POST",)): (False, "a form"), ("/b", ("GET",)): (True, "")}


def test_a_websocket_is_answered_by_fastapi(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        "from fastapi import WebSocket\n@app.websocket('/{x}')\nasync def endpoint0(socket: WebSocket, x: int):\n"
        "    await socket.accept()\n    await socket.send_json([x, await socket.receive_text()])\n    await socket.close()\n"
        "@app.get('/{x}')\nasync def endpoint1(x: int):\n    return x"
    )
    pair = twins(source, listen, Tally())

    assert run.run(_converse(pair.compiled)) == run.run(_converse(pair.ordinary))
    assert served(run, pair, Request(target="/7"))[:2] == (1, 200)


async def _converse(stage: Stage) -> list[Any]:  # Any: ASGI's messages
    said: list[Any] = []  # Any: as above
    heard = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]

    async def receive() -> Any:  # Any: as above
        return heard.pop(0)

    async def send(message: Any) -> None:  # Any: as above
        said.append(message)

    headers = [(b"host", b"testserver")]
    scope = {
        "type": "websocket",
        "path": "/7",
        "query_string": b"",
        "headers": headers,
        "root_path": "",
        "scheme": "ws",
    }
    await stage.app(scope | {"client": ("192.0.2.7", 1), "subprotocols": []}, receive, send)
    assert said[1]["text"] == '[7,"hello"]'
    return said


def test_dependencies_that_are_replaced_are_asked_by_fastapi_until_they_are_put_back(
    run: asyncio.Runner, listen: Listen
) -> None:
    source = (
        "async def dep0():\n    act('dep0')\n    return 'dep0'\ndef instead_of_dep0(q: int = 1):\n    act('instead', q=q)\n    return q\n"
        "@app.get('/')\nasync def endpoint0(a: Annotated[Any, Depends(dep0)]):\n    return a"
    )
    pair = twins(source, listen, Tally())

    assert served(run, pair, Request()) == (1, 200, b'{"code":200,"msg":"success","data":"dep0"}')
    assert served(run, pair, Request(target="/", overridden=("dep0",))) == (
        0,
        200,
        b'{"code":200,"msg":"success","data":1}',
    )
    assert served(run, pair, Request()) == (1, 200, b'{"code":200,"msg":"success","data":"dep0"}')


@pytest.mark.parametrize(
    ("middleware", "event"),
    [
        (
            (
                "class Pure:\n    def __init__(self, app):\n        self.app = app\n    async def __call__(self, scope, receive, send):\n"
                "        act('around')\n        await self.app(scope, receive, send)\napp.add_middleware(Pure)"
            ),
            "around",
        ),
        (
            (
                "class Based(BaseHTTPMiddleware):\n    async def dispatch(self, request, call_next):\n        act('around')\n"
                "        return await call_next(request)\napp.add_middleware(Based)"
            ),
            "around",
        ),
    ],
    ids=["pure", "based"],
)
def test_below_a_team_s_middleware_routes_are_compiled_still(
    run: asyncio.Runner, listen: Listen, middleware: str, event: str
) -> None:
    pair = twins(PLAIN + middleware, listen, Tally())

    assert served(run, pair, Request())[:2] == (1, 200)
    assert pair.compiled.events[0][0] == event


def test_telemetry_that_is_set_up_while_the_app_starts_sees_each_request(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        IMPORTS
        + PLAIN
        + (
            "async def lifespan(app):\n    app._native_telemetry.config['tracer_provider'] = Provider()\n    yield\n"
            "from contextlib import asynccontextmanager\napp.router.lifespan_context = asynccontextmanager(lifespan)"
        )
    )
    pair = twins(source, listen, Tally())
    assert served(run, pair, Request())[0] == 1

    for stage in (pair.compiled, pair.ordinary):
        run.run(_start(stage))

    assert served(run, pair, Request())[:2] == (0, 200)


async def _start(stage: Stage) -> None:
    heard = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    said: list[str] = []

    async def receive() -> Any:  # Any: ASGI's messages
        return heard.pop(0)

    async def send(message: Any) -> None:  # Any: as above
        said.append(message["type"])

    await stage.app({"type": "lifespan", "state": {}}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("package", ["fastapi", "starlette", "pydantic"])
def test_a_version_that_is_not_known_turns_it_off_with_one_warning(
    run: asyncio.Runner, listen: Listen, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    known = compiled.version  # type: ignore[attr-defined] # importlib.metadata's, as the module has it
    monkeypatch.setattr(compiled, "version", lambda name: "99.0" if name == package else known(name))
    compiled._unknown_versions.cache_clear()
    lines = Stage.__new__(Stage)
    lines.events, lines.tally = [], Tally()
    listen(lines)

    try:
        pair = twins(PLAIN, listen, Tally())
        warnings = [event for event in lines.events if event[0] == "log"]

        assert served(run, pair, Request())[:2] == (0, 200)
        assert served(run, pair, Request(target="/?x=no"))[:2] == (0, 422)
    finally:
        compiled._unknown_versions.cache_clear()
    assert len(warnings) == 1
    assert warnings[0][1] == "WARNING"
    assert warnings[0][3] == {"versions": {package: "99.0"}}


@pytest.mark.parametrize(
    "error", [NotUnderstoodError("planted"), SyntaxError("planted"), KeyError("planted")], ids=repr
)
def test_a_compiler_that_fails_leaves_the_route_to_fastapi(
    run: asyncio.Runner, listen: Listen, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:  # Any: whatever it is given
        raise error

    pair = twins(PLAIN, listen, Tally())
    monkeypatch.setattr(compiled, "compile_route", fail)

    first, ordinary = run.run(pair.play(Request()))
    second, _ = run.run(pair.play(Request()))

    told = [event for event in first.events if event[0] == "log"]
    assert [event for event in first.events if event[0] != "log"] == ordinary.events
    assert second == ordinary
    assert [event[1] for event in told] == ([] if isinstance(error, NotUnderstoodError) else ["WARNING"])

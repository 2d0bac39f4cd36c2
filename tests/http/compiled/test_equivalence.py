"""Compiled routes do what FastAPI's own path does: same bytes, same order of everything, same log.

Apps and requests are drawn by Hypothesis; `EQUIVALENCE_EXAMPLES=20000` makes a long run of it
(with `-o faulthandler_timeout=0`: two hours).
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, Phase, assume, event, given, note, settings
from starlette.types import Receive, Scope, Send

from src.http.app import create_app
from tests.http.compiled import stage
from tests.http.compiled.grammar import App, Script, apps, scripts
from tests.http.compiled.stage import JSON, NoAppError, Request, Stage, Tally, Twins, twins

EXAMPLES = int(os.environ.get("EQUIVALENCE_EXAMPLES", "200"))
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
Listen = Callable[[Stage], None]


async def play(pair: Twins, *requests: Request) -> None:
    for request in requests:
        compiled, ordinary = await pair.play(request)
        assert compiled == ordinary, request


def test_generated_apps_answer_generated_requests_alike(run: asyncio.Runner, listen: Listen) -> None:
    tally = Tally()

    @MANY
    @given(scripts())
    def check(script: Script) -> None:
        note(script.app.source)
        try:
            pair = twins(script.app.source, listen, tally, root_path=script.app.root_path)
        except NoAppError as refused:
            event(f"refused by FastAPI: {type(refused.__cause__).__name__}")
            assume(False)  # noqa: FBT003 - as Hypothesis has it
        try:
            run.run(play(pair, *script.requests))
        finally:
            pair.retire()

    check()

    print(tally)  # noqa: T201 - for a long run
    # Or all could be equal because nothing is compiled, or nothing but refusals of input.
    assert tally.compiled > 0.5 * (tally.compiled + sum(tally.refused.values()))
    assert tally.served > 0.3 * tally.requests
    assert tally.reached > 0.3 * tally.requests


def test_generated_apps_have_the_same_document(listen: Listen) -> None:
    @settings(MANY, max_examples=max(15, EXAMPLES // 10))
    @given(apps())
    def check(app: App) -> None:
        note(app.source)
        try:
            pair = twins(app.source, listen, Tally())
        except NoAppError:
            assume(False)  # noqa: FBT003 - as Hypothesis has it
        assert document(pair.compiled.app) == document(pair.ordinary.app)

    check()


@pytest.mark.usefixtures("listen")
def test_the_service_has_the_same_document() -> None:
    on, off = (create_app(stage.settings(compiled_routes=each)) for each in (True, False))
    for app in (on, off):
        app.middleware_stack = app.build_middleware_stack()

    assert document(on) == document(off)
    assert len(document(on)) > 10_000


def document(app: FastAPI) -> bytes:
    try:
        return json.dumps(app.openapi()).encode()
    except Exception as error:  # noqa: BLE001 - then both must fail alike
        return repr(error).encode()


@pytest.mark.parametrize("routes", ["letters", "refusals"])
def test_what_a_team_has_written_answers_alike(run: asyncio.Runner, listen: Listen, routes: str) -> None:
    source = f"from tests.http.apps.{routes} import add_{routes}\nadd_{routes}(app)"
    tally = Tally()
    pair = twins(source, listen, tally)

    for request in asked_of(pair.ordinary.app):
        compiled, ordinary = run.run(pair.play(request))
        assert compiled == ordinary, request

    assert tally.compiled > sum(tally.refused.values())


def asked_of(app: FastAPI) -> Iterator[Request]:
    """Each route of one method, with three kinds of path, query and body."""
    for route in iter_route_contexts(app.routes):
        if route.path_format is None or not route.methods:
            continue
        for value, body in (
            ("1", b'{"id": 1, "name": "Lamp"}'),
            ("x%FF", b"[1, "),
            ("00000000-0000-0000-0000-000000000007", b""),
        ):
            path = route.path_format
            for name in route.param_convertors:
                path = path.replace(f"{{{name}}}", value)
            if not any(word in path for word in ("slow", "endless", "late", "wait", "forever", "sleep")):
                yield Request(min(route.methods), path, JSON if body else (), (body,))


# --- found by reading or by these tests, and mended -------------------------------------------------------------------

ENDPOINT = """
@app.get("/{x}")
async def endpoint0(*, x: int, response: RawResponse, tasks: BackgroundTasks, request: Request) -> Any:
    act("endpoint0", x=x, response=response, tasks=tasks, request=request)
    return returned("endpoint0", {"x": x}, response)
"""
HANDLERS = """
@app.exception_handler(TeapotError)
async def handler0(request, error):
    act("handler0")
    return JSONResponse({"pot": str(error)}, 418)

@app.exception_handler(Exception)
async def handler1(request, error):
    act("handler1")
    return JSONResponse({"text": str(error)}, 500)

@app.exception_handler(RequestValidationError)
async def handler2(request, error):
    return JSONResponse({"text": str(error), "body": repr(error.body)}, 422)
"""
LETTER = """
class Letter(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def validate(cls, value):
        act("validate", value=value)
        return value

@app.post("/")
async def endpoint0(letter: Letter) -> Letter:
    return returned("endpoint0", letter)
"""


def planned(**plan: tuple[str, ...]) -> Request:
    return Request(target="/3", plan={site.replace("__", "."): deeds for site, deeds in plan.items()})


@pytest.mark.parametrize(
    ("source", "request_"),
    [
        pytest.param(
            ENDPOINT + HANDLERS, planned(endpoint0=("teapot",), handler0=("business",)), id="a handler that refuses"
        ),
        pytest.param(
            ENDPOINT + HANDLERS, planned(endpoint0=("teapot",), handler0=("crash",)), id="a handler that crashes"
        ),
        pytest.param(ENDPOINT, planned(endpoint0=("task",), endpoint0__task=("crash",)), id="a task that crashes"),
        pytest.param(ENDPOINT, planned(endpoint0=("plain-task",)), id="a task of FastAPI's own class"),
        pytest.param(
            ENDPOINT.replace(", response: RawResponse, tasks: BackgroundTasks", "")
            .replace(", response=response, tasks=tasks", "")
            .replace(", response)", ")"),
            planned(endpoint0=("finisher",), endpoint0__finish=("later",)),
            id="a task of a finisher",
        ),
        pytest.param(
            ENDPOINT + HANDLERS, planned(endpoint0=("stream",), endpoint0__stream=("crash",)), id="a stream that breaks"
        ),
        pytest.param(ENDPOINT + HANDLERS, planned(endpoint0=("file-missing",)), id="a file that is not there"),
        pytest.param(ENDPOINT + HANDLERS, planned(endpoint0=("json-broken",)), id="a header that cannot be sent"),
        pytest.param(
            ENDPOINT + HANDLERS, planned(endpoint0=("header-broken",)), id="a header on the side that cannot be sent"
        ),
        pytest.param(ENDPOINT, planned(endpoint0=("json-own-raises",)), id="a response that refuses to be sent"),
        pytest.param(ENDPOINT + HANDLERS, Request(target="/x"), id="the place in the text of a wrong request"),
        pytest.param(
            "@app.get('/')\nasync def endpoint0() -> list[int]:\n    return returned('endpoint0', [])" + HANDLERS,
            Request(plan={"endpoint0": ("generator-wrong",)}),
            id="a generator that does not fit its model",
        ),
        pytest.param(
            LETTER.replace("-> Letter", "-> list[int]") + HANDLERS,
            Request("POST", "/", JSON, (b'{"a": 1}',), {"endpoint0": ("success-generator",)}),
            id="a generator in an envelope that does not fit its model",
        ),
        pytest.param(
            LETTER, Request("POST", "/", JSON, (b'{"a": 1}',), {"validate": ("value",)}), id="a validator runs once"
        ),
        pytest.param(
            "async def dep0(*, n: Annotated[int, Path()]):\n    return n\n"
            "@app.get('/')\nasync def endpoint0(n: Annotated[int, Depends(dep0)]):\n    return n",
            Request(),
            id="a path parameter that the path does not have",
        ),
        pytest.param(
            "async def value1():\n    return 1\nasync def errors2(x: int = 3):\n    return x\n"
            "@app.get('/')\nasync def query(a: Annotated[int, Depends(value1)], b: Annotated[int, Depends(errors2)], scope: int = 1):\n"
            "    return [a, b, scope]",
            Request(),
            id="functions with the names of variables",
        ),
        pytest.param(
            "@inline\nasync def dep0():\n    act('dep0')\n    yield 1\n    act('dep0.exit')\n"
            "@app.get('/')\nasync def endpoint0(a: Annotated[int, Depends(dep0)]):\n    return a",
            Request(),
            id="an inline generator that ends behind the answer",
        ),
        pytest.param(
            "@inline\ndef dep0():\n    act('dep0')\n    yield 1\n    act('dep0.exit')\n"
            "@app.get('/')\nasync def endpoint0(a: Annotated[int, Depends(dep0, scope='function')]):\n    return a",
            Request(),
            id="an inline generator that is not async",
        ),
    ],
)
def test_what_once_differed_is_alike(run: asyncio.Runner, listen: Listen, source: str, request_: Request) -> None:
    tally = Tally()
    pair = twins(source, listen, tally)

    compiled, ordinary = run.run(pair.play(request_))

    assert compiled.events == ordinary.events
    # FastAPI's own path sees a generator in a list fail only once, and so do we.
    assert tally.served == 1


ORDER = """
async def plain(q: int = 1):
    act("plain", q=q)
    return "plain"

def threaded(h: Annotated[int, Header()] = 1, first: Any = Depends(plain)):
    act("threaded", h=h)
    return "threaded"

async def request_scoped(first: Annotated[str, Depends(plain)], response: RawResponse):
    act("request_scoped", response=response)
    try:
        yield "request"
    except Exception as error:
        caught("request_scoped", error)
        raise
    finally:
        act("request_scoped.exit")

def function_scoped(first: Annotated[str, Depends(threaded)]):
    act("function_scoped")
    yield "function"
    act("function_scoped.exit")

class Of:
    def __init__(self, c: Annotated[str, Cookie()] = "cookie"):
        act("class", c=c)

router = APIRouter(prefix="/{x}", dependencies=[Depends(threaded)])

@router.post("/b", dependencies=[Depends(Of)], status_code=201)
async def endpoint0(
    *,
    x: int,
    body: Annotated[dict[str, int], Body()],
    a: Annotated[str, Depends(request_scoped)],
    b: Annotated[str, Depends(function_scoped, scope="function")],
    c: Annotated[str, Depends(plain)],
    response: RawResponse,
    tasks: BackgroundTasks,
    request: Request,
) -> dict[str, int]:
    act("endpoint0", x=x, body=body, a=a, b=b, c=c, response=response, tasks=tasks, request=request)
    return returned("endpoint0", body, response)

app.include_router(router)
"""


@pytest.mark.parametrize(
    ("target", "headers", "body", "plan"),
    [
        ("/1/b", JSON, b'{"a": 1}', {}),
        ("/x/b?q=x", ((b"h", b"x"), *JSON), b'{"a": "x"}', {}),
        ("/x/b?q=x&q=y&z=1", JSON, b"[", {}),
        ("/1/b?q=1&q=2&%71=3&z=1", JSON, b'{"a": 1}', {}),
        (
            "/1/b",
            JSON,
            b'{"a": 1}',
            {"endpoint0": ("task", "header", "cookie", "status-202", "user", "line", "finisher")},
        ),
        ("/1/b", JSON, b'{"a": 1}', {"request_scoped": ("header",), "endpoint0": ("teapot",)}),
        ("/1/b", JSON, b'{"a": 1}', {"threaded": ("http-401",)}),
        ("/1/b", JSON, b'{"a": 1}', {"function_scoped.exit": ("business",), "endpoint0": ("task",)}),
        ("/1/b", JSON, b'{"a": 1}', {"request_scoped.exit": ("crash",), "endpoint0": ("task",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("finisher", "header"), "endpoint0.finish": ("business-data",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("finisher",), "endpoint0.finish": ("later",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("finisher",), "endpoint0.finish": ("status-202",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("cancelled",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("dict-more",)}),
        ("/1/b", JSON, b'{"a": 1}', {"endpoint0": ("error-plain",)}),
        ("/1/b", (), b'{"a": 1}', {}),
    ],
)
def test_everything_happens_in_the_same_order(  # noqa: PLR0917, PLR0913 - a request has these parts
    run: asyncio.Runner, listen: Listen, target: str, headers: Any, body: bytes, plan: Any
) -> None:
    """A route with something of everything, by which the examples above can be read."""
    tally = Tally()
    pair = twins(ORDER, listen, tally)

    compiled, ordinary = run.run(pair.play(Request("POST", target, headers, (body,), plan)))

    assert compiled.events == ordinary.events
    assert compiled == ordinary
    assert tally.served == 1


def test_what_is_wrong_in_several_places_is_told_in_the_same_order(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        "async def dep0(*, q1: int, h1: Annotated[int, Header()], c1: Annotated[int, Cookie()]):\n    return 1\n"
        "@app.post('/{x}/{y}')\nasync def endpoint0(*, c: Annotated[int, Cookie()], h: Annotated[int, Header()], b: Annotated[int, Body()],"
        " q: int, y: int, a: Annotated[int, Depends(dep0)], d: Annotated[int, Body()], x: int):\n    return 1"
    )
    headers = ((b"h", b"x"), (b"h1", b"x"), (b"cookie", b"c=x; c1=x"), *JSON)
    pair = twins(source, listen, Tally())

    compiled, ordinary = run.run(pair.play(Request("POST", "/x/x?q=x&q1=x", headers, (b'{"b": "x", "d": "x"}',))))

    assert compiled == ordinary
    assert compiled.body().count(b"int_parsing") == 10


def test_a_deadline_that_passes_ends_both_alike(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        "async def dep0():\n    try:\n        yield 1\n    except BaseException as error:\n        caught('dep0', error)\n        raise\n"
        "@app.get('/{x}')\nasync def endpoint0(x: int):\n    act('endpoint0')\n    await asyncio.Event().wait()\n"
        "@app.get('/{x}/b')\nasync def endpoint1(x: int, a: Annotated[int, Depends(dep0)]):\n    await asyncio.Event().wait()\n"
    )
    tally = Tally()
    pair = twins(source, listen, tally, request_timeout_seconds=0.05)

    run.run(play(pair, Request(target="/1"), Request(target="/1/b")))

    assert tally.served == 2


def test_an_app_that_is_mounted_below_a_parameter_is_given_it(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        "@app.get('/{x}')\nasync def endpoint0(x: int, tenant: Annotated[str, Path()], request: Request):\n"
        "    act('endpoint0', x=x, tenant=tenant, request=request)\n    return [x, tenant]"
    )
    pair = twins(source, listen, Tally())

    for each in (pair.compiled, pair.ordinary):
        each.app = _Below(each.app)  # type: ignore[assignment] # an app around it

    run.run(play(pair, Request(target="/7"), Request(target="/x")))


class _Below:
    """What Starlette's `Mount("/{tenant}", app)` leaves in a scope."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.dependency_overrides = app.dependency_overrides
        self.router = app.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = {"tenant": "acme"}
        await self.app(scope, receive, send)


def test_what_a_route_does_to_its_scope_is_gone_with_the_request(run: asyncio.Runner, listen: Listen) -> None:
    source = (
        "sub, below = FastAPI(), APIRouter()\n@below.get('/{y}')\nasync def other(y: int):\n    return y\n"
        "sub.include_router(below)\nrouter = APIRouter()\n@router.get('/{x}')\nasync def endpoint0(x: int, request: Request):\n"
        "    act('endpoint0', request=request)\n    request.path_params['more'] = 1\n"
        "    async def send(message):\n        act('sent', status=message.get('status'))\n"
        "    await sub(request.scope, request.receive, send)\n    return x\napp.include_router(router)"
    )
    pair = twins(source, listen, Tally())

    for target in ("/1", "/2", "/3"):
        compiled, ordinary = run.run(pair.play(Request(target=target)))
        # But for the last line, the access line: on FastAPI's own path it tells the route of the app that was asked.
        assert compiled.events[:-1] == ordinary.events[:-1]


READS = {
    "the endpoint": "@app.post('/')\nasync def endpoint0(request: Request):\n    return await request.json()",
    "the endpoint, piece by piece": (
        "@app.post('/')\nasync def endpoint0(request: Request):\n"
        "    return [len(piece) async for piece in request.stream()]"
    ),
    "a dependency as well": (
        "async def dep0(request: Request):\n    return (await request.body()).decode()\n@app.post('/')\n"
        "async def endpoint0(a: Annotated[Any, Body()], b: Annotated[str, Depends(dep0)], request: Request):\n"
        "    return [a, b, await request.json()]"
    ),
    "a dependency piece by piece, before it": (
        "async def dep0(request: Request):\n    return [len(piece) async for piece in request.stream()]\n@app.post('/')\n"
        "async def endpoint0(b: Annotated[Any, Depends(dep0)], request: Request):\n    return [b, (await request.body()).decode()]"
    ),
    "nobody": "@app.post('/')\nasync def endpoint0():\n    return 1",
}


@pytest.mark.parametrize("source", READS.values(), ids=READS)
@pytest.mark.parametrize(
    "request_",
    [
        Request("POST", "/", JSON, (b"[1,", b"2]")),
        Request("POST", "/", JSON, (b"[1,", b"2]"), gone=True),
        Request("POST", "/", JSON, (b"[1,1", b"]" * stage.MAX_BODY_BYTES)),
        Request("POST", "/", JSON, (b"{", b"")),
        Request("POST", "/", (), (b"",)),
    ],
    ids=["whole", "broken off", "too large", "no JSON", "empty"],
)
def test_who_reads_the_body_finds_the_same(run: asyncio.Runner, listen: Listen, source: str, request_: Request) -> None:
    tally = Tally()
    pair = twins(source, listen, tally)

    run.run(play(pair, request_))

    assert tally.served == 1


def test_a_server_may_leave_out_what_asgi_lets_it(run: asyncio.Runner, listen: Listen) -> None:
    """`root_path` above all."""
    pair = twins(ENDPOINT, listen, Tally())
    answers: list[Any] = []  # Any: ASGI's messages

    async def ask(each: Stage) -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            answers.append(message)

        scope = stage.scope_of(Request(target="/7"))
        del scope["root_path"], scope["state"]
        listen(each)
        await each.app(scope, receive, send)

    run.run(ask(pair.compiled))
    run.run(ask(pair.ordinary))

    assert answers[:2] == answers[2:]
    assert answers[0]["status"] == 200

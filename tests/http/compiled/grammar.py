"""A small grammar of FastAPI apps and of requests to them: what Hypothesis draws, written down as source text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from hypothesis import strategies as st

from tests.http.compiled.deeds import IN_VALIDATORS, MARKS, RAISES, RETURNS
from tests.http.compiled.stage import MAX_BODY_BYTES, Request


@dataclass(frozen=True)
class Kind:
    """A type, with what fits it: as text in a URL, and as JSON; and a default."""

    text: str
    good: tuple[str, ...]
    json: tuple[object, ...]
    default: str
    sequence: bool = False


SCALARS = (
    Kind("int", ("7", "0", "-3", "1.0"), (7, "7", 2**70), "5"),
    Kind("Annotated[int, Field(ge=1, le=9)]", ("1", "9"), (1, 9), "4"),
    Kind("float", ("1.5", "1e3", "nan"), (1.5, 2), "0.5"),
    Kind("str", ("a", "ü", ""), ("a", "ü"), "'text'"),
    Kind("Annotated[str, Field(min_length=2, max_length=4, pattern='^[a-z]+$')]", ("ab", "abcd"), ("ab",), "'abc'"),
    Kind("bool", ("true", "off", "1"), (True, False), "True"),
    Kind("UUID", ("00000000-0000-0000-0000-000000000007",), ("00000000000000000000000000000007",), "UUID(int=1)"),
    Kind("datetime", ("2026-01-02T03:04:05Z", "2026-01-02"), ("2026-01-02T03:04:05+01:00", 7), "datetime(2026, 1, 2)"),
    Kind("date", ("2026-01-02",), ("2026-01-02",), "date(2026, 1, 2)"),
    Kind("timedelta", ("PT5S", "5"), ("PT5S", 5), "timedelta(seconds=5)"),
    Kind("Decimal", ("1.10", "12345678901234567890.1"), ("1.10", 1.1), "Decimal('1.10')"),
    Kind("Literal['a', 'b']", ("a", "b"), ("a",), "'b'"),
    Kind("Colour", ("red", "green"), ("red",), "Colour.RED"),
    Kind("bytes", ("abc",), ("abc",), "b'abc'"),
    Kind("int | None", ("7",), (7, None), "None"),
    Kind("int | str", ("7", "x"), (7, "x"), "'x'"),
    Kind("Any", ("7", "x"), (7, [1], {"a": None}), "None"),
    Kind("Annotated[str, AfterValidator(checked)]", ("fine",), ("fine",), "'fine'"),
    Kind("Json[list[int]]", ("[1, 2]",), ("[1]",), "'[3]'"),
)
IN_A_PATH = tuple(kind for kind in SCALARS if kind.text not in ("Any", "Json[list[int]]", "int | str", "int | None"))
SEQUENCES = (
    Kind("list[int]", ("1", "2"), ([1, 2], []), "[1]", sequence=True),
    Kind("list[str] | None", ("a", "b"), (["a"], None), "None", sequence=True),
    Kind("set[Colour]", ("red", "red"), (["red", "red"],), "{Colour.GREEN}", sequence=True),
    Kind("tuple[int, ...]", ("1",), ([1],), "(1, 2)", sequence=True),
)
ANY_TEXT = (
    "", "0", "-1", "x", "\x00", "\n", "a\tb", "ü€\U0001f600", "9" * 30, "9" * 5000, "1e400", "NaN", "null", "None", "true",
    "[1]", "{}", "a,b", "a=b&c", "%", "+", " 7 ", "2026-13-01", "red ", "../..", "A" * 300,
)  # fmt: skip
ANY_BYTES = ("%FF", "%C3%28", "%ED%A0%80", "%00", "%0A", "%2F", "%", "%zz", "+")
ANY_JSON: tuple[object, ...] = (
    None,
    True,
    0,
    -1.5,
    "x",
    "",
    [],
    [1],
    {},
    {"a": 1},
    {"a": {"b": [None]}},
    2**64,
    "\u0000",
)
BROKEN_BODIES = (
    b"", b"{", b"[1,]", b"nul", b"NaN", b'{"a": Infinity}', b'{"a": 1, "a": 2}', b'"\xff"', b'"\\ud800"', b"1e999",
    b"[" * 210 + b"]" * 210, b"\xef\xbb\xbf{}", b"{}{}", b"a=1&b=2", b"9" * 500, b"x" * (MAX_BODY_BYTES + 1),
)  # fmt: skip
CONTENT_TYPES = (
    None, b"", b"application/json", b"application/json; charset=utf-8", b"Application/JSON", b"application/problem+json",
    b"application/vnd.a+JSON; q=1", b"text/plain", b"application/x-www-form-urlencoded", b"json", b"application/", b"\xff/json",
    b"multipart/form-data; boundary=a", b"application/json, text/plain",
)  # fmt: skip
ACCEPTS = (b"application/problem+json", b"application/json, application/problem+json;q=0.5", b"*/*", b"text/html;q=x")


@dataclass(frozen=True)
class Param:
    place: str
    """query, header, cookie, body, path."""
    name: str
    wire: tuple[str, ...]
    """The names under which it may come in."""
    kind: Kind
    text: str
    model: "Model | None" = None
    embedded: bool = False


@dataclass(frozen=True)
class Model:
    name: str
    fields: tuple[Param, ...]
    text: str


@dataclass(frozen=True)
class Node:
    """A dependency or an endpoint."""

    name: str
    params: tuple[Param, ...]
    needs: tuple[str, ...]
    sites: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class RouteOf:
    path: str
    methods: tuple[str, ...]
    node: str
    needs: tuple[str, ...] = ()
    """Of the decorator and of the routers above."""


@dataclass(frozen=True)
class App:
    source: str = field(repr=False)
    nodes: Mapping[str, Node] = field(repr=False)
    routes: tuple[RouteOf, ...] = field(repr=False)
    models: tuple[Model, ...] = field(repr=False)
    sites: tuple[str, ...] = field(repr=False)
    root_path: str = ""

    def reachable(self, route: RouteOf) -> list[Node]:
        """The endpoint and all that it depends on, each once."""
        found: dict[str, Node] = {}

        def visit(name: str) -> None:
            if name in self.nodes and name not in found:
                found[name] = self.nodes[name]
                for need in self.nodes[name].needs:
                    visit(need)

        for name in (*route.needs, route.node):
            visit(name)
        return list(found.values())


PRELUDE = """
def checked(value):
    act("checked", value=value)
    return value
"""


def rarely(draw: st.DrawFn, one_in: int) -> bool:
    """Neither end of the range: Hypothesis draws these more often. Shrinks towards no."""
    return draw(st.integers(0, one_in)) == one_in // 2 + 1


# --- parameters -------------------------------------------------------------------------------------------------------

PLACES = {"query": "Query", "header": "Header", "cookie": "Cookie", "body": "Body"}


@st.composite
def aliases(draw: st.DrawFn, place: str, name: str) -> tuple[list[str], tuple[str, ...]]:
    """Arguments, and the names on the wire."""
    plain = name.replace("_", "-") if place == "header" else name
    match draw(st.sampled_from(["none", "none", "none", "alias", "validation", "choices", "underscores"])):
        case "alias":
            return [f"alias='{name}-other'"], (f"{name}-other",)
        case "validation":
            return [f"validation_alias='{name}.valid'"], (f"{name}.valid",)
        case "choices":
            return [f"validation_alias=AliasChoices('{name}1', '{name}_2')"], (f"{name}1", f"{name}_2")
        case "underscores" if place == "header":
            return ["convert_underscores=False"], (name,)
    return [], (plain,)


@st.composite
def params(draw: st.DrawFn, name: str, models: Sequence[Model], places: Sequence[str]) -> Param:
    place = draw(st.sampled_from(places))
    if models and rarely(draw, 5) and place != "path":
        model = draw(st.sampled_from(models))
        kind = Kind(model.name, (), (), "None")
        embedded = place == "body" and draw(st.booleans())
        arguments = "embed=True" if embedded else ""
        optional = " | None" if rarely(draw, 3) else ""
        default = " = None" if optional else ""
        text = f"{name}: Annotated[{model.name}{optional}, {PLACES[place]}({arguments})]{default}"
        return Param(place, name, (name,), kind, text, model, embedded)
    scalar = draw(st.sampled_from(SCALARS))
    kind = draw(st.sampled_from(SEQUENCES)) if place in ("query", "header") and rarely(draw, 4) else scalar
    chosen, wire = draw(aliases(place, name))
    default = ""
    match draw(
        st.sampled_from(["required", "required", "default", "default", "none", "factory", "wrong", "validated"])
    ):
        case "default":
            default = f" = {kind.default}"
        case "none":
            default = " = None"
        case "factory":
            chosen.append(f"default_factory=lambda: {kind.default}")
        case "wrong":
            default = " = 'not of this type'"
        case "validated":
            chosen.append("validate_default=True")
            default = draw(st.sampled_from([f" = {kind.default}", " = 'not of this type'"]))
    embedded = place == "body" and rarely(draw, 3)
    if embedded:
        chosen.append("embed=True")
    text = f"{name}: Annotated[{kind.text}, {PLACES[place]}({', '.join(chosen)})]{default}"
    return Param(place, name, wire, kind, text, None, embedded)


@st.composite
def models(draw: st.DrawFn, number: int) -> Model:
    name = f"Model{number}"
    config = draw(
        st.sampled_from(["", "extra='forbid'", "extra='allow'", "populate_by_name=True", "from_attributes=True"])
    )
    lines, fields = [], []
    for place in range(draw(st.integers(1, 3))):
        own = "abc"[place]
        kind = draw(st.sampled_from(SCALARS + SEQUENCES[:2]))
        default = draw(st.sampled_from(["", f" = {kind.default}", f" = Field({kind.default}, alias='{own}-x')"]))
        lines.append(f"    {own}: {kind.text}{default}")
        fields.append(Param("", own, (f"{own}-x",) if "alias" in default else (own,), kind, ""))
    for kind_of in draw(st.sets(st.sampled_from(["validate", "serialise"]))):
        deco = "@field_validator('a')\n    @classmethod" if kind_of == "validate" else "@field_serializer('a')"
        first = "cls" if kind_of == "validate" else "self"
        lines.append(f"    {deco}\n    def {kind_of}({first}, value):")
        lines.append(f"        act('{name}.{kind_of}', value=value)\n        return value")
    text = "\n".join([f"class {name}(BaseModel):", f"    model_config = ConfigDict({config})", *lines])
    return Model(name, tuple(fields), text)


# --- dependencies and endpoints ---------------------------------------------------------------------------------------

SPECIALS = {
    "request": "request: Request",
    "connection": "connection: HTTPConnection",
    "response": "response: RawResponse",
    "tasks": "tasks: BackgroundTasks",
    "scopes": "scopes: SecurityScopes",
}
SCHEMES = (
    "OAuth2PasswordBearer(tokenUrl='t', scopes={'s1': '', 's2': ''})",
    "APIKeyHeader(name='X-Key', auto_error=False)",
    "APIKeyQuery(name='key')",
    "HTTPBearer()",
)
KINDS = (
    "async", "async", "def", "inline", "class", "call", "async-call", "partial", "method",
    "yield", "async-yield", "async-yield", "inline-yield", "model", "scheme", "decorated",
)  # fmt: skip
TEARDOWNS = {
    "plain": "    yield '{name}'\n    act('{name}.exit')",
    "finally": "    try:\n        yield '{name}'\n    finally:\n        act('{name}.exit')",
    "swallow": "    try:\n        yield '{name}'\n    except Exception as error:\n        caught('{name}', error)",
    "reraise": (
        "    try:\n        yield '{name}'\n    except Exception as error:\n        caught('{name}', error)\n"
        "        act('{name}.caught')\n        raise\n    act('{name}.exit')"
    ),
    "http": (
        "    try:\n        yield '{name}'\n    except HTTPException as error:\n        caught('{name}', error)\n"
        "        raise HTTPException(409, 'instead') from error\n    finally:\n        act('{name}.exit')"
    ),
    "other": (
        "    try:\n        yield '{name}'\n    except BaseException as error:\n        caught('{name}', error)\n"
        "        raise TeapotError('another') from error\n    else:\n        act('{name}.exit')"
    ),
    "twice": "    yield '{name}'\n    act('{name}.exit')\n    yield 'again'",
}
SITES_OF_A_MARK = ("header", "cookie")


@st.composite
def asks(draw: st.DrawFn, name: str, generators: Mapping[str, str]) -> str:
    """How one function asks for another."""
    scope = ""
    if generators.get(name) == "inline":
        scope = ", scope='function'"
    elif name in generators:
        scope = draw(st.sampled_from(["", "", ", scope='function'", ", scope='request'"]))
    match draw(st.sampled_from(["depends"] * 8 + ["fresh"] + ["security"] * 3 + ["depends"] * 4)):
        case "security":
            oauth = draw(st.sampled_from(["['s1']", "['s2', 's1']", "[]"]))
            return f"Security({name}, scopes={oauth})"
        case "fresh":
            return f"Depends({name}, use_cache=False{scope})"
    return f"Depends({name}{scope})"


@dataclass
class Known:
    """What the functions of an app can be made of."""

    models: Sequence[Model]
    nodes: list[Node] = field(default_factory=list)
    """Dependencies."""
    generators: dict[str, str] = field(default_factory=dict)
    """Those that yield, and how they end."""


@st.composite
def signatures(
    draw: st.DrawFn, of: str, known: Known, places: Sequence[str], path: Sequence[str] = ()
) -> tuple[list[str], list[str], tuple[Param, ...], tuple[str, ...]]:
    """Parameters as text, what `act` is told of them, those that come from outside, and the functions asked for."""
    texts, told, inner, asked = [], [], [], []
    for name in path:
        kind = draw(st.sampled_from(IN_A_PATH))
        texts.append(f"{name}: {kind.text}")
        told.append(f"{name}={name}")
        inner.append(Param("path", name, (name,), kind, ""))
    names = [node.name for node in known.nodes]
    wants = st.lists(st.sampled_from(names), max_size=3) if names else st.just([])
    for number, name in enumerate(draw(wants)):
        how = draw(asks(name, known.generators))
        texts.append(f"need{number}: Annotated[Any, {how}]")
        told.append(f"need{number}=need{number}")
        asked.append(name)
    for number in range(draw(st.integers(0, 3))):
        # Now and then two functions read the same thing, each in its own way.
        name = f"p_{number}" if rarely(draw, 9) else f"{of}_p{number}"
        if name in {param.name for param in inner}:
            continue
        param = draw(params(name, known.models, places))
        texts.append(param.text)
        told.append(f"{param.name}={param.name}")
        inner.append(param)
    for name in draw(st.lists(st.sampled_from(sorted(SPECIALS)), max_size=3, unique=True)):
        texts.append(SPECIALS[name])
        told.append(f"{name}={name}")
    return texts, told, tuple(inner), tuple(asked)


def _depends(name: str, generators: Mapping[str, str]) -> str:
    return f"Depends({name}, scope='function')" if generators.get(name) == "inline" else f"Depends({name})"


def _function(head: str, texts: Sequence[str], body: str, *, own: str = "") -> str:
    star = "*, " if texts else ""
    inner = ", ".join(filter(None, [own, star + ", ".join(texts)]))
    return f"{head}({inner}):\n{body}"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


PLACES_OF_DEPENDENCIES = (("query", "header", "cookie"), ("query", "query", "header", "cookie", "body"))


@st.composite
def dependencies(draw: st.DrawFn, number: int, known: Known) -> Node:
    name, kind = f"dep{number}", draw(st.sampled_from(KINDS))
    if kind == "scheme":
        return Node(name, (), (), (), f"{name} = {draw(st.sampled_from(SCHEMES))}")
    if kind == "model" and known.models:
        model = draw(st.sampled_from(known.models))
        # Its fields become query parameters.
        query = tuple(Param("query", each.name, each.wire, each.kind, "") for each in model.fields)
        return Node(name, query, (), (), f"{name} = {model.name}")
    places = draw(st.sampled_from(PLACES_OF_DEPENDENCIES))
    texts, told, inner, asked = draw(signatures(f"d{number}", known, places))
    body = f"    act('{name}', {', '.join(told)})\n"
    sites: tuple[str, ...] = (name, f"{name}.around") if kind == "decorated" else (name,)
    if "yield" in kind:
        inline = kind == "inline-yield"
        teardown = draw(st.sampled_from(["plain", "finally", "reraise"] if inline else sorted(TEARDOWNS)))
        known.generators[name] = "inline" if inline else teardown
        body += TEARDOWNS[teardown].format(name=name)
        sites = (name, f"{name}.exit", f"{name}.caught")
    else:
        body += f"    return returned('{name}', '{name}')"
    instead = f"def instead_of_{name}(q: int = 1):\n    act('{name}.instead', q=q)\n    return 'instead'"
    return Node(name, inner, asked, sites, f"{_written(name, kind, texts, body)}\n{instead}")


def _written(name: str, kind: str, texts: Sequence[str], body: str) -> str:
    """A dependency of that kind."""
    match kind:
        case "class":
            act = body.partition("\n")[0]
            text = f"class {name}:\n" + _indent(_function("def __init__", texts, act, own="self"))
            return text + f"\n    def __repr__(self):\n        return '{name}()'"
        case "call" | "async-call" | "method":
            head = {"call": "def __call__", "async-call": "async def __call__", "method": "async def ask"}[kind]
            text = f"class Of_{name}:\n" + _indent(_function(head, texts, body, own="self")) + f"\n{name} = Of_{name}()"
            return text + (".ask" if kind == "method" else "")
        case "partial":
            return (
                _function(f"async def of_{name}", ["given", *texts], body)
                + f"\n{name} = functools.partial(of_{name}, given=1)"
            )
        case "decorated":
            text = f"{_function(f'async def of_{name}', texts, body)}\n@functools.wraps(of_{name})\n"
            return text + f"async def {name}(**values):\n    act('{name}.around')\n    return await of_{name}(**values)"
        case "def" | "yield" | "inline":
            return ("@inline\n" if kind == "inline" else "") + _function(f"def {name}", texts, body)
    return ("@inline\n" if kind == "inline-yield" else "") + _function(f"async def {name}", texts, body)


ANSWERS = (
    "", "", " -> Any", " -> None", " -> int", " -> str", " -> list[int]", " -> dict[str, int]", " -> Decimal", " -> datetime",
    " -> MODEL", " -> MODEL", " -> list[MODEL]", " -> MODEL | None", " -> Response[MODEL]", " -> Response[list[int]]",
    " -> JSONResponse", " -> bytes", " -> set[int]", " -> float", " -> Point",
)  # fmt: skip
SHAPES = (
    "response_model_exclude_unset=True", "response_model_exclude_none=True", "response_model_exclude_defaults=True",
    "response_model_by_alias=False", "response_model_include={'a'}", "response_model_exclude={'a'}", "response_model=None",
    "response_model=dict[str, Any]", "response_class=JSONResponse", "response_class=PlainTextResponse",
)  # fmt: skip
STATUSES = (200, 200, 200, 200, 200, 201, 202, 203, 206, 400, 418, 500)
BODILESS = (204, 205, 304)


@st.composite
def endpoints(draw: st.DrawFn, number: int, known: Known, path: Sequence[str]) -> Node:
    name = f"endpoint{number}"
    kind = draw(
        st.sampled_from(
            [
                "async",
                "async",
                "async",
                "async",
                "unwrapped",
                "call",
                "partial",
                "def",
                "def",
                "async",
                "async",
                "async",
            ]
        )
    )
    places = draw(st.sampled_from([("query", "header", "cookie"), ("query", "body"), ("body",)]))
    texts, told, inner, asked = draw(signatures(f"e{number}", known, places, path))
    returns = draw(st.sampled_from(ANSWERS))
    if "MODEL" in returns:
        returns = returns.replace("MODEL", draw(st.sampled_from(known.models)).name) if known.models else ""
    response = ", response" if any(text.startswith("response:") for text in texts) else ""
    body = f"    act('{name}', {', '.join(told)})\n    return returned('{name}', {{'a': 1}}{response})"
    head = "def" if kind == "def" else "async def"
    match kind:
        case "call":
            inside = _function("async def __call__", texts, body, own="self").replace("):\n", f"){returns}:\n", 1)
            text = f"class Of_{name}:\n" + _indent(inside) + f"\n{name} = Of_{name}()"
        case "partial":
            text = _function(f"async def of_{name}", ["given", *texts], body).replace("):\n", f"){returns}:\n", 1)
            text += f"\n{name} = functools.partial(of_{name}, given=1)"
        case _:
            text = _function(f"{head} {name}", texts, body).replace("):\n", f"){returns}:\n", 1)
    if kind == "unwrapped":
        text = f"@unwrapped\n{text}"
    return Node(name, inner, asked, (name,), text)


# --- apps -------------------------------------------------------------------------------------------------------------

PATHS = (
    "/a", "/a", "/a/{x}", "/a/{x}", "/{x}", "/{x}/b", "/a/b", "/{x}/{y}", "/a/{x}/b", "/a/b/{x}", "/a/{x:int}", "/a/{x:path}",
    "/{x:uuid}", "/a/", "/", "/a/{x}.json", "/{x:path}", "/ü/{x}", "/a/{x}/",
)  # fmt: skip
METHODS = (
    ("GET",),
    ("GET",),
    ("GET",),
    ("POST",),
    ("PUT",),
    ("DELETE",),
    ("GET", "POST"),
    ("HEAD", "GET"),
    ("OPTIONS",),
    ("PATCH",),
)
PREFIXES = ("", "/r", "/r", "/{z}", "/a")
HANDLERS = {
    "TeapotError": ("TeapotError", "async def", "return JSONResponse({'pot': str(error)}, 418)"),
    "TeapotError-sync": ("TeapotError", "def", "return PlainTextResponse('pot', 418)"),
    "404": ("404", "async def", "return PlainTextResponse('none', 404)"),
    "HTTPException": ("HTTPException", "def", "return JSONResponse({'http': error.detail}, error.status_code)"),
    "validation": (
        "RequestValidationError", "async def",
        "return JSONResponse({'text': str(error), 'body': repr(error.body)}, 422)",
    ),
    "Exception": ("Exception", "async def", "return JSONResponse({'text': str(error)}, 500)"),
    "500": ("500", "def", "return PlainTextResponse('500', 500)"),
    "ValueError": ("ValueError", "async def", "return None"),
    "BusinessException": ("BusinessException", "async def", "return JSONResponse({'code': error.code}, 400)"),
}  # fmt: skip
MIDDLEWARE = {
    "pure": (
        "class Pure:\n    def __init__(self, app):\n        self.app = app\n"
        "    async def __call__(self, scope, receive, send):\n        act('pure')\n"
        "        await self.app(scope, receive, send)\n        act('pure.after')\napp.add_middleware(Pure)"
    ),
    "based": (
        "class Based(BaseHTTPMiddleware):\n    async def dispatch(self, request, call_next):\n        act('based')\n"
        "        response = await call_next(request)\n        act('based.after')\n        return response\n"
        "app.add_middleware(Based)"
    ),
}
MOUNTS = {
    "fastapi": (
        "sub = FastAPI()\n@sub.get('/a')\nasync def below(request: Request):\n    act('below', request=request)\n"
        "    return {'below': 1}\napp.mount('/a', sub)"
    ),
    "starlette": (
        "async def plain(request):\n    act('plain')\n    return PlainTextResponse('plain')\n"
        "app.router.routes.append(Mount('/m', routes=[Route('/{x}', plain)]))"
    ),
    "route": (
        "async def plain(request):\n    act('plain')\n    return PlainTextResponse('plain')\n"
        "app.router.routes.append(Route('/a/{x}', plain, methods=['GET']))"
    ),
}


@dataclass(frozen=True)
class RouterOf:
    name: str
    prefix: str
    """With those of the routers above."""
    needs: tuple[str, ...] = ()
    text: str = ""
    into: str = ""

    @property
    def inclusion(self) -> str:
        return f"{self.into}.include_router({self.name})"


@st.composite
def wanted(draw: st.DrawFn, known: Known) -> tuple[tuple[str, ...], list[str]]:
    """Of a router or a decorator: `dependencies=[…]`."""
    names = draw(st.lists(st.sampled_from([node.name for node in known.nodes]), max_size=1)) if known.nodes else []
    return tuple(names), [
        f"dependencies=[{', '.join(_depends(name, known.generators) for name in names)}]"
    ] if names else []


@st.composite
def routers(draw: st.DrawFn, known: Known) -> list[RouterOf]:
    """The app's own, and up to two others, beside each other or one in the other."""
    made = [RouterOf("app", "")]
    for number in range(draw(st.integers(0, 2))):
        prefix = draw(st.sampled_from(PREFIXES))
        asked, arguments = draw(wanted(known))
        arguments = [f"prefix='{prefix}'", *arguments]
        above = draw(st.sampled_from(made))
        text = f"router{number} = APIRouter({', '.join(arguments)})"
        made.append(RouterOf(f"router{number}", above.prefix + prefix, (*above.needs, *asked), text, above.name))
    # FastAPI wants a parameter once in a path.
    return made if all(router.prefix.count("{z}") < 2 for router in made) else made[:2]


@st.composite
def routes(draw: st.DrawFn, number: int, known: Known, router: RouterOf) -> tuple[RouteOf, Node, str]:
    path = draw(st.sampled_from(PATHS))
    names = [_name(part) for part in _parameters(path)]
    if "{z}" in router.prefix and draw(st.booleans()):
        names.append("z")
    methods = draw(st.sampled_from(METHODS))
    node = draw(endpoints(number, known, names))
    arguments = [f"methods={list(methods)!r}", f"name='{node.name}'"]
    status = draw(st.sampled_from(STATUSES + (BODILESS if "->" not in node.text else ())))
    arguments += [f"status_code={status}"] if status != 200 else []
    arguments += draw(st.lists(st.sampled_from(SHAPES), max_size=1)) if rarely(draw, 2) else []
    asked, dependencies_of = draw(wanted(known))
    text = (
        f"{node.text}\n\n{router.name}.add_api_route('{path}', {node.name}, {', '.join(arguments + dependencies_of)})"
    )
    return RouteOf(router.prefix + path, methods, node.name, (*router.needs, *asked)), node, text


@st.composite
def surroundings(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Exception handlers and middleware, and their sites."""
    lines, sites = [], []
    chosen = draw(st.lists(st.sampled_from(sorted(HANDLERS)), max_size=2, unique_by=lambda name: HANDLERS[name][0]))
    for number, handler in enumerate(chosen):
        kind, head, body = HANDLERS[handler]
        name = f"handler{number}"
        lines.append(f"@app.exception_handler({kind})\n{head} {name}(request, error):\n    act('{name}')\n    {body}")
        sites.append(name)
    if rarely(draw, 4):
        around = draw(st.lists(st.sampled_from(sorted(MIDDLEWARE)), max_size=2, unique=True))
        lines += [MIDDLEWARE[name] for name in around]
        sites += [site for name in around for site in (name, f"{name}.after")]
    return lines, sites


@st.composite
def apps(draw: st.DrawFn) -> App:
    known = Known([draw(models(number)) for number in range(draw(st.integers(0, 2)))])
    for number in range(draw(st.sampled_from([3, 4, 5, 2, 1, 0]))):
        known.nodes.append(draw(dependencies(number, known)))
    above = draw(routers(known))
    drawn = [draw(routes(number, known, draw(st.sampled_from(above)))) for number in range(draw(st.integers(1, 4)))]
    lines = [text for _, _, text in drawn]
    # Routers are included behind the first route or at the end; what is mounted stands in front or behind.
    lines[draw(st.sampled_from([1, len(lines)])) : 0] = [router.inclusion for router in above[:0:-1]]
    mount = [MOUNTS[draw(st.sampled_from(sorted(MOUNTS)))]] if rarely(draw, 4) else []
    lines = mount + lines if draw(st.booleans()) else lines + mount
    around, sites = draw(surroundings())
    nodes = [*known.nodes, *(node for _, node, _ in drawn)]
    first = [PRELUDE, *(model.text for model in known.models), *(node.text for node in known.nodes)]
    first += [router.text for router in above]
    sites += [site for node in nodes for site in node.sites]
    sites += [f"{model.name}.{kind}" for model in known.models for kind in ("validate", "serialise")]
    return App(
        "\n\n".join([*first, *lines, *around]),
        {node.name: node for node in nodes},
        tuple(route for route, _, _ in drawn),
        tuple(known.models),
        (*sites, "checked", "below", "plain"),
        draw(st.sampled_from(["", "", "", "", "/root"])),
    )


def _parameters(path: str) -> list[str]:
    return [f"{{{part.partition('}')[0]}}}" for part in path.split("{")[1:]]


def _name(parameter: str) -> str:
    return parameter.strip("{}").partition(":")[0]


# --- requests ---------------------------------------------------------------------------------------------------------


def texts(kind: Kind, *, hostile: bool) -> st.SearchStrategy[str]:
    """What fits, as it stands in a URL; or mostly so."""
    good = st.sampled_from(kind.good or ("1",)).map(lambda text: quote(text, safe=""))
    other = st.sampled_from(ANY_TEXT).map(lambda text: quote(text, safe="")) | st.sampled_from(ANY_BYTES)
    return st.one_of(good, good, good, other) if hostile else good


def values(param: Param, *, hostile: bool) -> st.SearchStrategy[object]:
    """The same as JSON."""
    good: st.SearchStrategy[object] = st.sampled_from(param.kind.json or (1,))
    if param.model is not None:
        fields = {each.wire[0]: values(each, hostile=hostile) for each in param.model.fields}
        good = st.fixed_dictionaries(fields)
        if hostile:
            good |= st.fixed_dictionaries({}, optional=fields)
    return st.one_of(good, good, good, st.sampled_from(ANY_JSON)) if hostile else good


@st.composite
def targets(draw: st.DrawFn, app: App, route: RouteOf, inner: Sequence[Param], *, hostile: bool) -> str:
    """A path of the route."""
    path = route.path
    for parameter in _parameters(path):
        kinds = [param.kind for param in inner if param.place == "path" and param.name == _name(parameter)]
        fitting = texts((kinds or [SCALARS[0]])[0], hostile=hostile)
        path = path.replace(parameter, draw(fitting | st.sampled_from(["a", "b"]) if hostile else fitting) or "1", 1)
    path = quote(path, safe="/%+,=&.-_~")
    if hostile and rarely(draw, 4):
        path = draw(
            st.sampled_from([f"{path}/", "/", "/a/b", "/r/a", "/m/1", "//a", "/a%2Fb", "/A", "", "/none", "/a%0A"])
        )
    return app.root_path + path if app.root_path and draw(st.booleans()) else path


@dataclass
class Inputs:
    query: list[str] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)

    def add(self, place: str, name: str, text: str) -> None:
        match place:
            case "query":
                self.query.append(f"{quote(name)}={text}")
            case "header":
                self.headers.append((name.lower().encode(), _unquoted(text)))
            case "cookie":
                self.cookies.append(f"{name}={_unquoted(text).decode('latin-1')}")


@st.composite
def inputs(draw: st.DrawFn, nodes: Sequence[Node], *, hostile: bool) -> Inputs:
    """Query, headers and cookies for all that the functions ask for."""
    made, given = Inputs(), set[tuple[str, str]]()
    for place, name, kind in (each for node in nodes for param in node.params for each in _flat(param)):
        if (hostile and rarely(draw, 4)) or (place, name) in given:
            continue
        given.add((place, name))
        for _ in range(2 if kind.sequence or (hostile and rarely(draw, 9)) else 1):
            made.add(place, name, draw(texts(kind, hostile=hostile)))
    if any("APIKeyQuery" in node.text for node in nodes) and draw(st.booleans()):
        made.query.append("key=k")
    if draw(st.booleans()):
        made.headers.append((b"authorization", draw(st.sampled_from([b"Bearer t", b"Basic eA==", b"", b"Bearer"]))))
        made.headers.append((b"x-key", b"k"))
    if hostile and rarely(draw, 4):
        made.query.append(draw(st.sampled_from(["extra=1", "&&", "=", "%FF=%FF", "a=1;b=2", "p_0=1&p_0=2", "x" * 400])))
    if made.cookies:
        made.headers.append((b"cookie", "; ".join(made.cookies).encode("latin-1", "replace")))
    if rarely(draw, 5):
        made.headers.append((b"accept", draw(st.sampled_from(ACCEPTS))))
    if hostile and rarely(draw, 9):
        made.headers += [(b"x-many-%d" % number, b"1") for number in range(100)]
    return made


@st.composite
def requests(draw: st.DrawFn, app: App) -> Request:
    hostile = rarely(draw, 3)
    route = draw(st.sampled_from(app.routes))
    nodes = app.reachable(route)
    inner = [param for node in nodes for param in node.params]
    path = draw(targets(app, route, inner, hostile=hostile))
    given = draw(inputs(nodes, hostile=hostile))
    in_body = [param for param in inner if param.place == "body"]
    body = draw(bodies(in_body, hostile=hostile)) if in_body or rarely(draw, 9) else b""
    headers = list(given.headers)
    if body:
        kind = draw(st.sampled_from(CONTENT_TYPES)) if hostile and rarely(draw, 2) else b"application/json"
        headers += [(b"content-type", kind)] if kind is not None else []
        headers += [(b"content-length", b"%d" % len(body))] if rarely(draw, 3) else []
    replaceable = [name for name, node in app.nodes.items() if f"instead_of_{name}(" in node.text]
    return Request(
        draw(st.sampled_from(OTHER_METHODS)) if hostile and rarely(draw, 4) else route.methods[0],
        path + ("?" + "&".join(given.query) if given.query else ""),
        tuple(headers),
        tuple(draw(chunked(body))),
        draw(plans(app, nodes)),
        tuple(draw(st.lists(st.sampled_from(replaceable), max_size=1))) if replaceable and rarely(draw, 9) else (),
        hostile and rarely(draw, 9),
        draw(st.sampled_from(OTHER_HOSTS)) if hostile and rarely(draw, 19) else b"testserver",
    )


OTHER_METHODS = ("GET", "POST", "HEAD", "DELETE", "OPTIONS", "get", "TRACE")
OTHER_HOSTS = (b"evil.example", b"", None, b"localhost:80")


def _flat(param: Param) -> list[tuple[str, str, Kind]]:
    if param.model is not None and param.place != "body":
        return [(param.place, wire, each.kind) for each in param.model.fields for wire in each.wire[:1]]
    return [(param.place, wire, param.kind) for wire in param.wire[:1]]


def _unquoted(text: str) -> bytes:
    """Headers and cookies have no percent encoding; a server lets no line break in."""
    return unquote_to_bytes(text).translate(None, b"\r\n\x00")


@st.composite
def bodies(draw: st.DrawFn, parameters: Sequence[Param], *, hostile: bool) -> bytes:
    if hostile and rarely(draw, 4):
        return draw(st.sampled_from(BROKEN_BODIES))
    if not parameters:
        return json.dumps(draw(st.sampled_from(ANY_JSON))).encode()
    if len(parameters) == 1 and not parameters[0].embedded and not (hostile and rarely(draw, 4)):
        return json.dumps(draw(values(parameters[0], hostile=hostile))).encode()
    whole = {
        param.wire[0]: draw(values(param, hostile=hostile)) for param in parameters if not (hostile and rarely(draw, 4))
    }
    return json.dumps(whole).encode()


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> list[bytes]:
    if len(body) < 2 or not rarely(draw, 5):
        return [body] if body else []
    cut = draw(st.integers(1, len(body) - 1))
    return draw(st.sampled_from([[body[:cut], body[cut:]], [b"", body], [body, b""], [body[:cut], b"", body[cut:]]]))


AFTERWARDS = ("header", "status-202", "status-204", "later", *RAISES)
IN_STREAMS = tuple(deed for deed in RAISES if deed != "cancelled")  # it would wait for its client


@st.composite
def plans(draw: st.DrawFn, app: App, reachable: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    plan: dict[str, tuple[str, ...]] = {}
    endpoint = reachable[-1].name
    if not rarely(draw, 4):
        plan[endpoint] = (*draw(st.lists(st.sampled_from(MARKS), max_size=2)), draw(st.sampled_from(RETURNS)))
    inner = [site for node in reachable for site in node.sites]
    wrong = rarely(draw, 3)
    for site in draw(st.lists(st.sampled_from([*inner, *inner, *app.sites]), max_size=2, unique=True)):
        deeds = (*plan.get(site, ()), *draw(st.lists(st.sampled_from(MARKS), max_size=2)))
        if wrong:
            deeds = (draw(st.sampled_from(IN_VALIDATORS if site[:5] in ("Model", "check") else RAISES)), *deeds)
        plan[site] = deeds
    for site in list(plan):
        for later in (f"{site}.task", f"{site}.finish", f"{site}.stream"):
            if rarely(draw, 5):
                plan[later] = (draw(st.sampled_from(IN_STREAMS if later.endswith(".stream") else AFTERWARDS)),)
    return plan


@dataclass(frozen=True)
class Script:
    """An app, and what is asked of it."""

    app: App
    requests: tuple[Request, ...] = field(default=())


@st.composite
def scripts(draw: st.DrawFn, most: int = 8) -> Script:
    app = draw(apps())
    return Script(app, tuple(draw(st.lists(requests(app), min_size=3, max_size=most))))

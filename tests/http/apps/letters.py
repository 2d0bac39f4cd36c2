"""Whatever a team's routes may return, and all the ways in which routers are put together."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# (a route without a return type has no response model: a case of its own)

import gzip
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial, wraps
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Form, Header, Path, Query, Request
from fastapi import Response as RawResponse
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery
from fastapi_pagination import Page, paginate
from pydantic import BaseModel, ConfigDict, Field

from src.http import Response, unwrapped
from src.shared.errors import ErrorCode

router = APIRouter()
COMPRESSED = gzip.compress(b'{"id":1}', mtime=0)
MANY_DIGITS = Decimal("1234567890123456789.123456789")


class Item(BaseModel):
    id: int
    name: str


class Row:
    """What a table gives: more columns than the letter has."""

    def __init__(self, **columns: Any) -> None:
        vars(self).update(columns)


class PublicItem(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


SECRET_ROW = Row(id=1, name="Lamp", password_hash="canary-secret-column")


@router.get("/value/dict")
async def a_dict() -> dict[str, int]:
    return {"id": 1}


@router.get("/value/list")
async def a_list():
    return [{"id": 1}]


@router.get("/value/none")
async def nothing():
    return None


@router.get("/value/false")
async def a_falsehood():
    return False


@router.get("/value/text")
async def a_text():
    return 'a "text" - with ünïcode \u2028'


@router.get("/value/model")
async def a_model() -> Item:
    return Item(id=1, name="Lamp")


@router.get("/value/lookalike")
async def a_lookalike():
    return {"code": 7, "msg": "mine", "data": "payload"}


@router.post("/value/created", status_code=201)
async def created():
    return {"id": 1}


@router.get("/value/filtered", response_model=PublicItem)
async def filtered():
    return SECRET_ROW


@router.get("/explicit/filtered", response_model=PublicItem)
async def explicitly_filtered():
    return Response.success(data=SECRET_ROW)


@router.get("/explicit/filtered-list", response_model=list[PublicItem])
async def explicitly_filtered_list():
    return Response.success([SECRET_ROW, SECRET_ROW])


@router.get("/explicit/annotated")
async def annotated() -> Response[PublicItem]:
    return Response.success(data=SECRET_ROW)


@router.get("/explicit/annotated-value")
async def annotated_value() -> Response[PublicItem]:
    return SECRET_ROW  # type: ignore[return-value] # what teams do


@router.get("/explicit/annotated-union")
async def annotated_union() -> Response[PublicItem] | None:
    return Response.success(data=SECRET_ROW)


@router.get("/explicit/annotated-page")
async def annotated_page() -> Response[Page[PublicItem]]:
    return Response.success(paginate([PublicItem(id=number, name="Lamp") for number in range(3)]))


@router.get("/explicit/bare")
async def bare() -> Response:  # type: ignore[type-arg] # what teams do
    return Response.success({"price": Decimal("1.10")})


@router.get("/explicit/page", response_model=Page[PublicItem])
async def explicit_page() -> Any:
    return Response.success(paginate([Item(id=number, name="Lamp") for number in range(3)]))


@router.get("/page", response_model=Page[PublicItem])
async def page() -> Any:
    return paginate([PublicItem(id=number, name="Lamp") for number in range(3)])


@router.get("/explicit/code")
async def explicit_code(code: int):
    return Response.success(data={"id": 1}, msg="Created", code=code)


@router.get("/explicit/message")
async def explicit_message():
    return Response.success(data=[], msg='Wörd "quoted"')


@router.get("/explicit/plain-def")
def explicit_plain_def():
    return Response.success(data=1, code=202)


@router.get("/explicit/error")
async def explicit_error(response: RawResponse):
    response.set_cookie("seen", "1")
    response.headers["X-Custom"] = "kept"
    return Response.error(ErrorCode.PRODUCT_OUT_OF_STOCK, "Only 3 items available", data={"available": 3})


@router.get("/explicit/error-default")
def explicit_error_default():
    return Response.error(ErrorCode.PRODUCT_NOT_FOUND)


@router.get("/response/json")
async def json_response():
    response = JSONResponse({"id": 1}, 201, {"X-Custom": "kept"})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@router.get("/response/json-error")
async def json_error():
    return JSONResponse({"reason": "teapot"}, 418)


class IndentedJSON(JSONResponse):
    def render(self, content: Any) -> bytes:
        return b"  " + super().render(content)


@router.get("/response/json-subclass")
async def json_subclass():
    return IndentedJSON({"id": 1})


@router.get("/response/class", response_class=IndentedJSON)
async def json_class():
    return {"id": 1}


@router.get("/response/class-json", response_class=JSONResponse)
async def explicit_json_class():
    return {"price": Decimal("1.10"), "ratio": float("nan")}


@router.get("/response/class-html", response_class=HTMLResponse)
async def html_class():
    return "<p>hello</p>"


@router.get("/response/bytes")
async def finished_bytes():
    return RawResponse(b'{"price": 1.10}', media_type="application/json")


@router.get("/response/vendor")
async def vendor_json():
    return JSONResponse({"type": "Feature"}, media_type="application/geo+json")


@router.get("/response/download")
async def download():
    return JSONResponse({"id": 1}, headers={"Content-Disposition": 'attachment; filename="export.json"'})


@router.get("/response/part")
async def part():
    return JSONResponse([1, 2], 206, {"Content-Range": "items 0-1/5"})


@router.get("/response/compressed")
async def compressed():
    return RawResponse(COMPRESSED, media_type="application/json", headers={"Content-Encoding": "gzip"})


@router.get("/response/injected")
async def injected(response: RawResponse):
    response.headers["X-Custom"] = "kept"
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    response.status_code = 203
    return {"id": 1}


async def _sets_header(response: RawResponse) -> None:
    response.headers["X-Dependency"] = "kept"
    response.status_code = 202


@router.get("/response/injected-by-dependency", dependencies=[Depends(_sets_header)])
def injected_by_dependency():
    return {"id": 1}


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: Decimal


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    item_id: int = Field(alias="itemId")
    note: str = "none"
    secret: str = "hidden"


def _exotic() -> dict[Any, Any]:
    return {
        "price": Decimal("1.10"),
        "digits": MANY_DIGITS,
        "big": 2**60 + 1,
        "huge": 10**40,
        "nan": float("nan"),
        "infinity": float("-inf"),
        "when": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        "local": datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        "set": {1},
        "frozen": frozenset({"a"}),
        "tuple": (1, 2),
        "point": Point(1, Decimal("2.50")),
        "colour": Colour.RED,
        "aliased": Aliased(item_id=1),
        "uuid": UUID(int=1),
        "bytes": b"abc",
        "generator": (number for number in range(2)),
        "mapping": MappingProxyType({"total": Decimal("3.30")}),
        "object": Row(id=1, price=Decimal("4.40")),
        1: "an int key",
    }


@router.get("/exotic/bare")
async def exotic_bare():
    return _exotic()


@router.get("/exotic/plain-def")
def exotic_plain_def():
    return _exotic()


@router.get("/exotic/explicit")
async def exotic_explicit():
    return Response.success(_exotic())


class Priced(BaseModel):
    price: Decimal
    digits: Decimal
    big: int
    ratio: float


@router.get("/exotic/model")
async def exotic_model() -> Priced:
    return Priced(price=Decimal("1.10"), digits=MANY_DIGITS, big=2**60 + 1, ratio=float("nan"))


@router.get("/alias/default")
async def alias_default() -> Aliased:
    return Aliased(item_id=1)


@router.get("/alias/by-name", response_model=Aliased, response_model_by_alias=False)
async def alias_by_name():
    return Response.success({"itemId": 1})


@router.get("/alias/unset", response_model=Aliased, response_model_exclude_unset=True)
async def alias_unset():
    return Response.success({"itemId": 1})


@router.get("/alias/include", response_model=Aliased, response_model_include={"note"})
async def alias_include():
    return Aliased(item_id=1)


@router.get("/alias/exclude", response_model=Aliased, response_model_exclude={"secret"})
async def alias_exclude():
    return Aliased(item_id=1)


@router.head("/head")
async def head():
    return {"id": 1}


class Counter:
    """An endpoint with a state of its own."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, step: int = 1) -> dict[str, int]:
        self.calls += step
        return {"step": step}


class PlainCounter(Counter):
    def __call__(self, step: int = 1) -> dict[str, int]:  # type: ignore[override] # the same, without async
        return {"step": step}


async def _multiply(by: int, number: int) -> dict[str, int]:
    return {"product": by * number}


def _multiply_plainly(by: int, number: int) -> dict[str, int]:
    return {"product": by * number}


def logged(endpoint: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @wraps(endpoint)
    async def call(*args: Any, **values: Any) -> Any:
        return await endpoint(*args, **values)

    return call


router.add_api_route("/endpoint/instance", Counter(), name="count")
router.add_api_route("/endpoint/plain-instance", PlainCounter(), name="count_plainly")
router.add_api_route("/endpoint/partial", partial(_multiply, 2), name="multiply")
router.add_api_route("/endpoint/plain-partial", partial(_multiply_plainly, 2), name="multiply_plainly")
router.add_api_route("/endpoint/decorated", logged(_multiply), name="decorated")


@router.get("/endpoint/request")
async def takes_request(request: Request, response: RawResponse) -> dict[str, str]:
    response.headers["X-Custom"] = "kept"
    return dict(request.query_params)


@router.get("/endpoint/unwrapped")
@unwrapped
async def standard_body():
    return {"access_token": "x"}


@router.api_route("/endpoint/methods", methods=["GET", "POST"])
async def two_methods(request: Request):
    return {"method": request.method}


class StampedRoute(APIRoute):
    """A team's own route class."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, RawResponse]]:
        handler = super().get_route_handler()

        async def stamped(request: Request) -> RawResponse:
            if "teapot" in request.query_params:
                return JSONResponse({"tea": True}, 418)
            response = await handler(request)
            response.headers["X-Stamp"] = "stamped"
            return response

        return stamped


stamped = APIRouter(prefix="/stamped", route_class=StampedRoute)


@stamped.get("/value")
async def stamped_value(request: Request) -> Item:
    return Item(id=1, name="Lamp")


@stamped.get("/twice")
async def stamped_success():
    return Response.success({"id": 1}, msg="Created", code=201)


async def _guard() -> None:
    """A dependency of the include."""


inner = APIRouter(prefix="/inner")


@inner.get("/{number}")
async def nested(number: int, tag: Annotated[str | None, Header()] = None) -> Item:
    return Item(id=number, name=tag or "none")


outer = APIRouter(prefix="/outer")
outer.include_router(inner, tags=["inner"], dependencies=[Depends(_guard)])


class Address(BaseModel):
    city: str
    lines: list[int] = []


class User(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: str = Field(pattern=r"^\S+@\S+$")
    age: int = Field(0, ge=0, le=150)
    colour: Colour = Colour.RED
    address: Address | None = None


class Order(BaseModel):
    user: User


@router.post("/letter/order")
async def take_order(order: Order):
    return order


@router.post("/letter/any")
async def take_anything(value: Annotated[Any, Body()]):
    return value


@router.post("/letter/numbers")
async def take_numbers(numbers: Annotated[list[int], Body()]):
    return numbers


@router.post("/letter/users")
async def take_users(users: list[User]):
    return users


@router.post("/letter/form")
async def take_form(name: Annotated[str, Form()]):
    return name


@router.get("/letter/parameters/{number}")
async def take_parameters(
    number: Annotated[int, Path(le=10)],
    page: Annotated[int, Query(ge=1)] = 1,
    x_token: Annotated[int | None, Header()] = None,
    session: Annotated[int | None, Cookie()] = None,
):
    return [number, page, x_token, session]


class Filters(BaseModel):
    colour: Colour | None = None
    size: list[int] = []


@router.get("/query/filters")
async def by_filters(filters: Annotated[Filters, Query()]):
    return filters


@router.get("/query/lists")
async def by_lists(
    tag: Annotated[list[str], Query()] = [],  # noqa: B006 - as the documentation of FastAPI types it
    ids: Annotated[list[int] | None, Query(alias="id")] = None,
    text: Annotated[str | None, Query(validation_alias="q")] = None,
):
    return {"tag": tag, "ids": ids, "text": text}


async def _reads_the_query(request: Request) -> Mapping[str, str]:
    return request.query_params


@router.get("/query/by-dependency")
async def by_dependency(query: Annotated[Mapping[str, str], Depends(_reads_the_query)]):
    return dict(query)


@router.get("/query/key")
async def by_key(key: Annotated[str, Depends(APIKeyQuery(name="api_key"))]):
    return key


def add_letters(app: FastAPI) -> None:
    app.include_router(router)
    app.include_router(stamped)
    app.include_router(outer, prefix="/v1", tags=["outer"])
    app.include_router(outer, prefix="/v2", tags=["again"])

    @app.get("/direct")
    async def direct():
        return {"id": 1}

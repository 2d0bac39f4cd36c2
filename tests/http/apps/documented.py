"""Routes of a team that say nothing of what they answer, and what the document must find out by itself."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache, partial, wraps
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Header, HTTPException, Request, status
from fastapi import Response as RawResponse
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi.sse import EventSourceResponse
from fastapi_pagination import Page, paginate
from pydantic import BaseModel

from src.auth import require_permissions
from src.exceptions import BusinessException
from src.http import Response, unwrapped
from src.http.app import create_app
from src.shared.errors import ErrorCode
from tests.http.apps import shelf

router = APIRouter(tags=["goods"])


class Item(BaseModel):
    id: int
    name: str = "Lamp"


class Reason(BaseModel):
    reason: str


LAMP = Item(id=1)


class Loose(BaseModel):
    text: str
    lines: list[str]


@router.post("/loose")
async def take_anything(loose: Loose, number: int = 0, mood: Annotated[str, Header()] = "") -> Loose:
    return loose


@router.get("/quiet")
async def quiet() -> Item:
    return LAMP


@router.get("/untyped")
async def untyped():
    return {"any": "thing"}


@router.post("/created")
async def create_item(item: Item) -> Item:
    return Response.success(data=item, msg="Created", code=201)  # type: ignore[return-value] # the envelope unwraps it


@router.put("/maybe-created", response_model=Item)
async def put_item(item: Item):
    if item.id:
        return Response.success(item, code=HTTPStatus.CREATED)
    return item


@router.post("/accepted")
async def accept(response: RawResponse) -> Item:
    response.status_code = status.HTTP_202_ACCEPTED
    return LAMP


@router.get("/annotated-created")
async def annotated_created() -> Response[Item]:
    return Response[Item].success(LAMP, code=201)


@router.get("/annotated")
async def annotated() -> Response[Item]:
    return Response[Item].success(LAMP)


@router.get("/paged", response_model=Page[Item])
async def paged():
    return paginate([LAMP])


@router.delete("/gone", status_code=204)
async def delete_item() -> None:
    return None


@router.get("/refuses")
async def refuses(item_id: int) -> Item:
    return await shelf.get_item(item_id)


@router.get("/returns-error")
async def returns_error() -> Item:
    return Response.error(ErrorCode.PRODUCT_NOT_FOUND)  # type: ignore[return-value] # the envelope unwraps it


async def _shop_is_open() -> None:
    raise HTTPException(status.HTTP_423_LOCKED, "Closed")


class Door:
    async def __call__(self, *, key: str = "") -> None:
        if key != "right":
            raise HTTPException(status_code=403, detail={"reason": "wrong key"})


@router.get("/by-dependency", dependencies=[Depends(_shop_is_open)])
async def by_dependency() -> Item:
    return LAMP


@router.get("/by-instance", dependencies=[Depends(Door())])
async def by_instance() -> Item:
    return LAMP


def checked(endpoint: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @wraps(endpoint)
    async def call(*args: Any, **values: Any) -> Any:
        if values.get("item_id") == 3:
            raise BusinessException(ErrorCode.SKU_TAKEN)
        return await endpoint(*args, **values)

    return call


@router.get("/by-decorator")
@checked
async def by_decorator(item_id: int) -> Item:
    return Item(id=item_id)


@cache
def _price_list() -> dict[str, int]:
    raise BusinessException(ErrorCode.PRODUCT_NOT_FOR_SALE)


@router.get("/by-cache")
async def by_cache() -> dict[str, int]:
    return _price_list()


async def _conflict(prefix: str, item_id: int) -> Item:
    raise HTTPException(HTTPStatus.CONFLICT, prefix)


router.add_api_route("/by-partial", partial(_conflict, "no"), name="by_partial")


@router.get("/json-error", responses={404: {"model": Reason, "description": "Not here"}})
async def json_error(missing: int = 0) -> Item:
    if missing:
        return JSONResponse({"reason": "sold"}, status_code=404)  # type: ignore[return-value] # a value as well
    return JSONResponse({"reason": "teapot"}, 418)  # type: ignore[return-value] # as above


@router.get("/permitted", dependencies=[Depends(require_permissions("user:read"))])
async def permitted() -> Item:
    return LAMP


@router.get("/keyed")
async def keyed(key: Annotated[str, Depends(APIKeyHeader(name="X-Key"))]) -> str:
    return key


@router.post("/form")
async def take_form(name: Annotated[str, Form()]) -> str:
    return name


@router.get("/file")
async def file() -> FileResponse:
    return FileResponse(__file__)


@router.get("/html", response_class=HTMLResponse)
async def html():
    return "<p>hello</p>"


@router.get("/redirect")
async def redirect() -> RedirectResponse:
    return RedirectResponse("/quiet")


@router.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(iter([b"a"]), media_type="application/json")


@router.get("/lines")
async def lines() -> AsyncIterator[Item]:
    yield LAMP


@router.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[Item]:
    yield LAMP


@router.head("/head")
async def head() -> Item:
    return LAMP


@router.get("/standard", response_model=Item)
@unwrapped
async def standard():
    return LAMP


@router.get("/reads-query")
async def reads_query(request: Request) -> dict[str, str]:
    return dict(request.query_params)


@router.api_route("/methods", methods=["GET", "POST"])
async def methods() -> Item:
    return LAMP


@router.get("/hidden-refusal")
async def hidden_refusal() -> Item:
    raise BusinessException(ErrorCode(int("50104")))  # a planted fault: nothing can read this


@router.get("/hidden-column")
async def hidden_column() -> Item:
    return JSONResponse({"id": 1, "name": "Lamp", "password_hash": "x"})  # type: ignore[return-value] # as above


untagged = APIRouter()


@untagged.get("/list")
async def list_all() -> list[Item]:
    return [LAMP]


again = APIRouter()


@again.get("/other/list")
async def list_all_again() -> list[Item]:
    return [LAMP]


@again.get("/quiet")
async def never_reached() -> str:
    return ""


again.add_api_route("/third/list", list_all, name="list_all")

app = create_app()
app.include_router(router)
app.include_router(untagged)
app.include_router(again)
app.include_router(untagged, prefix="/v2", tags=["Ünïted & more"])

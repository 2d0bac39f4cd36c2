"""Whatever a team's routes may raise, and where they may crash."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, field_validator, model_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from src.exceptions import BusinessException
from src.http import Response
from src.shared.errors import ErrorCode

router = APIRouter()
CANARY = "canary-7f3a"


class SecretMechanismError(Exception):
    """Its name and text are nobody's business."""


@router.get("/refuse/business")
async def business():
    raise BusinessException(
        ErrorCode.PRODUCT_OUT_OF_STOCK, "Only 3 items available", data={"available": 3, "price": Decimal("1.10")}
    )


@router.get("/refuse/business-default")
def business_default():
    raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND)


@router.get("/refuse/business-login")
async def business_login():
    raise BusinessException(ErrorCode.NOT_AUTHENTICATED)


@router.get("/refuse/business-odd")
async def business_odd():
    raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND, "half a \ud83d pair", data={"name": "\udc00", "kinds": {1}})


async def _refuses() -> None:
    raise BusinessException(ErrorCode.PERMISSION_DENIED, data={"required": ["a:b"]})


@router.get("/refuse/by-dependency", dependencies=[Depends(_refuses)])
async def by_dependency():
    return 1


@router.get("/refuse/http")
async def http():
    raise HTTPException(429, "Slow down", {"Retry-After": "7", "X-Custom": "kept"})


@router.get("/refuse/http-unauthorized")
async def unauthorized():
    raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="x"'})


@router.get("/refuse/http-structured")
async def structured():
    raise HTTPException(409, detail=[{"line": 1}, {"line": 2}])


@router.get("/refuse/http-dict")
async def structured_dict():
    raise HTTPException(400, {"reason": "odd", "price": Decimal("1.10"), "big": 2**60 + 1})


@router.get("/refuse/http-too-large")
async def too_large():
    raise HTTPException(413, "The picture is too large", {"X-Custom": "kept"})


@router.get("/refuse/http-allow")
async def own_allow():
    raise HTTPException(405, headers={"Allow": "MELT"})


@router.get("/refuse/http-status/{status}")
async def with_status(status: int):
    raise StarletteHTTPException(status)


@router.put("/refuse/http")
async def http_put():
    return 1


class Contact(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        raise ValueError(f"{name} is not welcome")


class Pair(BaseModel):
    first: str
    second: str

    @model_validator(mode="after")
    def _check(self) -> "Pair":
        raise ValueError(f"{self.first} does not go with {self.second}")


@router.post("/refuse/by-validator")
async def by_validator(contact: Contact):
    return contact


@router.post("/refuse/by-model-validator")
async def by_model_validator(pair: Pair):
    return pair


@router.get("/crash/route")
async def crash():
    raise SecretMechanismError(CANARY)


@router.get("/crash/plain-def")
def crash_plainly():
    raise SecretMechanismError(CANARY)


async def _crashes() -> None:
    raise SecretMechanismError(CANARY)


async def _crashes_after() -> AsyncIterator[None]:
    yield
    raise SecretMechanismError(CANARY)


def _crashes_after_plainly() -> Iterator[None]:
    yield
    raise SecretMechanismError(CANARY)


@router.get("/crash/dependency", dependencies=[Depends(_crashes)])
async def crash_in_dependency():
    return 1


@router.get("/crash/exit-before-answer", dependencies=[Depends(_crashes_after, scope="function")])
async def crash_at_exit():
    return 1


@router.get("/crash/exit-after-answer", dependencies=[Depends(_crashes_after_plainly)])
async def crash_after_answer():
    return 1


@router.get("/crash/unserialisable")
async def unserialisable():
    return {"broken": "\ud800"}


class Item(BaseModel):
    id: int


@router.get("/crash/response-model", response_model=Item)
async def wrong_response():
    return {"id": CANARY}


@router.get("/crash/response-model-explicit")
async def wrong_explicit_response() -> Response[Item]:
    return Response.success({"id": CANARY})


@router.get("/crash/response-column", response_model=list[Item])
async def missing_column():
    return [{"birthday": f"{CANARY}-column"}]


@router.get("/crash/stream-column")
async def missing_column_in_stream() -> AsyncIterator[Item]:
    yield Item(id=1)
    yield {"birthday": f"{CANARY}-column"}  # type: ignore[misc] # the mistake


@router.get("/crash/background")
async def background(tasks: BackgroundTasks):
    tasks.add_task(crash)
    return 1


@router.get("/crash/background-of-response")
async def background_of_response(tasks: BackgroundTasks):
    tasks.add_task(crash)
    return JSONResponse({"id": 1})


async def _breaks_off() -> AsyncIterator[bytes]:
    yield b'{"first": 1, '
    raise SecretMechanismError(CANARY)


@router.get("/crash/stream")
async def broken_stream():
    return StreamingResponse(_breaks_off(), media_type="application/json")


@router.get("/crash/sized-stream")
async def broken_sized_stream():
    return StreamingResponse(_breaks_off(), headers={"Content-Length": "100"})


@router.get("/crash/lines")
async def broken_lines() -> AsyncIterator[Item]:
    yield Item(id=1)
    raise SecretMechanismError(CANARY)


@router.get("/crash/lines-refused")
async def refused_lines() -> AsyncIterator[Item]:
    yield Item(id=1)
    raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND)


@router.post("/refuse/limited", max_body_size=100)
async def limited(value: dict[str, Any]):
    return value


def add_refusals(app: FastAPI) -> None:
    app.include_router(router)

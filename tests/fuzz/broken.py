"""The service with routes that have each fault that fuzzing looks for; served by the tests of the harness."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from src.exceptions import BusinessException
from src.main import create_app
from src.shared.errors import ErrorCode
from src.shared.types import RequestModel, new_id

router = APIRouter(prefix="/broken")


class Thing(RequestModel):
    name: str


@router.post("/crashes", status_code=201)
async def crash(thing: Thing) -> int:
    return int(thing.name.encode("latin-1").isascii())


@router.post("/changes", status_code=201)
async def change(thing: Thing) -> dict[str, str]:
    return {"id": str(new_id()), "name": thing.name.lower()}


@router.get("/surprises/{number}")
async def surprise(number: str) -> JSONResponse:
    return JSONResponse({}, 200 if number.isdecimal() else 418)


async def nobody() -> None:
    raise BusinessException(ErrorCode.PERMISSION_DENIED)


@router.get("/closed/{number}", dependencies=[Depends(nobody)], responses={403: {}})
async def never(number: int) -> int:
    return number


app = create_app()
app.include_router(router)

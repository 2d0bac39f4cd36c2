"""For those who start, watch and stop the service."""

from typing import Literal

from fastapi import APIRouter

from src.cache import CacheDep
from src.exceptions import BusinessException
from src.http.readiness import ReadinessDep
from src.shared.errors import ErrorCode
from src.shared.types import ResponseModel

router = APIRouter()


class LiveResponse(ResponseModel):
    status: Literal["alive"]


class ReadyResponse(ResponseModel):
    status: Literal["ready"]
    cache: Literal["up", "down"]
    """Down is no reason to stay away: the service works without, only slower."""


@router.get("/live")
async def live() -> LiveResponse:
    """The process answers; restart it when it does not."""
    return LiveResponse(status="alive")


@router.get("/ready")
async def ready(readiness: ReadinessDep, cache: CacheDep) -> ReadyResponse:
    """Send traffic here: the database answers and its tables are those of this version."""
    problem = await readiness.problem()
    if problem is not None:
        raise BusinessException(ErrorCode.SERVICE_UNAVAILABLE, problem)
    return ReadyResponse(status="ready", cache="up" if await cache.ping() else "down")

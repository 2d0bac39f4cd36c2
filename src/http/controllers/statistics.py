"""Numbers for administrators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from src.auth import require_roles
from src.cache import CacheDep
from src.core.statistics import services as statistics
from src.core.statistics.schemas import StatsPeriod, StatsResponse
from src.shared.database import SessionDep

router = APIRouter()


@router.get("/stats", dependencies=[Depends(require_roles("admin"))])
async def get_stats(period: Annotated[StatsPeriod, Query()], session: SessionDep, cache: CacheDep) -> StatsResponse:
    return await statistics.get_stats(session, cache, period)

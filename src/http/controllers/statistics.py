"""Numbers for administrators."""

from fastapi import APIRouter, Depends

from src.auth import require_roles
from src.core.statistics import services as statistics
from src.core.statistics.schemas import StatsResponse
from src.shared.database import SessionDep

router = APIRouter()


@router.get("/stats", dependencies=[Depends(require_roles("admin"))])
async def get_stats(session: SessionDep) -> StatsResponse:
    return await statistics.get_stats(session)

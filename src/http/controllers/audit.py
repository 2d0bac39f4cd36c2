"""The audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.audit import services as audit
from src.audit.schemas import AuditEntryResponse, AuditFilters
from src.auth import require_permissions
from src.shared.database import SessionDep

router = APIRouter()


@router.get("", response_model=Page[AuditEntryResponse], dependencies=[Depends(require_permissions("audit:read"))])
async def list_entries(
    filters: Annotated[AuditFilters, Query()], session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, audit.select_entries(filters))

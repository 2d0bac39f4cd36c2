"""Events that wait to be delivered, or were given up."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.auth import require_permissions
from src.http.idempotency import Idempotent
from src.outbox import services as outbox
from src.outbox.models import OutboxEvent
from src.outbox.schemas import EventFilters, EventResponse, OutboxStatusResponse
from src.shared.database import SessionDep
from src.shared.types import Id

router = APIRouter()

_Readable = Depends(require_permissions("outbox:read"))


@router.get("", response_model=Page[EventResponse], dependencies=[_Readable])
async def list_events(
    filters: Annotated[EventFilters, Query()], session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, outbox.select_events(filters))


@router.get("/status", dependencies=[_Readable])
async def get_status(session: SessionDep) -> OutboxStatusResponse:
    return await outbox.get_status(session)


@router.post(
    "/{event_id}/retry",
    response_model=EventResponse,
    dependencies=[Depends(require_permissions("outbox:retry")), Idempotent],
)
async def retry_event(event_id: Id, session: SessionDep) -> OutboxEvent:
    return await outbox.retry_event(session, event_id)

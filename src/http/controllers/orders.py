"""Orders: one's own, or everybody's for those who may."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.auth import require_permissions
from src.auth.dependencies import CurrentUser, seen_with
from src.core.orders import services as orders
from src.core.orders.schemas import (
    OrderEventResponse,
    OrderFilters,
    OrderResponse,
    OrderSummaryResponse,
    PlaceOrderRequest,
)
from src.http.idempotency import IdempotencyRequired, Idempotent
from src.shared.database import SessionDep
from src.shared.types import Id

router = APIRouter()


Readable = Annotated[UUID | None, Depends(seen_with("order:read"))]
Changeable = Annotated[UUID | None, Depends(seen_with("order:update"))]
_Moving = [Depends(require_permissions("order:update")), Idempotent]


@router.post("", status_code=201, dependencies=[IdempotencyRequired])
async def place_order(request: PlaceOrderRequest, user: CurrentUser, session: SessionDep) -> OrderResponse:
    return await orders.place_order(session, request, customer_id=user.id)


@router.get("", response_model=Page[OrderSummaryResponse])
async def list_orders(
    filters: Annotated[OrderFilters, Query()], visible_to: Readable, session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, orders.select_orders(filters, visible_to=visible_to))


@router.get("/{order_id}")
async def get_order(order_id: Id, visible_to: Readable, session: SessionDep) -> OrderResponse:
    return await orders.get_order(session, order_id, visible_to=visible_to)


@router.get("/{order_id}/timeline")
async def get_timeline(order_id: Id, visible_to: Readable, session: SessionDep) -> list[OrderEventResponse]:
    return await orders.get_timeline(session, order_id, visible_to=visible_to)


@router.post("/{order_id}/cancel", dependencies=[Idempotent])
async def cancel_order(order_id: Id, visible_to: Changeable, user: CurrentUser, session: SessionDep) -> OrderResponse:
    return await orders.cancel_order(session, order_id, visible_to=visible_to, actor_id=user.id)


@router.post("/{order_id}/pay", dependencies=_Moving)
async def pay_order(order_id: Id, user: CurrentUser, session: SessionDep) -> OrderResponse:
    return await orders.pay_order(session, order_id, actor_id=user.id)


@router.post("/{order_id}/fulfil", dependencies=_Moving)
async def fulfil_order(order_id: Id, user: CurrentUser, session: SessionDep) -> OrderResponse:
    return await orders.fulfil_order(session, order_id, actor_id=user.id)


@router.post("/{order_id}/return", dependencies=_Moving)
async def return_order(order_id: Id, user: CurrentUser, session: SessionDep) -> OrderResponse:
    return await orders.return_order(session, order_id, actor_id=user.id)

"""Paying an order, and what the payment provider says by itself."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.auth.dependencies import CurrentUser, seen_with
from src.core.payments import services as payments
from src.core.payments.gateway import PaymentGateway
from src.core.payments.http_gateway import get_gateway
from src.core.payments.models import PaymentStatus
from src.core.payments.schemas import PaymentResponse, PayRequest
from src.http.idempotency import RequiredKey
from src.http.response import Response
from src.shared.database import SessionDep
from src.shared.types import Id

router = APIRouter()

Gateway = Annotated[PaymentGateway, Depends(get_gateway)]
Readable = Annotated[UUID | None, Depends(seen_with("order:read"))]
Payable = Annotated[UUID | None, Depends(seen_with("order:update"))]


@router.post("/orders/{order_id}/payments", status_code=201)
async def pay_order(  # noqa: PLR0913, PLR0917 - what a route is given
    order_id: Id, request: PayRequest, user: CurrentUser, visible_to: Payable, gateway: Gateway, key: RequiredKey
) -> PaymentResponse:
    """Through the payment provider. The same Idempotency-Key is the same payment, told as it stands now."""
    payment = await payments.pay(gateway, order_id, request, key=key, payer_id=user.id, visible_to=visible_to)
    if payment.status is PaymentStatus.PENDING:
        return Response.success(data=payment, msg="Accepted", code=202)  # type: ignore[return-value] # the envelope unwraps it
    return payment


@router.get("/orders/{order_id}/payments", response_model=Page[PaymentResponse])
async def list_payments(order_id: Id, visible_to: Readable, session: SessionDep) -> Any:  # Any: as apaginate has it
    return await apaginate(session, await payments.select_payments(session, order_id, visible_to=visible_to))


@router.get("/payments/{payment_id}")
async def get_payment(payment_id: Id, visible_to: Readable, session: SessionDep) -> PaymentResponse:
    return await payments.get_payment(session, payment_id, visible_to=visible_to)


@router.post("/callbacks/payments", status_code=204)
async def receive_callback(request: Request, session: SessionDep) -> None:
    """For the provider alone, which signs what it says (Standard Webhooks)."""
    await payments.receive_callback(session, request.headers, await request.body())

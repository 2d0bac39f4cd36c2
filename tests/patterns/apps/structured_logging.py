"""Patterns, Structured logging: what is bound are fields of the line, and an exception brings its traceback."""

from dataclasses import dataclass
from decimal import Decimal

from fastapi import APIRouter
from loguru import logger

router = APIRouter()


@dataclass(frozen=True)
class CompletedOrder:
    id: int
    total: Decimal


@router.post("/orders/{order_id}/completed")
async def complete_order(order_id: int) -> None:
    order = CompletedOrder(order_id, total=Decimal("1234567.890"))
    logger.bind(order_id=order.id, amount=order.total).info("Order completed")


@router.post("/orders/{order_id}/failed")
async def fail_order(order_id: int) -> None:
    try:
        load_parcel(order_id)
    except LookupError:
        logger.exception("Order processing failed")  # captures the traceback by itself


def load_parcel(order_id: int) -> None:
    raise LookupError(f"parcel of order {order_id} is lost")

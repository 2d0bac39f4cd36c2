"""Letters about orders."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from src.core.orders.models import OrderStatus
from src.shared.types import Id, LocalDatetime, QueryModel, RequestModel, ResponseModel

MAX_LINES = 100
MAX_QUANTITY = 10_000
OrderSort = Literal["created_at", "-created_at", "total_minor", "-total_minor"]


class OrderItemRequest(RequestModel):
    product_id: Id
    quantity: Annotated[int, Field(strict=True, ge=1, le=MAX_QUANTITY)]


class PlaceOrderRequest(RequestModel):
    items: Annotated[list[OrderItemRequest], Field(min_length=1, max_length=MAX_LINES)]
    expected_total_minor: Annotated[
        int | None,
        Field(strict=True, ge=0, le=2**53 - 1, description="What the buyer was shown; refused if it changed"),
    ] = None


class OrderFilters(QueryModel):
    """Filters of the list of orders."""

    status: OrderStatus | None = None
    customer_id: Annotated[Id | None, Field(description="For those who may read everybody's")] = None
    sort: OrderSort = "-created_at"


class OrderItemResponse(ResponseModel):
    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


class OrderResponse(ResponseModel):
    id: UUID
    number: str
    status: OrderStatus
    items: list[OrderItemResponse]
    total_minor: int
    currency: str
    version: int
    created_at: LocalDatetime


class OrderSummaryResponse(ResponseModel):
    """An order in a list: without its lines."""

    id: UUID
    number: str
    status: OrderStatus
    total_minor: int
    currency: str
    version: int
    created_at: LocalDatetime


class Actor(StrEnum):
    """Who moved an order along, as its buyer may know it."""

    CUSTOMER = "customer"
    STAFF = "staff"
    SERVICE = "service"


class OrderEventResponse(ResponseModel):
    version: int
    status: OrderStatus
    actor: Actor
    created_at: LocalDatetime


class OrderStatsResponse(ResponseModel):
    total: int
    by_status: dict[OrderStatus, int]

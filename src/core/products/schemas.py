"""Letters about products and stock."""

import unicodedata
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from src.core.products.currencies import ISO_4217
from src.core.products.models import MovementKind, ProductStatus
from src.shared.types import Line, LocalDatetime, Name, QueryModel, RequestModel, ResponseModel, Text

MAX_PRICE_MINOR = 100_000_000_000
MAX_STOCK = 1_000_000_000
"""Bounds under which price x quantity x lines of the largest order fits 64 bits."""
MAX_KEY_LENGTH = 256
"""The column's."""


def _iso_4217(code: str) -> str:
    if code not in ISO_4217:
        raise PydanticCustomError("currency_unknown", "Not an ISO 4217 currency code")
    return code


def sku_key(sku: str) -> str:
    """The SKU as it is compared: without regard to case."""
    return unicodedata.normalize("NFKC", sku).casefold()


def _comparable(sku: str) -> str:
    if len(sku_key(sku)) > MAX_KEY_LENGTH:  # one character can be eighteen in NFKC
        raise PydanticCustomError("sku_too_long", "This SKU is too long to be compared")
    return sku


Sku = Annotated[
    Line, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w./-]+$"), AfterValidator(_comparable)
]
Currency = Annotated[str, StringConstraints(min_length=3, max_length=3), AfterValidator(_iso_4217)]
PriceMinor = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        le=MAX_PRICE_MINOR,
        description="In minor units, as ISO 4217 has them: 1250 is 12.50 EUR, or 1250 JPY",
    ),
]
ProductSort = Literal["created_at", "-created_at", "name", "-name", "price_minor", "-price_minor", "sku", "-sku"]


class ProductFilters(QueryModel):
    """Filters of the list of products."""

    q: Annotated[Line | None, Field(description="Name or SKU contains this")] = None
    status: ProductStatus = ProductStatus.ACTIVE
    currency: Currency | None = None
    min_price_minor: Annotated[int | None, Field(ge=0, le=MAX_PRICE_MINOR)] = None
    max_price_minor: Annotated[int | None, Field(ge=0, le=MAX_PRICE_MINOR)] = None
    in_stock: bool | None = None
    sort: ProductSort = "created_at"


class CreateProductRequest(RequestModel):
    sku: Sku
    name: Name
    description: Text = ""
    price_minor: PriceMinor
    currency: Currency
    stock: Annotated[int, Field(strict=True, ge=0, le=MAX_STOCK)] = 0
    status: ProductStatus = ProductStatus.ACTIVE


class UpdateProductRequest(RequestModel):
    """What is left out stays as it is."""

    name: Name | None = None
    description: Text | None = None
    price_minor: PriceMinor | None = None
    currency: Currency | None = None
    status: ProductStatus | None = None


class ProductResponse(ResponseModel):
    id: UUID
    sku: str
    name: str
    description: str
    price_minor: int
    currency: str
    stock: int
    status: ProductStatus
    version: int
    created_at: LocalDatetime
    updated_at: LocalDatetime


class AdjustStockRequest(RequestModel):
    delta: Annotated[int, Field(strict=True, ge=-MAX_STOCK, le=MAX_STOCK)]
    reason: Name


class MovementFilters(QueryModel):
    """Filters of the ledger."""

    kind: MovementKind | None = None


class MovementResponse(ResponseModel):
    id: UUID
    kind: MovementKind
    quantity: Annotated[int, Field(description="By which what is on hand changed")]
    reserved: Annotated[int, Field(description="By which what is promised to open orders changed")]
    reason: str
    reference: str
    actor_id: UUID | None
    created_at: LocalDatetime

"""Products and their stock."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi_pagination import Page
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import apaginate
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from src.auth import require_permissions
from src.auth.dependencies import CurrentUser, GrantsOrNone
from src.core.products import services as products
from src.core.products.models import Product
from src.core.products.schemas import (
    AdjustStockRequest,
    CreateProductRequest,
    MovementFilters,
    MovementResponse,
    ProductFilters,
    ProductResponse,
    UpdateProductRequest,
)
from src.http.idempotency import IdempotencyRequired, Idempotent
from src.shared.database import SessionDep
from src.shared.types import Id

router = APIRouter()

_SEES_DRAFTS = "product:update"
_ANY = "*"  # RFC 9110 §13.1.1: whatever there is


def _version(etag: str) -> str:
    if etag.strip() == _ANY:
        return _ANY
    digits = etag.strip().removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):  # noqa: PLR2004 - a version fits 32 bits
        raise PydanticCustomError("version_invalid", 'Write the version that you read, as in "3"')
    return digits


IfMatch = Annotated[
    str | None,
    AfterValidator(lambda etag: None if etag is None else _version(etag)),
    Header(max_length=64, description='The `version` that you read, as in "3"'),
]


def _expected(if_match: str | None) -> int | None:
    return None if if_match in (None, _ANY) else int(if_match)


@router.get("", response_model=Page[ProductResponse])
async def list_products(
    filters: Annotated[ProductFilters, Query()], grants: GrantsOrNone, session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, products.select_products(filters, drafts=grants.allow(_SEES_DRAFTS)))


@router.get("/by-cursor", response_model=CursorPage[ProductResponse])
async def list_products_by_cursor(
    filters: Annotated[ProductFilters, Query()], grants: GrantsOrNone, session: SessionDep
) -> Any:  # Any: as above
    """The same list for those who read all of it: what is sold or added meanwhile moves no row to another page."""
    return await apaginate(session, products.select_products(filters, drafts=grants.allow(_SEES_DRAFTS)))


@router.post(
    "",
    status_code=201,
    response_model=ProductResponse,
    dependencies=[Depends(require_permissions("product:create")), Idempotent],
)
async def create_product(request: CreateProductRequest, user: CurrentUser, session: SessionDep) -> Product:
    return await products.create_product(session, request, actor_id=user.id)


@router.get("/{product_id}", response_model=ProductResponse)
async def get_product(product_id: Id, grants: GrantsOrNone, session: SessionDep) -> Product:
    return await products.get_product(session, product_id, drafts=grants.allow(_SEES_DRAFTS))


@router.patch(
    "/{product_id}",
    response_model=ProductResponse,
    dependencies=[Depends(require_permissions("product:update")), Idempotent],
)
async def update_product(
    product_id: Id, request: UpdateProductRequest, session: SessionDep, if_match: IfMatch = None
) -> Product:
    return await products.update_product(session, product_id, request, expected_version=_expected(if_match))


@router.delete("/{product_id}", dependencies=[Depends(require_permissions("product:delete")), Idempotent])
async def archive_product(product_id: Id, session: SessionDep, if_match: IfMatch = None) -> None:
    await products.archive_product(session, product_id, expected_version=_expected(if_match))


@router.post(
    "/{product_id}/stock",
    response_model=ProductResponse,
    dependencies=[Depends(require_permissions("stock:adjust")), IdempotencyRequired],
)
async def adjust_stock(product_id: Id, request: AdjustStockRequest, user: CurrentUser, session: SessionDep) -> Product:
    return await products.adjust_stock(session, product_id, request, actor_id=user.id)


@router.get(
    "/{product_id}/stock/movements",
    response_model=Page[MovementResponse],
    dependencies=[Depends(require_permissions("stock:adjust"))],
)
async def list_movements(
    product_id: Id, filters: Annotated[MovementFilters, Query()], session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, await products.select_movements(session, product_id, filters))

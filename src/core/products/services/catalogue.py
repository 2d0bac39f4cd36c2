"""What is for sale: finding it, putting it there, changing it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import or_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.audit.services import Facts
from src.core.products.models import MovementKind, Product, ProductStatus, StockMovement
from src.core.products.schemas import CreateProductRequest, ProductFilters, UpdateProductRequest, sku_key
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode

_ORDERS: dict[str, tuple[Any, ...]] = {  # Any: columns of several types
    "created_at": (col(Product.created_at), col(Product.id)),
    "-created_at": (col(Product.created_at).desc(), col(Product.id).desc()),
    "name": (col(Product.name), col(Product.id)),
    "-name": (col(Product.name).desc(), col(Product.id).desc()),
    "price_minor": (col(Product.price_minor), col(Product.id)),
    "-price_minor": (col(Product.price_minor).desc(), col(Product.id).desc()),
    "sku": (col(Product.sku_key), col(Product.id)),
    "-sku": (col(Product.sku_key).desc(), col(Product.id).desc()),
}
_AVAILABLE = col(Product.on_hand) - col(Product.reserved)


def select_products(filters: ProductFilters, *, drafts: bool) -> SelectOfScalar[Product]:
    """Without `drafts` they do not exist, whatever the filter asks for."""
    query = select(Product).where(Product.status == filters.status).order_by(*_ORDERS[filters.sort])
    if not drafts:
        query = query.where(Product.status != ProductStatus.DRAFT)
    if filters.q is not None:
        query = query.where(
            or_(
                col(Product.name).icontains(filters.q, autoescape=True),
                col(Product.sku_key).contains(sku_key(filters.q), autoescape=True),
            )
        )
    if filters.currency is not None:
        query = query.where(Product.currency == filters.currency)
    if filters.min_price_minor is not None:
        query = query.where(Product.price_minor >= filters.min_price_minor)
    if filters.max_price_minor is not None:
        query = query.where(Product.price_minor <= filters.max_price_minor)
    if filters.in_stock is not None:
        query = query.where(_AVAILABLE > 0 if filters.in_stock else _AVAILABLE <= 0)
    return query


async def get_product(session: AsyncSession, product_id: UUID, *, drafts: bool) -> Product:
    product = await session.get(Product, product_id)
    if product is None or (product.status is ProductStatus.DRAFT and not drafts):
        raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND)
    return product


@dataclass(frozen=True, slots=True)
class Label:
    """What a product is called now."""

    sku: str
    name: str


async def get_labels(session: AsyncSession, product_ids: Collection[UUID]) -> dict[UUID, Label]:
    """Of archived ones too."""
    query = select(Product.id, Product.sku, Product.name).where(col(Product.id).in_(product_ids))
    return {product_id: Label(sku, name) for product_id, sku, name in await session.execute(query)}


async def create_product(session: AsyncSession, request: CreateProductRequest, *, actor_id: UUID) -> Product:
    """Refused: SKU_TAKEN."""
    product = Product(**request.model_dump(exclude={"stock"}), sku_key=sku_key(request.sku), on_hand=request.stock)
    try:
        async with session.begin_nested():
            session.add(product)
    except IntegrityError:
        raise BusinessException(ErrorCode.SKU_TAKEN) from None
    if request.stock:
        session.add(
            StockMovement(
                product_id=product.id,
                kind=MovementKind.INITIAL,
                quantity=request.stock,
                reason="initial stock",
                actor_id=actor_id,
            )
        )
    await audit.record(
        session,
        "product.created",
        target=("product", product.id),
        after={**_facts(product), "stock": request.stock},
        actor_id=actor_id,
    )
    return product


def _facts(product: Product) -> Facts:
    """What the audit log keeps of a product."""
    return {
        "sku": product.sku,
        "name": product.name,
        "description": product.description,
        "price_minor": product.price_minor,
        "currency": product.currency,
        "status": product.status.value,
    }


async def update_product(
    session: AsyncSession, product_id: UUID, changes: UpdateProductRequest, *, expected_version: int | None
) -> Product:
    """Refused: PRODUCT_NOT_FOUND, VERSION_MISMATCH when somebody else's edit came first."""
    values = {name: value for name, value in changes.model_dump(exclude_unset=True).items() if value is not None}
    locked = select(Product).where(Product.id == product_id).with_for_update(key_share=True)
    stored = (await session.execute(locked)).scalar_one_or_none()
    before = None if stored is None else _facts(stored)
    edit = (
        update(Product)
        .where(col(Product.id) == product_id)
        .values(**values, version=Product.version + 1)
        .returning(Product)
    )
    if expected_version is not None:
        edit = edit.where(col(Product.version) == expected_version)
    edited = (await session.execute(edit)).scalar_one_or_none()
    if edited is None:
        current = await get_product(session, product_id, drafts=True)
        raise BusinessException(ErrorCode.VERSION_MISMATCH, data={"version": current.version})
    was, is_now = audit.changes(before or {}, _facts(edited))
    await audit.record(session, "product.updated", target=("product", product_id), before=was, after=is_now)
    return edited


async def archive_product(session: AsyncSession, product_id: UUID, *, expected_version: int | None) -> None:
    """It leaves the shop and stays in old orders. Refused: PRODUCT_NOT_FOUND, VERSION_MISMATCH."""
    archived = UpdateProductRequest(status=ProductStatus.ARCHIVED)
    await update_product(session, product_id, archived, expected_version=expected_version)

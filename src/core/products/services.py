"""What can be done with products and their stock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Update,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    or_,
    update,
)
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.audit.services import Facts
from src.core.products.models import MovementKind, Product, ProductStatus, StockMovement
from src.core.products.schemas import (
    MAX_STOCK,
    AdjustStockRequest,
    CreateProductRequest,
    ProductFilters,
    UpdateProductRequest,
    sku_key,
)
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.shared.lane import dialect_of, fetch_all, prepared, table_of

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


@dataclass(frozen=True, slots=True)
class StockLine:
    """So many of a product: what other domains ask for."""

    product_id: UUID
    quantity: int


@dataclass(frozen=True, slots=True)
class ReservedLine:
    """What was reserved, as it was called and priced in that moment."""

    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    currency: str
    quantity: int


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


async def archive_product(session: AsyncSession, product_id: UUID) -> None:
    """It leaves the shop and stays in old orders. Refused: PRODUCT_NOT_FOUND."""
    await update_product(
        session, product_id, UpdateProductRequest(status=ProductStatus.ARCHIVED), expected_version=None
    )


async def adjust_stock(
    session: AsyncSession, product_id: UUID, request: AdjustStockRequest, *, actor_id: UUID
) -> Product:
    """Refused: PRODUCT_NOT_FOUND, STOCK_OUT_OF_RANGE."""
    on_hand = col(Product.on_hand) + request.delta
    adjusted = await session.execute(
        update(Product)
        .where(col(Product.id) == product_id, on_hand >= col(Product.reserved), on_hand <= MAX_STOCK)
        .values(on_hand=on_hand)
        .returning(Product)
    )
    product = adjusted.scalar_one_or_none()
    if product is None:
        current = await get_product(session, product_id, drafts=True)
        raise BusinessException(ErrorCode.STOCK_OUT_OF_RANGE, data={"available": current.stock, "highest": MAX_STOCK})
    session.add(
        StockMovement(
            product_id=product_id,
            kind=MovementKind.ADJUSTMENT,
            quantity=request.delta,
            reason=request.reason,
            actor_id=actor_id,
        )
    )
    await audit.record(
        session,
        "stock.adjusted",
        target=("product", product_id),
        before={"on_hand": product.on_hand - request.delta},
        after={"on_hand": product.on_hand, "reason": request.reason},
        actor_id=actor_id,
    )
    return product


async def select_movements(session: AsyncSession, product_id: UUID) -> SelectOfScalar[StockMovement]:
    """Newest first. Refused: PRODUCT_NOT_FOUND."""
    await get_product(session, product_id, drafts=True)
    return (
        select(StockMovement)
        .where(StockMovement.product_id == product_id)
        .order_by(col(StockMovement.created_at).desc(), col(StockMovement.id).desc())
    )


async def reserve_stock(session: AsyncSession, lines: Iterable[StockLine]) -> list[ReservedLine]:
    """All lines or none; one line a product.

    Refused: PRODUCT_NOT_FOUND, PRODUCT_NOT_FOR_SALE, PRODUCT_OUT_OF_STOCK (`data.items` lists every short line).
    """
    # In id order, so that two baskets with the same goods queue up instead of deadlocking.
    wanted = sorted(lines, key=lambda line: line.product_id)
    taken = {row[0]: ReservedLine(*row) for row in await _take(session, wanted)}
    short = [await _shortage(session, line) for line in wanted if line.product_id not in taken]
    if short:
        raise BusinessException(ErrorCode.PRODUCT_OUT_OF_STOCK, data={"items": short})
    return [taken[line.product_id] for line in wanted]


_PRODUCTS = table_of(Product)
_TAKEN = (_PRODUCTS.c.id, _PRODUCTS.c.sku, _PRODUCTS.c.name, _PRODUCTS.c.price_minor, _PRODUCTS.c.currency)


def _takes(quantity: ColumnElement[int]) -> Update:
    # Decided in the database: between a look and a write, somebody else buys.
    return (
        update(_PRODUCTS)
        .where(
            _PRODUCTS.c.status == ProductStatus.ACTIVE,
            quantity <= _PRODUCTS.c.on_hand - _PRODUCTS.c.reserved,
        )
        .values(reserved=_PRODUCTS.c.reserved + quantity, updated_at=_PRODUCTS.c.updated_at)
        .returning(*_TAKEN, quantity.label("quantity"))
    )


_TAKE_ONE = prepared(
    _takes(bindparam("quantity", type_=BigInteger)).where(_PRODUCTS.c.id == bindparam("product_id", type_=Uuid))
)
_product_ids, _quantities = (
    bindparam("product_ids", type_=ARRAY(Uuid)),
    bindparam("quantities", type_=ARRAY(BigInteger)),
)
_wanted = (
    func.unnest(_product_ids, _quantities)
    .table_valued(column("product_id", Uuid), column("quantity", BigInteger))
    .render_derived(name="wanted")
)
# An UPDATE locks in the order in which it finds its rows, whatever that is.
_locked = (
    select_columns(_PRODUCTS.c.id)
    .where(_PRODUCTS.c.id == any_(_product_ids))
    .order_by(_PRODUCTS.c.id)
    .with_for_update(key_share=True)
    .subquery("locked")
)
_TAKE_MANY = prepared(
    _takes(_wanted.c.quantity).where(_PRODUCTS.c.id == _locked.c.id, _wanted.c.product_id == _locked.c.id)
)


async def _take(
    session: AsyncSession, lines: Sequence[StockLine]
) -> list[tuple[Any, ...]]:  # Any: columns of several types
    """Of those that can be had."""
    if len(lines) > 1 and dialect_of(session) == "postgresql":
        ids, quantities = [line.product_id for line in lines], [line.quantity for line in lines]
        return list(await fetch_all(session, _TAKE_MANY, product_ids=ids, quantities=quantities))
    taken: list[tuple[Any, ...]] = []  # Any: as above
    for line in lines:
        taken += await fetch_all(session, _TAKE_ONE, product_id=line.product_id, quantity=line.quantity)
    return taken


async def _shortage(session: AsyncSession, line: StockLine) -> dict[str, str | int]:
    query = select(Product.sku, Product.status, _AVAILABLE).where(Product.id == line.product_id)
    row = (await session.execute(query)).one_or_none()
    if row is None or row[1] is ProductStatus.DRAFT:
        raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND, data={"product_id": str(line.product_id)})
    sku, status, available = row
    if status is not ProductStatus.ACTIVE:
        raise BusinessException(ErrorCode.PRODUCT_NOT_FOR_SALE, data={"product_id": str(line.product_id)})
    return {"product_id": str(line.product_id), "sku": sku, "requested": line.quantity, "available": available}


async def release_stock(session: AsyncSession, lines: Sequence[StockLine]) -> None:
    """Give back what `reserve_stock` took."""
    for line in sorted(lines, key=lambda line: line.product_id):
        await session.execute(
            update(Product)
            .where(col(Product.id) == line.product_id)
            .values(reserved=col(Product.reserved) - line.quantity, updated_at=col(Product.updated_at))
        )

"""How much there is: adjusting it, promising it to orders, and the ledger of both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    Update,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    insert,
    literal,
    update,
)
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.core.products.models import MovementKind, Product, ProductStatus, StockMovement
from src.core.products.schemas import MAX_STOCK, AdjustStockRequest, MovementFilters
from src.core.products.services.catalogue import get_product
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.lane import dialect_of, fetch_all, prepared, table_of
from src.shared.types import new_id


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


@dataclass(frozen=True, slots=True)
class LowStock:
    """Of a product that is for sale."""

    product_id: UUID
    sku: str
    name: str
    stock: int
    """What can be ordered."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What the ledger says of a movement that another domain asks for."""

    reference: str
    """As in `order:<id>`."""
    actor_id: UUID | None
    """None: the service itself."""


async def adjust_stock(
    session: AsyncSession, product_id: UUID, request: AdjustStockRequest, *, actor_id: UUID
) -> Product:
    """Refused: PRODUCT_NOT_FOUND, STOCK_OUT_OF_RANGE."""
    on_hand = col(Product.on_hand) + request.delta
    # What came back may have gone beyond what is kept: less of it is always possible.
    within = [on_hand >= col(Product.reserved), *([on_hand <= MAX_STOCK] if request.delta > 0 else ())]
    adjusted = await session.execute(
        update(Product).where(col(Product.id) == product_id, *within).values(on_hand=on_hand).returning(Product)
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


async def select_movements(
    session: AsyncSession, product_id: UUID, filters: MovementFilters
) -> SelectOfScalar[StockMovement]:
    """Newest first. Refused: PRODUCT_NOT_FOUND."""
    await get_product(session, product_id, drafts=True)
    query = (
        select(StockMovement)
        .where(StockMovement.product_id == product_id)
        .order_by(col(StockMovement.created_at).desc(), col(StockMovement.id).desc())
    )
    return query if filters.kind is None else query.where(StockMovement.kind == filters.kind)


async def list_low_stock(session: AsyncSession, *, at_most: int, limit: int) -> list[LowStock]:
    """What is for sale and of which no more than that can be ordered; the lowest first."""
    stock = col(Product.on_hand) - col(Product.reserved)
    query = (
        select(Product.id, Product.sku, Product.name, stock)
        .where(Product.status == ProductStatus.ACTIVE, stock <= at_most)
        .order_by(stock, col(Product.id))
        .limit(limit)
    )
    return [LowStock(*row) for row in await session.execute(query)]


async def reserve_stock(session: AsyncSession, lines: Iterable[StockLine], purpose: Purpose) -> list[ReservedLine]:
    """All lines or none; one line a product.

    Refused: PRODUCT_NOT_FOUND, PRODUCT_NOT_FOR_SALE, PRODUCT_OUT_OF_STOCK (`data.items` lists every short line).
    """
    # In id order, so that two baskets with the same goods queue up instead of deadlocking.
    wanted = sorted(lines, key=lambda line: line.product_id)
    taken = {row[0]: ReservedLine(*row) for row in await _take(session, wanted, purpose)}
    short = [await _shortage(session, line) for line in wanted if line.product_id not in taken]
    if short:
        raise BusinessException(ErrorCode.PRODUCT_OUT_OF_STOCK, data={"items": short})
    return [taken[line.product_id] for line in wanted]


_PRODUCTS, _MOVEMENTS = table_of(Product), table_of(StockMovement)
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


def _noted(takes: Update) -> Select[Any]:  # Any: columns of several types
    """The same with its lines of the ledger, in one statement of PostgreSQL. `takes` returns `movement_id` last."""
    taken = takes.cte("taken")
    entries = {
        "id": taken.c.movement_id,
        "product_id": taken.c.id,
        "kind": literal(MovementKind.RESERVATION, _MOVEMENTS.c.kind.type),
        "quantity": literal(0, BigInteger),
        "reserved": taken.c.quantity,
        "reason": literal("", String),
        "reference": bindparam("reference", type_=String),
        "actor_id": bindparam("actor_id", type_=Uuid),
        "created_at": bindparam("now", type_=_MOVEMENTS.c.created_at.type),
    }
    noted = insert(_MOVEMENTS).from_select(list(entries), select_columns(*entries.values())).cte("noted")
    return select_columns(*(each for each in taken.c if each.name != "movement_id")).add_cte(noted)


_one = _takes(bindparam("quantity", type_=BigInteger)).where(_PRODUCTS.c.id == bindparam("product_id", type_=Uuid))
_TAKE_ONE: Final = prepared(_one)
_TAKE_ONE_NOTED: Final = prepared(_noted(_one.returning(bindparam("movement_id", type_=Uuid).label("movement_id"))))
_product_ids, _quantities, _movement_ids = (
    bindparam("product_ids", type_=ARRAY(Uuid)),
    bindparam("quantities", type_=ARRAY(BigInteger)),
    bindparam("movement_ids", type_=ARRAY(Uuid)),
)
_wanted = (
    func.unnest(_product_ids, _quantities, _movement_ids)
    .table_valued(column("product_id", Uuid), column("quantity", BigInteger), column("movement_id", Uuid))
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
_TAKE_MANY_NOTED: Final = prepared(
    _noted(
        _takes(_wanted.c.quantity)
        .where(_PRODUCTS.c.id == _locked.c.id, _wanted.c.product_id == _locked.c.id)
        .returning(_wanted.c.movement_id)
    )
)


async def _take(
    session: AsyncSession, lines: Sequence[StockLine], purpose: Purpose
) -> Sequence[tuple[Any, ...]]:  # Any: columns of several types
    """Of those that can be had."""
    if dialect_of(session) != "postgresql":
        taken: list[tuple[Any, ...]] = []  # Any: as above
        for line in lines:
            taken += await fetch_all(session, _TAKE_ONE, product_id=line.product_id, quantity=line.quantity)
        if len(taken) == len(lines):
            await _note(session, MovementKind.RESERVATION, lines, purpose, reserved=1)
        return taken
    told = {"reference": purpose.reference, "actor_id": purpose.actor_id, "now": utc_now()}
    if len(lines) == 1:
        (line,) = lines
        one = {"product_id": line.product_id, "quantity": line.quantity, "movement_id": new_id()}
        return await fetch_all(session, _TAKE_ONE_NOTED, **one, **told)
    ids, quantities = [line.product_id for line in lines], [line.quantity for line in lines]
    many = {"product_ids": ids, "quantities": quantities, "movement_ids": [new_id() for _ in lines]}
    return await fetch_all(session, _TAKE_MANY_NOTED, **many, **told)


async def _shortage(session: AsyncSession, line: StockLine) -> dict[str, str | int]:
    query = select(Product.sku, Product.status, Product.on_hand, Product.reserved).where(Product.id == line.product_id)
    row = (await session.execute(query)).one_or_none()
    if row is None or row[1] is ProductStatus.DRAFT:
        raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND, data={"product_id": str(line.product_id)})
    sku, status, on_hand, reserved = row
    if status is not ProductStatus.ACTIVE:
        raise BusinessException(ErrorCode.PRODUCT_NOT_FOR_SALE, data={"product_id": str(line.product_id)})
    return {"product_id": str(line.product_id), "sku": sku, "requested": line.quantity, "available": on_hand - reserved}


async def release_stock(session: AsyncSession, lines: Sequence[StockLine], purpose: Purpose) -> None:
    """Give back what `reserve_stock` took."""
    await _shift(session, MovementKind.RELEASE, lines, purpose, reserved=-1)


async def ship_stock(session: AsyncSession, lines: Sequence[StockLine], purpose: Purpose) -> None:
    """What was reserved leaves the house."""
    await _shift(session, MovementKind.FULFILMENT, lines, purpose, on_hand=-1, reserved=-1)


async def take_back_stock(session: AsyncSession, lines: Sequence[StockLine], purpose: Purpose) -> None:
    """What left the house comes back, and can be sold again."""
    await _shift(session, MovementKind.RETURN, lines, purpose, on_hand=1)


async def _shift(  # noqa: PLR0913 - what a line of the ledger has
    session: AsyncSession,
    kind: MovementKind,
    lines: Sequence[StockLine],
    purpose: Purpose,
    *,
    on_hand: int = 0,
    reserved: int = 0,
) -> None:
    """`on_hand` and `reserved` say how often each line's quantity is added to them."""
    # In id order, as above.
    for line in sorted(lines, key=lambda line: line.product_id):
        await session.execute(
            update(_PRODUCTS)
            .where(_PRODUCTS.c.id == line.product_id)
            .values(
                on_hand=_PRODUCTS.c.on_hand + on_hand * line.quantity,
                reserved=_PRODUCTS.c.reserved + reserved * line.quantity,
                updated_at=_PRODUCTS.c.updated_at,
            )
        )
    await _note(session, kind, lines, purpose, on_hand=on_hand, reserved=reserved)


async def _note(  # noqa: PLR0913 - as above
    session: AsyncSession,
    kind: MovementKind,
    lines: Sequence[StockLine],
    purpose: Purpose,
    *,
    on_hand: int = 0,
    reserved: int = 0,
) -> None:
    now = utc_now()
    await session.execute(
        insert(_MOVEMENTS),
        [
            {
                "id": new_id(),
                "product_id": line.product_id,
                "kind": kind,
                "quantity": on_hand * line.quantity,
                "reserved": reserved * line.quantity,
                "reason": "",
                "reference": purpose.reference,
                "actor_id": purpose.actor_id,
                "created_at": now,
            }
            for line in lines
        ],
    )

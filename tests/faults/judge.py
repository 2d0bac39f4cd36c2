"""Whether the tables hold what buyers were told: all of it, and nothing else."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Executable, func, select
from sqlmodel import col

from src.core.orders.models import Order, OrderLine
from src.core.products.models import Product
from src.doctor import INVARIANTS
from src.idempotency.models import IdempotencyRecord
from src.outbox.models import OutboxEvent
from tests.faults.buyers import Line, Receipt, Told
from tests.support.tables import execute, execute_each

PLACED, MAIL = "order.placed", "mail"
_SUBJECT = re.compile(rb"^Subject: Your order (\S+) ", re.MULTILINE)


@dataclass
class Found:
    """What the tables, and the folder of mails, hold when nobody writes."""

    orders: dict[UUID, tuple[str, int]]
    """(number, total)"""
    lines: dict[UUID, set[Line]]
    stock: dict[UUID, tuple[int, int]]
    """(on hand, reserved)"""
    answers: dict[str, bytes]
    """What is kept, by its key."""
    events: Counter[str]
    """`order.placed`, by aggregate."""
    mails: int
    undelivered: list[str]
    mailed: Counter[str]
    """Mails that went out, by the number of the order."""
    untrue: list[str]
    """Sentences of the books."""


@dataclass
class Verdict:
    """What is wrong, and nothing is when all are empty."""

    lost: list[str]
    altered: list[str]
    duplicate: list[str]
    """Orders that nobody was told of, and those that stand for two keys."""
    oversold: list[str]
    books: list[str]
    answers: list[str]
    """Keys that would not be answered again as they were, or that a refusal left behind."""
    events: list[str]
    """Orders without exactly one event, events without an order."""
    mails: list[str]
    surprises: list[str]
    """Answers that nobody expected, and what a glance between two rounds found."""

    def problems(self) -> dict[str, list[str]]:
        return {name: found for name, found in vars(self).items() if found}


def look(database_url: str, mails: Path, *, before: int = 0) -> Found:
    """`before`: mails that had been written before the first order."""
    queries: list[Executable] = [
        select(col(Order.id), col(Order.number), col(Order.total_minor)),
        select(
            col(OrderLine.order_id), col(OrderLine.product_id), col(OrderLine.quantity), col(OrderLine.unit_price_minor)
        ),
        select(col(Product.id), col(Product.on_hand), col(Product.reserved)),
        select(col(IdempotencyRecord.key), col(IdempotencyRecord.answer)),
        select(col(OutboxEvent.kind), col(OutboxEvent.aggregate), col(OutboxEvent.delivered_at)),
        *(invariant.query() for invariant in INVARIANTS),
    ]
    orders, order_lines, products, answers, events, *broken = (
        [list(row) for row in rows] for rows in execute_each(database_url, queries)
    )
    lines: dict[UUID, set[Line]] = defaultdict(set)
    for order_id, product, quantity, price in order_lines:
        lines[order_id].add((product, quantity, price))
    return Found(
        orders={order_id: (number, total) for order_id, number, total in orders},
        lines=lines,
        stock={product: (on_hand, reserved) for product, on_hand, reserved in products},
        answers=dict(answers),
        events=Counter(aggregate for kind, aggregate, _ in events if kind == PLACED),
        mails=sum(kind == MAIL for kind, *_ in events) - before,
        undelivered=[f"{kind} of {aggregate}" for kind, aggregate, delivered_at in events if delivered_at is None],
        mailed=Counter(
            found[1].decode() for path in mails.glob("*.eml") if (found := _SUBJECT.search(path.read_bytes()))
        ),
        untrue=[each.sentence for each, rows in zip(INVARIANTS, broken, strict=True) if rows],
    )


def judge(told: Told, found: Found) -> Verdict:
    receipts = {receipt.order_id: receipt for receipt in told.receipts}
    sold: Counter[UUID] = Counter()
    for receipt in told.receipts:
        for product, quantity, _ in receipt.lines:
            sold[product] += quantity
    return Verdict(
        lost=[str(order_id) for order_id in receipts.keys() - found.orders.keys()],
        altered=[
            str(order_id)
            for order_id in receipts.keys() & found.orders.keys()
            if not _as_told(receipts[order_id], found)
        ],
        duplicate=[str(order_id) for order_id in found.orders.keys() - receipts.keys()]
        + [f"{count} keys were told {order_id}" for order_id, count in _told_twice(told.receipts)],
        oversold=[
            f"{product}: {reserved} reserved and {sold[product]} sold of {told.stocked[product]}"
            for product, (_, reserved) in found.stock.items()
            if max(reserved, sold[product]) > told.stocked[product]
        ],
        books=found.untrue
        + [
            f"{product} has {on_hand} on hand and {reserved} reserved, not {told.stocked[product]} and {sold[product]}"
            for product, (on_hand, reserved) in found.stock.items()
            if (on_hand, reserved) != (told.stocked[product], sold[product])
        ],
        answers=[each.key for each in told.receipts if found.answers.get(each.key) != each.answered]
        + [key for key in told.refused if key in found.answers],
        events=[
            f"{events} events of {order_id}"
            for order_id in found.orders
            if (events := found.events[f"order:{order_id}"]) != 1
        ]
        + [aggregate for aggregate in found.events if UUID(aggregate.removeprefix("order:")) not in found.orders],
        mails=found.undelivered
        + [
            f"{found.mailed[number]} mails of {number}"
            for number, _ in found.orders.values()
            if found.mailed[number] != 1
        ]
        + ([] if found.mails == len(found.orders) else [f"{found.mails} mails of {len(found.orders)} orders"]),
        surprises=told.surprises,
    )


def _as_told(receipt: Receipt, found: Found) -> bool:
    return (receipt.number, receipt.total_minor) == found.orders[receipt.order_id] and receipt.lines == found.lines[
        receipt.order_id
    ]


def _told_twice(receipts: Sequence[Receipt]) -> list[tuple[UUID, int]]:
    times = Counter(receipt.order_id for receipt in receipts)
    return [(order_id, count) for order_id, count in times.items() if count > 1]


def glance(database_url: str, told: Told, *, buyers: int, since: int) -> None:
    """Cheaply, while buyers wait or place: what was acknowledged from `since` on is there, and beyond what was
    acknowledged at most one order for each buyer, whose answer is under way. What is not so is a surprise."""
    recent = told.receipts[since:]
    acknowledged = since + len(recent)
    wanted = select(col(Order.id), col(Order.total_minor)).where(col(Order.id).in_([each.order_id for each in recent]))
    totals = dict(tuple(row) for row in execute(database_url, wanted))
    for each in recent:
        if totals.get(each.order_id) != each.total_minor:
            told.surprises.append(f"{each.order_id} has {totals.get(each.order_id)} and not {each.total_minor}")
    ((placed,),) = execute(database_url, select(func.count()).select_from(Order))
    if not acknowledged <= placed <= len(told.receipts) + buyers:
        told.surprises.append(f"{placed} orders, when {acknowledged} were acknowledged to {buyers} buyers")

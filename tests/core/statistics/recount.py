"""The numbers once more, plainly: every order's history read back, one after another."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from sqlmodel import col, select

from src.core.orders.models import Order, OrderEvent, OrderLine
from src.core.products.models import Product
from tests.support.tables import execute, execute_each

_AT_A_TIME = 50_000
Numbers = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class History:
    currency: str
    total_minor: int
    steps: list[tuple[str, datetime]]
    lines: list[tuple[UUID, int, int]]
    """(product, quantity, price)"""


def recount(url: str, since: date, until: date, hours: float) -> Numbers:
    """What the statistics must say of these days, in a zone so many hours from UTC."""
    zone = timezone(timedelta(hours=hours))
    days: defaultdict[tuple[date, str], Counter[str]] = defaultdict(Counter)
    sold: Counter[UUID] = Counter()
    revenue: defaultdict[UUID, Counter[str]] = defaultdict(Counter)
    statuses: Counter[str] = Counter()
    for order in _histories(url):
        statuses[order.steps[-1][0]] += 1
        paid = False
        for status, moment in order.steps:
            day = moment.astimezone(zone).date()
            inside = since <= day <= until
            if status == "paid":
                paid = True
                if inside:
                    days[day, order.currency].update(orders=1, paid_minor=order.total_minor)
                if inside and order.steps[-1][0] not in ("cancelled", "returned"):
                    for product_id, quantity, price in order.lines:
                        sold[product_id] += quantity
                        revenue[product_id][order.currency] += quantity * price
            elif status in ("cancelled", "returned") and paid and inside:
                days[day, order.currency].update(refunded_minor=order.total_minor)
    best = sorted(sold, key=lambda product_id: (-sold[product_id], product_id))[:10]
    named = select(col(Product.id), col(Product.sku), col(Product.name)).where(col(Product.id).in_(best))
    names = {product_id: {"sku": sku, "name": name} for product_id, sku, name in map(tuple, execute(url, named))}
    return {
        "by_status": dict(statuses),
        "revenue": [
            {
                "day": day.isoformat(),
                "currency": currency,
                **{name: numbers[name] for name in ("orders", "paid_minor", "refunded_minor")},
                "net_minor": numbers["paid_minor"] - numbers["refunded_minor"],
            }
            for (day, currency), numbers in sorted(days.items())
        ],
        "best_sellers": [
            {
                "product_id": str(product_id),
                **names[product_id],
                "quantity": sold[product_id],
                "revenue_minor": dict(revenue[product_id]),
            }
            for product_id in best
        ],
    }


def told(answer: Numbers) -> Numbers:
    """What of an answer `recount` says too."""
    return {
        "by_status": answer["orders"]["by_status"],
        "revenue": answer["revenue"],
        "best_sellers": answer["best_sellers"],
    }


def _histories(url: str) -> Iterator[History]:
    ids = [order_id for (order_id,) in execute(url, select(col(Order.id)).order_by(col(Order.id)))]
    for start in range(0, len(ids), _AT_A_TIME):
        first, last = ids[start], ids[start : start + _AT_A_TIME][-1]
        orders, events, lines = execute_each(
            url,
            [
                select(col(Order.id), col(Order.currency), col(Order.total_minor)).where(
                    col(Order.id).between(first, last)
                ),
                select(col(OrderEvent.order_id), col(OrderEvent.status), col(OrderEvent.created_at))
                .where(col(OrderEvent.order_id).between(first, last))
                .order_by(col(OrderEvent.order_id), col(OrderEvent.version)),
                select(
                    col(OrderLine.order_id),
                    col(OrderLine.product_id),
                    col(OrderLine.quantity),
                    col(OrderLine.unit_price_minor),
                ).where(col(OrderLine.order_id).between(first, last)),
            ],
        )
        read = {order_id: History(currency, total, [], []) for order_id, currency, total in map(tuple, orders)}
        for order_id, status, moment in map(tuple, events):
            read[order_id].steps.append((status.value, moment))
        for order_id, product_id, quantity, price in map(tuple, lines):
            read[order_id].lines.append((product_id, quantity, price))
        yield from read.values()

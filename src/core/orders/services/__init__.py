"""What can be done with orders, by business verb."""

from src.core.orders.services.books import INVARIANTS
from src.core.orders.services.counting import BestSeller, DayRevenue, get_best_sellers, get_revenue, get_stats
from src.core.orders.services.moving import (
    cancel_order,
    expire_order,
    fulfil_order,
    list_overdue,
    pay_order,
    return_order,
)
from src.core.orders.services.notices import HANDLERS
from src.core.orders.services.placing import place_order
from src.core.orders.services.reading import get_order, get_timeline, select_orders

__all__ = [
    "HANDLERS",
    "INVARIANTS",
    "BestSeller",
    "DayRevenue",
    "cancel_order",
    "expire_order",
    "fulfil_order",
    "get_best_sellers",
    "get_order",
    "get_revenue",
    "get_stats",
    "get_timeline",
    "list_overdue",
    "pay_order",
    "place_order",
    "return_order",
    "select_orders",
]

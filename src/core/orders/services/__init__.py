"""What can be done with orders, by business verb."""

from src.core.orders.services.books import INVARIANTS
from src.core.orders.services.counting import BestSeller, DayRevenue, get_best_sellers, get_revenue, get_stats
from src.core.orders.services.moving import (
    Bill,
    cancel_order,
    expire_order,
    fulfil_order,
    list_overdue,
    lock_bill,
    pay_order,
    refuse_transition,
    return_order,
    take_payment,
)
from src.core.orders.services.notices import HANDLERS
from src.core.orders.services.placing import place_order
from src.core.orders.services.reading import get_order, get_timeline, is_visible, select_orders

__all__ = [
    "HANDLERS",
    "INVARIANTS",
    "BestSeller",
    "Bill",
    "DayRevenue",
    "cancel_order",
    "expire_order",
    "fulfil_order",
    "get_best_sellers",
    "get_order",
    "get_revenue",
    "get_stats",
    "get_timeline",
    "is_visible",
    "list_overdue",
    "lock_bill",
    "pay_order",
    "place_order",
    "refuse_transition",
    "return_order",
    "select_orders",
    "take_payment",
]

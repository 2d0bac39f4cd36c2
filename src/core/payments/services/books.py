"""What is true of payments after anything that anybody did."""

from datetime import timedelta
from typing import Final

from src.shared.invariants import Invariant

INVARIANTS: Final = (
    Invariant(
        "what was paid is the order's total, and the order has taken it",
        """
        SELECT payments.id, payments.status, payments.amount_minor, orders.id AS order_id, orders.status AS order_status
        FROM payments JOIN orders ON orders.id = order_id
        WHERE payments.status = 'succeeded' AND (
            orders.status IN ('placed', 'expired')
            OR payments.amount_minor <> orders.total_minor OR payments.currency <> orders.currency
        )
        """,
    ),
    Invariant(
        "what was paid for an order that is over goes back within ten minutes",
        """
        SELECT payments.id, orders.id AS order_id, orders.status
        FROM payments JOIN orders ON orders.id = order_id
        WHERE payments.status = 'succeeded' AND orders.status IN ('cancelled', 'returned')
            AND orders.updated_at < :moment
        """,
        ago=timedelta(minutes=10),
    ),
    Invariant(
        "what goes back is back within a day",
        "SELECT id, order_id, amount_minor, currency FROM payments WHERE status = 'refunding' AND updated_at < :moment",
        ago=timedelta(days=1),
    ),
    Invariant(
        "within a week it is known of each payment whether the money came",
        "SELECT id, order_id, amount_minor, currency FROM payments WHERE status = 'pending' AND created_at < :moment",
        ago=timedelta(days=7),
    ),
)

"""What is true of products and their stock after anything that anybody did."""

from typing import Final

from src.shared.invariants import Invariant

INVARIANTS: Final = (
    Invariant(
        "what is on hand covers what is reserved, and neither is negative",
        "SELECT id, on_hand, reserved FROM products WHERE NOT (on_hand >= reserved AND reserved >= 0)",
    ),
    Invariant(
        "the ledger adds up to what is on hand and to what is reserved",
        """
        SELECT products.id, on_hand, products.reserved, ledger.on_hand_sum, ledger.reserved_sum
        FROM products LEFT JOIN (
            SELECT product_id, sum(quantity) AS on_hand_sum, sum(reserved) AS reserved_sum
            FROM stock_movements GROUP BY product_id
        ) AS ledger ON ledger.product_id = products.id
        WHERE on_hand <> coalesce(ledger.on_hand_sum, 0) OR products.reserved <> coalesce(ledger.reserved_sum, 0)
        """,
    ),
)

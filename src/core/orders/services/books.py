"""What is true of orders after anything that anybody did."""

from typing import Final

from src.shared.invariants import Invariant

INVARIANTS: Final = (
    Invariant(
        "what is reserved is what open orders wait for",
        """
        SELECT products.id, reserved, coalesce(awaited.quantity, 0) AS awaited FROM products LEFT JOIN (
            SELECT product_id, sum(order_lines.quantity) AS quantity
            FROM order_lines JOIN orders ON orders.id = order_id
            WHERE status IN ('placed', 'paid') GROUP BY product_id
        ) AS awaited ON awaited.product_id = products.id
        WHERE reserved <> coalesce(awaited.quantity, 0)
        """,
    ),
    Invariant(
        "an order's total is the sum of its lines",
        """
        SELECT id, total_minor, coalesce(lines.total, -1) AS lines_minor FROM orders LEFT JOIN (
            SELECT order_id, sum(unit_price_minor * quantity) AS total FROM order_lines GROUP BY order_id
        ) AS lines ON lines.order_id = orders.id
        WHERE total_minor <> coalesce(lines.total, -1)
        """,
    ),
    Invariant(
        "an order's history has each of its versions, and ends with its status",
        """
        SELECT orders.id, orders.status, orders.version, coalesce(history.events, 0) AS events FROM orders LEFT JOIN (
            SELECT order_id, count(*) AS events, max(version) AS newest FROM order_events GROUP BY order_id
        ) AS history ON history.order_id = orders.id
        LEFT JOIN order_events AS ending ON ending.order_id = orders.id AND ending.version = orders.version
        WHERE coalesce(history.events, 0) <> orders.version OR history.newest <> orders.version
            OR ending.status <> orders.status
        """,
    ),
    Invariant(
        "the ledger says of each order what became of its goods",
        """
        SELECT orders.id, orders.status, order_lines.product_id, order_lines.quantity, ledger.on_hand, ledger.reserved
        FROM orders JOIN order_lines ON order_lines.order_id = orders.id LEFT JOIN (
            SELECT replace(reference, '-', '') AS reference, product_id, sum(quantity) AS on_hand, sum(reserved) AS reserved
            FROM stock_movements WHERE reference <> '' GROUP BY 1, product_id
        ) AS ledger ON ledger.product_id = order_lines.product_id
            -- SQLite has ids without hyphens.
            AND ledger.reference = 'order:' || replace(CAST(orders.id AS TEXT), '-', '')
        WHERE ledger.reserved <> CASE WHEN status IN ('placed', 'paid') THEN order_lines.quantity ELSE 0 END
            OR ledger.on_hand <> CASE WHEN status = 'fulfilled' THEN -order_lines.quantity ELSE 0 END
            OR ledger.reserved IS NULL
        """,
    ),
)

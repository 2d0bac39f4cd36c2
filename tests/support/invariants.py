"""What is true of the shop's books after anything that anybody did."""

from sqlalchemy import text

from tests.support.tables import execute

# Each finds the rows for which the sentence is not true.
_BOOKS = {
    "what is on hand covers what is reserved, and neither is negative": """
        SELECT id, on_hand, reserved FROM products WHERE NOT (on_hand >= reserved AND reserved >= 0)
    """,
    "what is reserved is what open orders wait for": """
        SELECT id, reserved FROM products WHERE reserved <> (
            SELECT coalesce(sum(order_lines.quantity), 0) FROM order_lines JOIN orders ON orders.id = order_id
            WHERE product_id = products.id AND orders.status <> 'cancelled'
        )
    """,
    "the movements explain what is on hand": """
        SELECT id, on_hand FROM products WHERE on_hand <> (
            SELECT coalesce(sum(quantity), 0) FROM stock_movements WHERE product_id = products.id
        )
    """,
    "an order's total is the sum of its lines": """
        SELECT id, total_minor FROM orders WHERE total_minor <> (
            SELECT coalesce(sum(unit_price_minor * quantity), -1) FROM order_lines WHERE order_id = orders.id
        )
    """,
}


def check_books(database_url: str) -> None:
    """Call it when nobody writes: the sentences are checked one after another."""
    for sentence, violations in _BOOKS.items():
        assert execute(database_url, text(violations)) == [], f"not true: {sentence}"

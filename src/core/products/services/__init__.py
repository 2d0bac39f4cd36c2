"""What can be done with products and their stock."""

from src.core.products.currencies import format_minor
from src.core.products.services.books import INVARIANTS
from src.core.products.services.catalogue import (
    archive_product,
    create_product,
    get_product,
    select_products,
    update_product,
)
from src.core.products.services.stock import (
    Purpose,
    ReservedLine,
    StockLine,
    adjust_stock,
    release_stock,
    reserve_stock,
    select_movements,
    ship_stock,
    take_back_stock,
)

__all__ = [
    "INVARIANTS",
    "Purpose",
    "ReservedLine",
    "StockLine",
    "adjust_stock",
    "archive_product",
    "create_product",
    "format_minor",
    "get_product",
    "release_stock",
    "reserve_stock",
    "select_movements",
    "select_products",
    "ship_stock",
    "take_back_stock",
    "update_product",
]

"""What can be done with products and their stock."""

from src.core.products.currencies import format_minor
from src.core.products.services.books import INVARIANTS
from src.core.products.services.catalogue import (
    Label,
    archive_product,
    create_product,
    get_labels,
    get_product,
    select_products,
    update_product,
)
from src.core.products.services.stock import (
    LowStock,
    Purpose,
    ReservedLine,
    StockLine,
    adjust_stock,
    list_low_stock,
    release_stock,
    reserve_stock,
    select_movements,
    ship_stock,
    take_back_stock,
)

__all__ = [
    "INVARIANTS",
    "Label",
    "LowStock",
    "Purpose",
    "ReservedLine",
    "StockLine",
    "adjust_stock",
    "archive_product",
    "create_product",
    "format_minor",
    "get_labels",
    "get_product",
    "list_low_stock",
    "release_stock",
    "reserve_stock",
    "select_movements",
    "select_products",
    "ship_stock",
    "take_back_stock",
    "update_product",
]

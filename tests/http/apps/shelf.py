"""A team's service, which a route calls by its module."""

from typing import NoReturn

from src.exceptions import BusinessException
from src.shared.errors import ErrorCode


async def get_item(item_id: int) -> NoReturn:
    if item_id < 0:
        raise BusinessException(ErrorCode.STOCK_OUT_OF_RANGE, data={"available": 0})
    raise BusinessException(ErrorCode.PRODUCT_NOT_FOUND)

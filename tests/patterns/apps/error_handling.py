"""Patterns, Error handling: a refusal is raised with a code; the code's status is in `src/shared/errors.py`."""

from fastapi import APIRouter

from src.exceptions import BusinessException
from src.shared.errors import ErrorCode

router = APIRouter()


@router.post("/stock/{stock}/refusal")
async def refuse(stock: int) -> None:
    raise BusinessException(
        ErrorCode.PRODUCT_OUT_OF_STOCK,
        f"Only {stock} items available",
        data={"available": stock},
    )

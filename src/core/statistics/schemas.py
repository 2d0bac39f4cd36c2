"""Letters about numbers."""

from src.shared.types import ResponseModel


class AccountNumbers(ResponseModel):
    total: int
    active: int
    verified: int


class OrderNumbers(ResponseModel):
    total: int
    by_status: dict[str, int]


class StatsResponse(ResponseModel):
    users: AccountNumbers
    orders: OrderNumbers

"""Letters about numbers."""

from datetime import date, timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from src.mixins import utc_now
from src.shared.types import Day, LocalDatetime, QueryModel, ResponseModel, to_local

MAX_DAYS: Final = 366
USUAL_DAYS: Final = 30


def _today() -> date:
    return to_local(utc_now()).date()


class StatsPeriod(QueryModel):
    """Days of the presentation zone, both included."""

    until: Annotated[Day, Field(default_factory=_today, description="Today, if it is left out")]
    since: Annotated[
        Day | None, Field(description=f"{USUAL_DAYS} days in all, if it is left out; at most {MAX_DAYS}")
    ] = None

    @field_validator("since")
    @classmethod
    def _in_reach(cls, since: date | None, info: ValidationInfo) -> date | None:
        until = info.data.get("until")
        if since is None or until is None:
            return since
        if since > until:
            raise PydanticCustomError("period_reversed", "Not after the last day")
        if (until - since).days >= MAX_DAYS:
            raise PydanticCustomError("period_too_long", "At most {days} days", {"days": MAX_DAYS})
        return since

    @property
    def first(self) -> date:
        return self.since or self.until - timedelta(days=USUAL_DAYS - 1)


class AccountNumbers(ResponseModel):
    total: int
    active: int
    verified: int


class OrderNumbers(ResponseModel):
    total: int
    by_status: dict[str, int]


class DayNumbers(ResponseModel):
    """In one currency. All of its amounts are in minor units."""

    day: date
    currency: str
    orders: Annotated[int, Field(description="Paid that day")]
    paid_minor: int
    refunded_minor: Annotated[int, Field(description="Of orders cancelled after they were paid, or returned, that day")]
    net_minor: int


class BestSellerNumbers(ResponseModel):
    """Of the orders that were paid in the period and not given back since."""

    product_id: UUID
    sku: str
    name: Annotated[str, Field(description="As it is called now")]
    quantity: int
    revenue_minor: Annotated[dict[str, int], Field(description="By currency")]


class LowStockNumbers(ResponseModel):
    product_id: UUID
    sku: str
    name: str
    stock: Annotated[int, Field(description="What can be ordered")]


class StatsResponse(ResponseModel):
    since: date
    until: date
    computed_at: Annotated[LocalDatetime, Field(description="An answer is given again for a while")]
    users: AccountNumbers
    orders: OrderNumbers
    revenue: Annotated[list[DayNumbers], Field(description="Of days that have any, by day and currency")]
    best_sellers: list[BestSellerNumbers]
    low_stock: Annotated[list[LowStockNumbers], Field(description="Of what is for sale, the lowest first")]

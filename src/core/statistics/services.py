"""Counting over the domains."""

from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from src.cache import CacheProtocol
from src.config import get_settings
from src.core.orders import services as orders
from src.core.products import services as products
from src.core.statistics.schemas import (
    AccountNumbers,
    BestSellerNumbers,
    DayNumbers,
    LowStockNumbers,
    OrderNumbers,
    StatsPeriod,
    StatsResponse,
)
from src.mixins import utc_now
from src.shared.cache_keys import cache_key
from src.users import services as users

BEST_SELLERS: Final = 10
LOW_STOCK: Final = 50
"""The most that are listed."""


async def get_stats(session: AsyncSession, cache: CacheProtocol, period: StatsPeriod) -> StatsResponse:
    """At most `settings.statistics.cache_seconds` old, as `computed_at` says. Whose they are to see is judged before."""
    settings = get_settings()
    if not settings.statistics.cache_seconds:
        return await _count(session, period)

    async def load() -> dict[str, Any]:  # Any: JSON
        return (await _count(session, period)).model_dump(mode="json")

    key = cache_key(
        "statistics",
        period.first.isoformat(),
        period.until.isoformat(),
        # What the same days stand for, and the same goods, is a matter of settings.
        str(settings.app.timezone),
        settings.statistics.low_stock,
        principal="role:admin",
    )
    return StatsResponse.model_validate(await cache.get_or_set(key, load, settings.statistics.cache_seconds))


async def _count(session: AsyncSession, period: StatsPeriod) -> StatsResponse:
    computed_at = utc_now()  # what happens while it is counted may be in it or not
    since, until = period.first, period.until
    best = await orders.get_best_sellers(session, since=since, until=until, limit=BEST_SELLERS)
    labels = await products.get_labels(session, [each.product_id for each in best])
    low = await products.list_low_stock(session, at_most=get_settings().statistics.low_stock, limit=LOW_STOCK)
    return StatsResponse(
        since=since,
        until=until,
        computed_at=computed_at,
        users=AccountNumbers.model_validate(await users.get_stats(session)),
        orders=OrderNumbers.model_validate(await orders.get_stats(session)),
        revenue=[
            DayNumbers.model_validate(each) for each in await orders.get_revenue(session, since=since, until=until)
        ],
        best_sellers=[
            BestSellerNumbers(
                product_id=each.product_id,
                sku=labels[each.product_id].sku,
                name=labels[each.product_id].name,
                quantity=each.quantity,
                revenue_minor=dict(each.revenue_minor),
            )
            for each in best
        ],
        low_stock=[LowStockNumbers.model_validate(each) for each in low],
    )

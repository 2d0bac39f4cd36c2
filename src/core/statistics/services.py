"""Counting over the domains."""

from sqlalchemy.ext.asyncio import AsyncSession

from src.core.orders import services as orders
from src.core.statistics.schemas import AccountNumbers, OrderNumbers, StatsResponse
from src.users import services as users


async def get_stats(session: AsyncSession) -> StatsResponse:
    return StatsResponse(
        users=AccountNumbers.model_validate(await users.get_stats(session)),
        orders=OrderNumbers.model_validate(await orders.get_stats(session)),
    )

"""What must be true of the tables, and where it is not."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from src.core.orders import services as orders
from src.core.payments import services as payments
from src.core.products import services as products
from src.outbox import services as outbox
from src.shared.invariants import Invariant
from src.webhooks import services as webhooks

INVARIANTS: Final[Sequence[Invariant]] = (
    *products.INVARIANTS,
    *orders.INVARIANTS,
    *payments.INVARIANTS,
    *outbox.INVARIANTS,
    *webhooks.INVARIANTS,
)
"""Each domain declares its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    sentence: str
    broken: Sequence[Mapping[str, Any]]  # Any: columns of any type
    """The rows for which it is not true."""


async def examine(session: AsyncSession) -> AsyncIterator[Finding]:
    """Each sentence is looked at in one statement: it holds or does not, whoever writes meanwhile."""
    for invariant in INVARIANTS:
        yield Finding(invariant.sentence, [dict(row) for row in (await session.execute(invariant.query())).mappings()])

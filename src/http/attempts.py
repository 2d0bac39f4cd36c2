"""A request whose transaction lost against another one, by a deadlock or a serialisation failure, is run again.

Nothing of it is left: its transaction was rolled back, and nothing was answered. What it did elsewhere in the middle of
its transaction happens again, and belongs into the outbox.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from loguru import logger
from sqlalchemy.exc import DBAPIError
from starlette.types import Scope

from src.shared.database import is_conflict

T = TypeVar("T")

BEFORE_COMMIT: Final = "undercroft.before_commit"
"""Where an attempt's scope carries what is to be done with its finished answer."""
UNREPEATABLE: Final = "undercroft.unrepeatable"
"""Set in the scope of a request whose body was read piece by piece and is gone, or whose answer has begun."""
_LONGEST_PAUSES_SECONDS: Final = (0.02, 0.1, 0.4)


async def run_again(attempt: Callable[[], Awaitable[T]], scope: Scope, lost: DBAPIError) -> T:
    """What the next attempt gives, or what the last one raises; `lost` itself when there is nothing to repeat."""
    for number, longest in enumerate(_LONGEST_PAUSES_SECONDS, 1):
        if not is_conflict(lost) or UNREPEATABLE in scope:
            break
        logger.bind(attempt=number).warning("A transaction lost against another one: its request is run again")
        scope.pop(BEFORE_COMMIT, None)
        # Those that got into each other's way do not come back together.
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - no secret
        try:
            return await attempt()
        except DBAPIError as error:
            lost = error
    raise lost

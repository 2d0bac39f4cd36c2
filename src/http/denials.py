"""Denials in the audit log: somebody who is known asked for what is not theirs."""

from collections import Counter
from itertools import islice
from time import monotonic
from typing import Final
from uuid import UUID

from loguru import logger

from src.audit import services as audit
from src.shared.database import DATABASE_ERRORS
from src.shared.errors import ErrorCode
from src.shared.logging import current_request

DENIALS: Final = frozenset({ErrorCode.PERMISSION_DENIED, ErrorCode.ROLE_REQUIRED, ErrorCode.GRANT_NOT_HELD})
_NOTED_A_MINUTE: Final = 10
_MINUTE_SECONDS: Final = 60

_counts: Counter[tuple[int, UUID | str | None, str, ErrorCode]] = Counter()


async def note_denial(code: ErrorCode, route: str) -> None:
    """After the rollback of what was refused, in a transaction of its own. Of the same denial ten a minute are noted:
    who asks a thousand times more would have the log, and its lock, to themselves."""
    context, minute = current_request(), int(monotonic()) // _MINUTE_SECONDS
    if any(counted[0] != minute for counted in islice(_counts, 1)):
        _counts.clear()
    denial = (minute, None if context is None else context.user_id, route, code)
    _counts[denial] += 1
    if _counts[denial] > _NOTED_A_MINUTE:
        return
    last = _counts[denial] == _NOTED_A_MINUTE
    try:
        await audit.record_alone(
            "access.denied", target=("route", route[:128]), after={"code": code.value, "last_of_its_minute": last}
        )
    except DATABASE_ERRORS as failed:
        # It is a refusal all the same.
        logger.bind(route=route, error=type(failed).__name__).error("A denial could not be written to the audit log")

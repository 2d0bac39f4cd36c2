"""The data lane: sessions and reads that cost little more than the driver, with the results of the ordinary path.

Why and how: docs/decisions/0017-data-lane.md. Off by `DB__DATA_LANE=false`.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool

from src.shared.lane import pages
from src.shared.lane.connections import Lane
from src.shared.lane.letters import PageJson, PageWriter, page_writer
from src.shared.lane.session import LaneSession
from src.shared.lane.statements import Prepared, dialect_of, fetch_all, later, prepared, table_of
from src.shared.lane.versions import libraries_known

__all__ = [
    "LaneSession",
    "PageJson",
    "PageWriter",
    "Prepared",
    "dialect_of",
    "fetch_all",
    "later",
    "open_lane",
    "page_writer",
    "prepared",
    "table_of",
]


def open_lane(
    engine: AsyncEngine, session_class: type[Session], ordered: Callable[[Select[Any]], Select[Any]]
) -> Callable[[], LaneSession] | None:  # Any: of whatever is selected
    """What makes sessions for this engine; None where the ordinary ones have to do.

    `ordered` gives a part of a result its order, as `session_class` does.
    """
    pool = engine.sync_engine.pool
    if not libraries_known() or type(pool) is not AsyncAdaptedQueuePool or pool._pre_ping or pool._recycle > -1:  # noqa: SLF001 - what a connection goes through before it is lent
        return None
    lane = Lane(engine, session_class, ordered)
    pages.install()
    return lambda: LaneSession(lane)

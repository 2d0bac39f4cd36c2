"""How it is found out what may be delivered next, however much waits; PostgreSQL."""

from typing import Any

from sqlalchemy import Executable, text
from sqlalchemy.dialects import postgresql
from sqlmodel import col, select

from src.outbox.models import OutboxEvent
from src.outbox.services.queues import heads_of_queues, is_waiting
from tests.support.postgres import drop_database, fresh_database
from tests.support.tables import execute_each

_MANY = """
INSERT INTO outbox_events (id, kind, aggregate, payload, created_at, available_at, attempts, last_error)
SELECT gen_random_uuid(), 'mail', 'order:' || number, '', now(), now(), 0, '' FROM generate_series(1, 3000) AS number
"""


def joins(statement: Executable) -> list[str]:
    """Those that it takes with many events waiting, of which the planner knows nothing: as when nothing could be
    delivered for a while, and all that is known is that usually nothing waits."""
    shown: Any = statement  # Any: what can be compiled
    sql = str(shown.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[no-untyped-call] # the dialect
    url = fresh_database("postgres")
    try:
        _, plan = execute_each(url, [text(_MANY), text(f"EXPLAIN {sql}")])
        return [line for (line,) in plan if "Join" in line or "Nested Loop" in line]
    finally:
        drop_database(url)


def test_what_waits_is_gone_through_once() -> None:
    heads = heads_of_queues()

    assert joins(select(heads.c.position).order_by(heads.c.available_at).limit(16)) == []


def test_a_join_would_go_through_it_again_and_again() -> None:
    """The positive control: with what it knows, the planner loops."""
    heads = heads_of_queues()
    statement = select(col(OutboxEvent.id)).where(
        *is_waiting(), col(OutboxEvent.position).in_(select(heads.c.position))
    )

    assert any("Nested Loop" in line for line in joins(statement))

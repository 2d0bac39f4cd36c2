"""The queue that the events of an aggregate wait in."""

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from src.outbox.models import OutboxEvent


def first_of_their_aggregates() -> tuple[ColumnElement[bool], ...]:
    """Those that no other one has to be delivered before."""
    waiting = aliased(OutboxEvent)
    # Found once for all: asked of each event, a long queue of one aggregate takes the square of its length.
    firsts = (
        select(func.min(waiting.position).label("position"))
        .where(col(waiting.delivered_at).is_(None), col(waiting.dead_at).is_(None))
        .group_by(col(waiting.aggregate))
        .cte("firsts")
        .prefix_with("MATERIALIZED")
    )
    return (
        col(OutboxEvent.delivered_at).is_(None),
        col(OutboxEvent.dead_at).is_(None),
        col(OutboxEvent.position).in_(select(firsts.c.position)),
    )

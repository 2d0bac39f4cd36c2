"""The queues that events wait in, one of each aggregate."""

from sqlalchemy import ColumnElement, Subquery, func
from sqlmodel import col, select

from src.outbox.models import OutboxEvent


def is_waiting() -> tuple[ColumnElement[bool], ...]:
    return col(OutboxEvent.delivered_at).is_(None), col(OutboxEvent.dead_at).is_(None)


def heads_of_queues() -> Subquery:
    """`position`, `kind` and `available_at` of those that no other one has to be delivered before.

    In one pass over what waits, without a join: how many wait is what a planner cannot know. Usually it is next to none,
    and when nothing can be delivered it is everything.
    """
    place = func.row_number().over(partition_by=col(OutboxEvent.aggregate), order_by=col(OutboxEvent.position))
    waiting = (
        select(OutboxEvent.position, OutboxEvent.kind, OutboxEvent.available_at, place.label("place"))
        .where(*is_waiting())
        .subquery()
    )
    heads = select(waiting.c.position, waiting.c.kind, waiting.c.available_at)
    return heads.where(waiting.c.place == 1).subquery("heads")

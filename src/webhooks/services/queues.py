"""The queues that deliveries wait in: one of each endpoint and aggregate, behind the door of the endpoint."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, Integer, Select, SQLColumnExpression, bindparam, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import col, select

from src.outbox import services as outbox
from src.shared.lane import table_of
from src.users import services as users
from src.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint

Moment = datetime | BindParameter[datetime]

wake_ups: Final = outbox.WakeUps()
"""Of who delivers."""


def is_free(now: Moment) -> tuple[ColumnElement[bool], ...]:
    """It waits, and nobody is at it."""
    leased_until = col(WebhookDelivery.leased_until)
    return col(WebhookDelivery.state) == DeliveryState.PENDING, or_(leased_until.is_(None), leased_until <= now)


def is_open(now: Moment) -> tuple[SQLColumnExpression[bool], ...]:
    """Of an endpoint: something may be sent there."""
    paused_until = col(WebhookEndpoint.paused_until)
    return (
        col(WebhookEndpoint.is_enabled),
        or_(paused_until.is_(None), paused_until <= now),
        users.is_active(col(WebhookEndpoint.owner_id)),
    )


_DELIVERIES = table_of(WebhookDelivery)


def _select_due() -> Select[Any]:  # Any: a row, as the next line has it
    """Position and endpoint of what could be sent `now`, by turns: those of one endpoint do not stand before all others.

    What waits behind a closed door is not looked at: it may be much, and for long.
    """
    c, now = _DELIVERIES.c, bindparam("now", type_=_DELIVERIES.c.available_at.type)
    place = func.row_number().over(partition_by=(c.endpoint_id, c.aggregate), order_by=c.position)
    waiting = (
        select_columns(c.position, c.endpoint_id, c.available_at, c.leased_until, place.label("place"))
        .where(c.state == DeliveryState.PENDING, c.endpoint_id.in_(select(WebhookEndpoint.id).where(*is_open(now))))
        .subquery("waiting")
    )
    turn = func.row_number().over(
        partition_by=waiting.c.endpoint_id, order_by=(waiting.c.available_at, waiting.c.position)
    )
    heads = (
        select_columns(waiting.c.position, waiting.c.endpoint_id, waiting.c.available_at, turn.label("turn"))
        .where(
            waiting.c.place == 1,
            waiting.c.available_at <= now,
            or_(waiting.c.leased_until.is_(None), waiting.c.leased_until <= now),
        )
        .subquery("heads")
    )
    return (
        select_columns(heads.c.position, heads.c.endpoint_id)
        .where(heads.c.turn <= bindparam("of_each", type_=Integer))
        .order_by(heads.c.turn, heads.c.available_at, heads.c.position)
        .limit(bindparam("most", type_=Integer))
    )


DUE: Final = _select_due()
"""Built once: that costs more than to ask it."""

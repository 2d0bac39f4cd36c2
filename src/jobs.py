"""What is done outside of requests: the outbox's handlers, and what is swept from time to time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession

from src.auth import services as auth
from src.auth.services import api_keys, challenges, one_time, passkeys, providers, sessions
from src.auth.services.addresses import ADDRESS_CHANGE_REQUESTED, VERIFICATION_REQUESTED
from src.auth.services.recovery import PASSWORD_FORGOTTEN
from src.config import get_settings
from src.core.orders import services as orders
from src.core.payments import services as payments
from src.idempotency import services as idempotency
from src.mail import services as mail
from src.outbox import services as outbox
from src.shared.database import DATABASE_ERRORS, is_outage, transaction
from src.webhooks import services as webhooks

HANDLERS: Final = outbox.joined(
    {
        mail.KIND: mail.deliver,
        PASSWORD_FORGOTTEN: auth.send_reset,
        VERIFICATION_REQUESTED: auth.send_verification,
        ADDRESS_CHANGE_REQUESTED: auth.offer_new_address,
    },
    orders.HANDLERS,
    payments.HANDLERS,
)

SWEEPS: Final[Mapping[str, Callable[[AsyncSession], Awaitable[int]]]] = {
    "idempotency records": idempotency.sweep,
    "delivered events": outbox.sweep,
    "ended sessions": sessions.sweep,
    "one-time tokens": one_time.sweep,
    "log-in challenges": challenges.sweep,
    "API keys": api_keys.sweep,
    "passkey challenges": passkeys.sweep,
    "errands to providers": providers.sweep,
    "webhook deliveries": webhooks.sweep,
}
_SWEPT_FIRST_AFTER_SECONDS: Final = 60
_SWEPT_EVERY_SECONDS: Final = 3600


@asynccontextmanager
async def working() -> AsyncIterator[None]:
    """While the block runs, events are delivered, what is overdue expires, and what is old is swept."""
    works = (
        outbox.dispatch(HANDLERS),
        outbox.dispatch_apart(HANDLERS),
        webhooks.dispatch(),
        _keep_expiring(),
        _keep_sweeping(),
    )
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _keep_expiring() -> None:
    while True:
        await asyncio.sleep(get_settings().orders.expiry_check_seconds)
        try:
            await expire_orders()
        except DATABASE_ERRORS as error:
            logger.bind(error=type(error).__name__).warning("Could not look for overdue orders now")


async def expire_orders() -> int:
    """How many gave their stock back."""
    expired, failed = 0, set[UUID]()
    while True:
        async with transaction() as session:
            overdue = await orders.list_overdue(session, but=failed)
        before = expired + len(failed)
        for order_id in overdue:
            try:
                async with transaction() as session:
                    expired += await orders.expire_order(session, order_id)
            except Exception as error:
                if is_outage(error):
                    raise
                # Whatever it is, the others must not wait for it: a CHECK that refuses it would refuse it each time.
                failed.add(order_id)
                logger.bind(order_id=str(order_id)).exception("Could not expire an order")
        if expired + len(failed) == before:
            return expired


async def _keep_sweeping() -> None:
    await asyncio.sleep(_SWEPT_FIRST_AFTER_SECONDS)
    while True:
        await sweep()
        await asyncio.sleep(_SWEPT_EVERY_SECONDS)


async def sweep() -> None:
    for what, forget in SWEEPS.items():
        try:
            async with transaction() as session:
                count = await forget(session)
        except DATABASE_ERRORS as error:
            logger.bind(what=what, error=type(error).__name__).warning("Could not sweep now")
        else:
            if count:
                logger.bind(what=what, count=count).info("Swept")

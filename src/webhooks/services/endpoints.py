"""Webhooks as their owners manage them."""

import asyncio
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.audit.services import Facts
from src.config import get_settings
from src.exceptions import BusinessException
from src.mail import services as mail
from src.mixins import utc_now
from src.shared import signatures
from src.shared.database import transaction
from src.shared.endings import after_commit
from src.shared.errors import ErrorCode
from src.shared.keys import seal
from src.users import services as users
from src.webhooks import addresses
from src.webhooks.event_types import EVENT_TYPES
from src.webhooks.models import DeliveryState, DisabledReason, WebhookDelivery, WebhookEndpoint
from src.webhooks.schemas import (
    CreateWebhookRequest,
    EventTypeResponse,
    NewWebhookResponse,
    UpdateWebhookRequest,
    WebhookResponse,
    WebhookSecretResponse,
)
from src.webhooks.services.queues import is_free, wake_ups

PURPOSE: Final = "webhooks"
"""Of the key that secrets are sealed with."""
_OVERLAP: Final = timedelta(days=1)
_LOOKED_UP_WITHIN_SECONDS: Final = 3


async def refuse_url(url: str) -> None:
    """A courtesy to whoever mistypes it: what counts is looked at with each attempt. The DNS is asked, so that no
    transaction should be under way. Refused: WEBHOOK_URL_REFUSED."""
    try:
        async with asyncio.timeout(_LOOKED_UP_WITHIN_SECONDS):
            await addresses.locate(url, addresses.RESOLVERS_WHEN_SAVED)
    except (addresses.RefusedAddressError, TimeoutError):
        raise BusinessException(ErrorCode.WEBHOOK_URL_REFUSED) from None


def list_event_types() -> list[EventTypeResponse]:
    return [EventTypeResponse(name=name, description=text) for name, text in EVENT_TYPES.items()]


async def create_webhook(owner_id: UUID, request: CreateWebhookRequest, *, second_factor: bool) -> NewWebhookResponse:
    """`second_factor`: whether one was proven by whoever asks. Refused: WEBHOOK_URL_REFUSED, TOO_MANY_WEBHOOKS,
    USER_NOT_FOUND."""
    await refuse_url(request.url)
    secret, most = signatures.make_secret(), get_settings().webhooks.per_account
    async with transaction() as session:
        # Locked: of many at once none is one too many.
        await users.lock_account(session, owner_id)
        own = select(func.count()).select_from(WebhookEndpoint).where(col(WebhookEndpoint.owner_id) == owner_id)
        if (await session.execute(own)).scalar_one() >= most:
            raise BusinessException(ErrorCode.TOO_MANY_WEBHOOKS, data={"limit": most})
        made = WebhookEndpoint(
            owner_id=owner_id,
            second_factor=second_factor,
            url=request.url,
            description=request.description,
            event_types=request.event_types,
            secret=seal(PURPOSE, signatures.read_secret(secret)),
        )
        session.add(made)
        await session.flush()
        await audit.record(session, "webhook.created", target=("webhook", made.id), after=_facts(made))
        return NewWebhookResponse(**WebhookResponse.model_validate(made).model_dump(), secret=secret)


def _facts(endpoint: WebhookEndpoint) -> Facts:
    """Not the whole URL: some receivers have a password of their own in its path."""
    return {
        "host": _host(endpoint),
        "event_types": None if endpoint.event_types is None else list(endpoint.event_types),
        "is_enabled": endpoint.is_enabled,
    }


def _host(endpoint: WebhookEndpoint) -> str:
    return urlsplit(endpoint.url).hostname or ""


def select_webhooks(owner_id: UUID) -> SelectOfScalar[WebhookEndpoint]:
    return _own(owner_id).order_by(col(WebhookEndpoint.created_at), col(WebhookEndpoint.id))


async def get_webhook(session: AsyncSession, endpoint_id: UUID, *, owner_id: UUID) -> WebhookResponse:
    """Refused: WEBHOOK_NOT_FOUND, for somebody else's too."""
    return WebhookResponse.model_validate(await get_own(session, endpoint_id, owner_id))


async def get_own(session: AsyncSession, endpoint_id: UUID, owner_id: UUID) -> WebhookEndpoint:
    return await _found(session, _own(owner_id).where(WebhookEndpoint.id == endpoint_id))


async def lock_own(session: AsyncSession, endpoint_id: UUID, owner_id: UUID) -> WebhookEndpoint:
    # Not against those who only point to it: an event's deliveries are written meanwhile.
    return await _found(
        session, _own(owner_id).where(WebhookEndpoint.id == endpoint_id).with_for_update(key_share=True)
    )


async def _found(session: AsyncSession, query: SelectOfScalar[WebhookEndpoint]) -> WebhookEndpoint:
    endpoint = (await session.execute(query)).scalar_one_or_none()
    if endpoint is None:
        raise BusinessException(ErrorCode.WEBHOOK_NOT_FOUND)
    return endpoint


def _own(owner_id: UUID) -> SelectOfScalar[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.owner_id == owner_id)


async def update_webhook(
    session: AsyncSession, endpoint_id: UUID, changes: UpdateWebhookRequest, *, owner_id: UUID, second_factor: bool
) -> WebhookResponse:
    """What waits goes to the new URL. A new one, or to be enabled, is a new beginning: what failed before is forgotten.

    Whoever calls has asked `refuse_url` about a new one. Refused: WEBHOOK_NOT_FOUND.
    """
    endpoint = await lock_own(session, endpoint_id, owner_id)
    before = _facts(endpoint)
    if changes.url is not None and changes.url != endpoint.url:
        # Whoever says where it goes reads what it is told: no more than they may in their own session.
        if endpoint.second_factor and not second_factor:
            await session.execute(delete(WebhookDelivery).where(col(WebhookDelivery.endpoint_id) == endpoint_id))
        endpoint.url, endpoint.second_factor = changes.url, second_factor
        _begin_anew(endpoint)
    if changes.description is not None:
        endpoint.description = changes.description
    if "event_types" in changes.model_fields_set:
        endpoint.event_types = changes.event_types
    if changes.is_enabled is True:
        endpoint.is_enabled, endpoint.disabled_reason = True, None
        _begin_anew(endpoint)
        after_commit(session, wake_ups.ring)
    elif changes.is_enabled is False and endpoint.is_enabled:
        await _stop(session, endpoint, DisabledReason.OWNER)
    was, is_now = audit.changes(before, _facts(endpoint))
    if is_now:
        await audit.record(session, "webhook.updated", target=("webhook", endpoint_id), before=was, after=is_now)
    await session.flush()
    return WebhookResponse.model_validate(endpoint)


def _begin_anew(endpoint: WebhookEndpoint) -> None:
    endpoint.consecutive_failures, endpoint.failing_since, endpoint.paused_until = 0, None, None


async def rotate_secret(session: AsyncSession, endpoint_id: UUID, *, owner_id: UUID) -> WebhookSecretResponse:
    """The one before signs, too, for a day; the one before that no more. Refused: WEBHOOK_NOT_FOUND."""
    endpoint = await lock_own(session, endpoint_id, owner_id)
    secret = signatures.make_secret()
    until = utc_now() + _OVERLAP
    endpoint.previous_secret, endpoint.previous_secret_until = endpoint.secret, until
    endpoint.secret = seal(PURPOSE, signatures.read_secret(secret))
    await audit.record(session, "webhook.secret_rotated", target=("webhook", endpoint_id))
    return WebhookSecretResponse(secret=secret, previous_secret_until=until)


async def delete_webhook(session: AsyncSession, endpoint_id: UUID, *, owner_id: UUID) -> None:
    """With what waits for it, and its log. Refused: WEBHOOK_NOT_FOUND."""
    endpoint = await lock_own(session, endpoint_id, owner_id)
    facts = _facts(endpoint)
    await session.execute(delete(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint_id))
    await audit.record(session, "webhook.deleted", target=("webhook", endpoint_id), before=facts)


async def delete_all(session: AsyncSession, owner_id: UUID) -> None:
    """Of an account that ends."""
    await session.execute(delete(WebhookEndpoint).where(col(WebhookEndpoint.owner_id) == owner_id))


async def disable(session: AsyncSession, endpoint: WebhookEndpoint, reason: DisabledReason) -> None:
    """Of itself. Its owner gets a mail."""
    await _stop(session, endpoint, reason)
    await audit.record(
        session, "webhook.disabled", target=("webhook", endpoint.id), after={"reason": reason, "host": _host(endpoint)}
    )
    to = await users.find_mail_address(session, endpoint.owner_id)
    if to is not None:
        await mail.write(
            session, "webhook_disabled", to=to.address, is_proven=to.is_proven, host=_host(endpoint), reason=reason
        )


async def _stop(session: AsyncSession, endpoint: WebhookEndpoint, reason: DisabledReason) -> None:
    """What is on its way ends by itself."""
    now = utc_now()
    endpoint.is_enabled, endpoint.disabled_reason = False, reason
    await session.execute(
        update(WebhookDelivery)
        .where(col(WebhookDelivery.endpoint_id) == endpoint.id, *is_free(now))
        .values(state=DeliveryState.DISCARDED, ended_at=now, leased_until=None),
        execution_options={"synchronize_session": False},
    )

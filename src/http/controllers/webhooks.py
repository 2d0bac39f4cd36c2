"""Webhooks: one's own, and what they were told."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.auth import require_permissions
from src.auth.dependencies import CurrentSession, CurrentUser, ForPeople
from src.http.idempotency import Idempotent
from src.shared.database import SessionDep
from src.shared.types import Id
from src.webhooks import services as webhooks
from src.webhooks.schemas import (
    CreateWebhookRequest,
    DeliveryDetailResponse,
    DeliveryFilters,
    DeliveryResponse,
    EventTypeResponse,
    NewWebhookResponse,
    UpdateWebhookRequest,
    WebhookResponse,
    WebhookSecretResponse,
)

router = APIRouter()
event_types = APIRouter()

_Readable = Depends(require_permissions("webhook:read"))
_Changeable = Depends(require_permissions("webhook:update"))


async def _owner(user: CurrentUser) -> UUID:
    return user.id


async def _reachable(request: UpdateWebhookRequest) -> None:
    if request.url is not None:
        await webhooks.refuse_url(request.url)


Owner = Annotated[UUID, Depends(_owner)]
# Before a key is claimed: no name is looked up in a transaction that has written.
_Reachable = Depends(_reachable)


@event_types.get("", dependencies=[_Readable])
async def list_event_types() -> list[EventTypeResponse]:
    return webhooks.list_event_types()


# What says where messages go is for people: an API key may do less than its owner, who is told all that they may see.
@router.post("", status_code=201, dependencies=[Depends(require_permissions("webhook:create")), ForPeople])
async def create_webhook(request: CreateWebhookRequest, owner: Owner, standing: CurrentSession) -> NewWebhookResponse:
    """The secret is told once."""
    return await webhooks.create_webhook(owner, request, second_factor=standing.second_factor_at is not None)


@router.get("", response_model=Page[WebhookResponse], dependencies=[_Readable])
async def list_webhooks(owner: Owner, session: SessionDep) -> Any:  # Any: as apaginate has it
    return await apaginate(session, webhooks.select_webhooks(owner))


@router.get("/{webhook_id}", dependencies=[_Readable])
async def get_webhook(webhook_id: Id, owner: Owner, session: SessionDep) -> WebhookResponse:
    return await webhooks.get_webhook(session, webhook_id, owner_id=owner)


@router.patch("/{webhook_id}", dependencies=[_Changeable, ForPeople, _Reachable, Idempotent])
async def update_webhook(
    webhook_id: Id, request: UpdateWebhookRequest, owner: Owner, standing: CurrentSession, session: SessionDep
) -> WebhookResponse:
    """To enable one that is disabled, or failing, is a new beginning for it."""
    return await webhooks.update_webhook(
        session, webhook_id, request, owner_id=owner, second_factor=standing.second_factor_at is not None
    )


@router.delete("/{webhook_id}", dependencies=[Depends(require_permissions("webhook:delete")), Idempotent])
async def delete_webhook(webhook_id: Id, owner: Owner, session: SessionDep) -> None:
    """With its deliveries."""
    await webhooks.delete_webhook(session, webhook_id, owner_id=owner)


@router.post("/{webhook_id}/secret", dependencies=[_Changeable, ForPeople])
async def rotate_secret(webhook_id: Id, owner: Owner, session: SessionDep) -> WebhookSecretResponse:
    """A new one, told once. The one before signs, too, for a day."""
    return await webhooks.rotate_secret(session, webhook_id, owner_id=owner)


@router.post("/{webhook_id}/test", status_code=202, dependencies=[_Changeable, Idempotent])
async def send_test(webhook_id: Id, owner: Owner, session: SessionDep) -> DeliveryResponse:
    """An event `webhook.test`, for this one alone."""
    return await webhooks.send_test(session, webhook_id, owner_id=owner)


@router.get("/{webhook_id}/deliveries", response_model=Page[DeliveryResponse], dependencies=[_Readable])
async def list_deliveries(
    webhook_id: Id, filters: Annotated[DeliveryFilters, Query()], owner: Owner, session: SessionDep
) -> Any:  # Any: as apaginate has it
    return await apaginate(session, await webhooks.select_deliveries(session, webhook_id, filters, owner_id=owner))


# For people, too: the body has what the owner may see.
@router.get("/{webhook_id}/deliveries/{delivery_id}", dependencies=[_Readable, ForPeople])
async def get_delivery(
    webhook_id: Id, delivery_id: Id, owner: Owner, standing: CurrentSession, session: SessionDep
) -> DeliveryDetailResponse:
    """With its attempts."""
    return await webhooks.get_delivery(
        session, webhook_id, delivery_id, owner_id=owner, second_factor=standing.second_factor_at is not None
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202, dependencies=[_Changeable, Idempotent]
)
async def redeliver(webhook_id: Id, delivery_id: Id, owner: Owner, session: SessionDep) -> DeliveryResponse:
    """The same message once more, signed anew."""
    return await webhooks.redeliver(session, webhook_id, delivery_id, owner_id=owner)

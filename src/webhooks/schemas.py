"""Letters about webhooks, what they are told, and how that went."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from src.shared.types import Line, LocalDatetime, QueryModel, RequestModel, ResponseModel
from src.webhooks.event_types import EVENT_TYPES
from src.webhooks.models import DeliveryState, DisabledReason


def _known(event_types: list[str]) -> list[str]:
    if unknown := sorted(set(event_types) - set(EVENT_TYPES)):
        raise PydanticCustomError(
            "event_type_unknown", "No such type of event: {unknown}", {"unknown": unknown[0][:64]}
        )
    return sorted(set(event_types))


EventTypes = Annotated[
    list[Annotated[Line, StringConstraints(max_length=64)]],
    Field(
        min_length=1, max_length=100, description="As `GET /webhook-event-types` lists them; null: all, new ones too"
    ),
    AfterValidator(_known),
]
WebhookUrl = Annotated[
    Line,
    StringConstraints(min_length=1, max_length=2048),
    Field(description="https://name/path, on the public Internet"),
]


class CreateWebhookRequest(RequestModel):
    url: WebhookUrl
    description: Line = ""
    event_types: EventTypes | None = None


class UpdateWebhookRequest(RequestModel):
    """What is left out stays as it is."""

    url: WebhookUrl | None = None
    description: Line | None = None
    event_types: EventTypes | None = None
    is_enabled: bool | None = None


class WebhookResponse(ResponseModel):
    id: UUID
    url: str
    description: str
    event_types: list[str] | None
    is_enabled: bool
    disabled_reason: DisabledReason | None
    consecutive_failures: int
    failing_since: LocalDatetime | None
    paused_until: Annotated[LocalDatetime | None, Field(description="Nothing is sent before")]
    last_delivered_at: LocalDatetime | None
    previous_secret_until: Annotated[LocalDatetime | None, Field(description="Until then the one before signs, too")]
    created_at: LocalDatetime


class NewWebhookResponse(WebhookResponse):
    secret: Annotated[str, Field(description="What its messages are signed with. It is told once")]


class WebhookSecretResponse(ResponseModel):
    secret: Annotated[str, Field(description="What messages are signed with from now on. It is told once")]
    previous_secret_until: LocalDatetime


class EventTypeResponse(ResponseModel):
    name: str
    description: str


class DeliveryFilters(QueryModel):
    """Filters of the list of deliveries."""

    state: DeliveryState | None = None
    event_type: Line | None = None


class DeliveryResponse(ResponseModel):
    id: UUID
    message_id: Annotated[str, Field(description="`webhook-id` of each attempt")]
    event_type: str
    state: DeliveryState
    attempt_count: int
    next_attempt_at: Annotated[LocalDatetime | None, Field(description="Not before; null: it does not wait")]
    created_at: LocalDatetime
    ended_at: LocalDatetime | None


class AttemptResponse(ResponseModel):
    started_at: LocalDatetime
    duration_ms: int
    status: int | None
    error: Annotated[str, Field(description="Why there was no answer; empty, when there was one")]


class DeliveryDetailResponse(DeliveryResponse):
    body: Annotated[
        str | None,
        Field(
            description="What each attempt sends, to the byte; null where it may have what a second factor lets its"
            " owner see, and none was proven in this session"
        ),
    ]
    attempts: Annotated[list[AttemptResponse], Field(description="The latest first, a hundred at most")]

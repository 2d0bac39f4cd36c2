"""Letters about the audit log."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field
from pydantic_core import from_json

from src.shared.types import Id, Line, LocalDatetime, Moment, QueryModel, ResponseModel

Source = Literal["http", "command", "job"]
Outcome = Literal["done", "refused"]
_Facts = Annotated[
    dict[str, Any],  # Any: JSON, of whatever was changed
    BeforeValidator(lambda text: from_json(text) if isinstance(text, str) else text),
]


class AuditFilters(QueryModel):
    """Filters of the audit log; newest entries come first."""

    actor_id: Annotated[Id | None, Field(description="Who did it")] = None
    action: Annotated[Line | None, Field(description="`account.updated`, or `account.` for all of that kind")] = None
    outcome: Outcome | None = None
    target_type: Line | None = None
    target_id: Line | None = None
    request_id: Line | None = None
    address: Line | None = None
    since: Annotated[Moment | None, Field(description="From this moment on")] = None
    until: Annotated[Moment | None, Field(description="Before this moment")] = None


class AuditEntryResponse(ResponseModel):
    seq: int
    created_at: LocalDatetime
    action: str
    outcome: Outcome
    actor_id: UUID | None
    source: Source
    target_type: str
    target_id: str
    before: _Facts
    after: _Facts
    request_id: str
    address: str
    user_agent: str
    digest: str

"""Letters about payments."""

import re
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr

from src.core.payments.models import PaymentStatus
from src.shared.types import LocalDatetime, RequestModel, ResponseModel


def _one_word(source: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]+", source.get_secret_value()):
        raise ValueError("must be printable ASCII without blanks")
    return source


class PayRequest(RequestModel):
    source: Annotated[
        SecretStr,
        Field(
            min_length=1,
            max_length=255,
            description="What the provider's own page gave out for the buyer's card or account",
        ),
        AfterValidator(_one_word),
    ]


class PaymentResponse(ResponseModel):
    id: UUID
    order_id: UUID
    status: PaymentStatus
    amount_minor: int
    currency: str
    decline_code: Annotated[str, Field(description="Why it was declined, in the provider's word")]
    created_at: LocalDatetime
    settled_at: LocalDatetime | None
    refunded_at: LocalDatetime | None

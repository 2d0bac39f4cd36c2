"""The adapter: a payment provider that speaks HTTP. Another provider is another file like this one."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Final
from uuid import UUID

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from src.config import PaymentSettings, get_settings
from src.core.payments.gateway import Charge, ChargeStatus, GatewayUnavailableError, PaymentGateway
from src.exceptions import BusinessException
from src.retry import PASSING_STATUSES, retry_on_network
from src.shared import outgoing
from src.shared.errors import ErrorCode

_ANSWER_BYTES: Final = 64 * 1024
_WORD: Final = re.compile(r"[a-z0-9_]{1,64}")
_REFUSED: Final = (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)
_MINOR = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Charge(BaseModel):
    """What the provider tells of a charge."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    reference: UUID
    status: ChargeStatus
    amount_minor: _MINOR
    currency: Annotated[str, Field(max_length=3)]
    decline_code: str | None = None
    refunded_minor: _MINOR = 0


class HttpGateway:
    """`POST /charges` and `POST /charges/{reference}/refunds` with an Idempotency-Key, `GET /charges/{reference}`."""

    def __init__(self, settings: PaymentSettings) -> None:
        self._url = settings.url
        self._authorization = f"Bearer {settings.api_key.get_secret_value()}"
        self._timeout_seconds = settings.timeout_seconds

    async def charge(self, payment_id: UUID, *, amount_minor: int, currency: str, source: str) -> Charge:
        letter: dict[str, str | int] = {
            "reference": str(payment_id),
            "amount_minor": amount_minor,
            "currency": currency,
            "source": source,
        }
        reply = await self._ask("POST", "/charges", key=f"charge-{payment_id}", letter=letter)
        if reply.status not in _REFUSED:
            return self._read(payment_id, reply)
        # This request was read and not carried out; one before it may have been, and have used the source up.
        charged = await self.find_charge(payment_id)
        return charged or Charge(ChargeStatus.DECLINED, amount_minor, currency, decline_code="source_refused")

    async def find_charge(self, payment_id: UUID) -> Charge | None:
        reply = await self._ask("GET", f"/charges/{payment_id}")
        return None if reply.status == httpx.codes.NOT_FOUND else self._read(payment_id, reply)

    async def refund(self, payment_id: UUID, *, amount_minor: int) -> Charge:
        reply = await self._ask(
            "POST",
            f"/charges/{payment_id}/refunds",
            key=f"refund-{payment_id}",
            letter={"amount_minor": amount_minor},
        )
        return self._read(payment_id, reply)

    async def _ask(
        self, method: str, path: str, *, key: str = "", letter: Mapping[str, str | int] | None = None
    ) -> outgoing.Reply:
        headers = {"Accept": "application/json", "Authorization": self._authorization}
        body = None
        if letter is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": key}
            body = json.dumps(letter).encode()

        # The key makes the POST idempotent: to ask again is to ask for the same.
        @retry_on_network(total_seconds=self._timeout_seconds, idempotent=True)
        async def ask() -> outgoing.Reply:
            reply = await outgoing.call(
                method,
                self._url + path,
                headers=headers,
                body=body,
                seconds=self._timeout_seconds / 2,
                most_bytes=_ANSWER_BYTES,
            )
            if reply.status in PASSING_STATUSES:
                request = httpx.Request(method, self._url + path)
                response = httpx.Response(reply.status, headers=reply.headers, request=request)
                raise httpx.HTTPStatusError("it will pass", request=request, response=response)
            return reply

        try:
            return await ask()
        except Exception as error:
            # What a network, its libraries and foreign bytes can raise is no closed set.
            raise GatewayUnavailableError(type(error).__name__) from error

    @staticmethod
    def _read(payment_id: UUID, reply: outgoing.Reply) -> Charge:
        if reply.status not in (httpx.codes.OK, httpx.codes.CREATED):
            raise GatewayUnavailableError(f"answered {reply.status}")
        try:
            told = _Charge.model_validate_json(reply.body)
        except ValidationError as error:
            raise GatewayUnavailableError("cannot be read") from error
        if told.reference != payment_id:
            raise GatewayUnavailableError("speaks of another payment")
        word = told.decline_code or ""
        return Charge(
            told.status,
            told.amount_minor,
            told.currency,
            # What is no word of a protocol's is not passed on.
            decline_code=word if _WORD.fullmatch(word) or not word else "declined",
            refunded_minor=told.refunded_minor,
        )


async def get_gateway() -> PaymentGateway:
    """Refused: PAYMENTS_OFF."""
    settings = get_settings().payments
    if not settings.url:
        raise BusinessException(ErrorCode.PAYMENTS_OFF)
    return _gateway(settings)


@lru_cache(maxsize=1)
def _gateway(settings: PaymentSettings) -> HttpGateway:
    return HttpGateway(settings)

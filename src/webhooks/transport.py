"""One attempt: a signed message to an address that was looked at, and the first line of the answer."""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Final

import httpx

from src.config import get_settings
from src.mixins import utc_now
from src.retry import asked_seconds
from src.shared import outgoing, signatures
from src.webhooks import addresses
from src.webhooks.addresses import RefusedAddressError

_GONE: Final = 410
_ASK_FOR_PATIENCE: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Outcome:
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str
    asked_seconds: float = 0
    """So long the receiver wants to be left alone."""

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110 §15.3

    @property
    def is_gone(self) -> bool:
        return self.status == _GONE


async def send(
    url: str, keys: Sequence[bytes], message_id: str, body: bytes, *, before_sending: Callable[[], None]
) -> Outcome:
    """Whatever it comes to, but for what `before_sending` raises. A redirect is no success, and is not followed."""
    started_at, start, seconds = utc_now(), monotonic(), get_settings().webhooks.timeout_seconds
    status: int | None = None
    headers: Mapping[str, str] = {}
    error = ""
    try:
        async with asyncio.timeout(seconds):
            address = await addresses.locate(url)
            signed = signatures.signed_headers(keys, message_id, int(utc_now().timestamp()), body)
            reply = await outgoing.call(
                "POST",
                url,
                headers={"Content-Type": "application/json", "User-Agent": "Undercroft-Webhooks", **signed},
                body=body,
                seconds=seconds,
                most_bytes=None,
                address=address,
                before_sending=before_sending,
            )
        status, headers = reply.status, reply.headers
    except (OSError, httpx.HTTPError, httpx.InvalidURL, RefusedAddressError) as failure:
        error = _named(failure)
    return Outcome(started_at, round((monotonic() - start) * 1000), status, error, _asked(status, headers))


def _named(failure: Exception) -> str:
    """In a word that tells the receiver's owner where to look. What the exception says may quote the URL."""
    if isinstance(failure, RefusedAddressError):
        return "address_refused"
    if isinstance(failure, TimeoutError | httpx.TimeoutException):
        return "timeout"
    if isinstance(failure, httpx.ConnectError):
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        return "connection_refused" if cause is None else "certificate_refused"
    return "protocol" if isinstance(failure, httpx.ProtocolError) else "connection_lost"


def _asked(status: int | None, headers: Mapping[str, str]) -> float:
    return asked_seconds(headers.get("retry-after", "")) if status in _ASK_FOR_PATIENCE else 0

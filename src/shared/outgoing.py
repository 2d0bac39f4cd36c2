"""Calls to servers of others: bounded in time and size, no redirect followed, nothing unpacked."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext
from typing import Any

import httpx


class TooMuchError(Exception):
    """The answer is longer than allowed, or packed although it was asked not to be."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes


async def call(  # noqa: PLR0913 - one call is that many things
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    seconds: float,
    most_bytes: int | None,
    address: str | None = None,
    before_sending: Callable[[], None] | None = None,
) -> Reply:
    """`seconds` is all of it together, and `most_bytes` the longest answer; None: it ends with its headers, nothing else
    is read.

    With an `address` the connection goes there, past any proxy, whatever the URL's name says by now; the server is still
    called by that name, and its certificate is held against it. `before_sending` is called when it stands, and before
    the first byte of the request: what it raises ends the call.

    Raises:
        TimeoutError, TooMuchError, httpx.HTTPError: and what else a network has to say.
    """
    target, asked = httpx.URL(url), dict(headers)
    extensions: dict[str, Any] = {}  # Any: as httpx has it
    if address is not None:
        asked["Host"] = target.netloc.decode()
        extensions["sni_hostname"] = target.host
        target = target.copy_with(host=address)
    if before_sending is not None:
        extensions["trace"] = _calling(before_sending)
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(verify=_certificates(), timeout=seconds, trust_env=address is None) as client,
        # A small answer that is unpacked would become a large one.
        client.stream(
            method, target, headers={"Accept-Encoding": "identity", **asked}, content=body, extensions=extensions
        ) as response,
    ):
        answer = bytearray() if most_bytes is None else await _read(response, most_bytes)
        return Reply(response.status_code, dict(response.headers), bytes(answer))


async def _read(response: httpx.Response, most_bytes: int) -> bytearray:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TooMuchError("packed what it was asked not to pack")
    answer = bytearray()
    async for part in response.aiter_raw():
        answer += part
        if len(answer) > most_bytes:
            raise TooMuchError("says too much")
    return answer


def _calling(before_sending: Callable[[], None]) -> Callable[[str, Any], Awaitable[None]]:
    async def trace(event: str, _: Any) -> None:  # Any: httpcore's
        if event.endswith(".send_request_headers.started"):
            before_sending()

    return trace


@cache
def _certificates() -> SSLContext:
    """Read once: it takes longer than all the rest."""
    return httpx.create_ssl_context()

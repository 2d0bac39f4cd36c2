"""Calls to servers of others: bounded in time and size, no redirect followed, nothing unpacked."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext

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
    most_bytes: int,
) -> Reply:
    """`seconds` is all of it together, and `most_bytes` the longest answer.

    Raises:
        TimeoutError, TooMuchError, httpx.HTTPError: and what else a network has to say.
    """
    # A small answer that is unpacked would become a large one.
    asked = {"Accept-Encoding": "identity", **headers}
    async with (
        asyncio.timeout(seconds),
        httpx.AsyncClient(verify=_certificates(), timeout=seconds) as client,
        client.stream(method, url, headers=asked, content=body) as response,
    ):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TooMuchError("packed what it was asked not to pack")
        answer = bytearray()
        async for part in response.aiter_raw():
            answer += part
            if len(answer) > most_bytes:
                raise TooMuchError("says too much")
        return Reply(response.status_code, dict(response.headers), bytes(answer))


@cache
def _certificates() -> SSLContext:
    """Read once: it takes longer than all the rest."""
    return httpx.create_ssl_context()

"""A load of requests that come from the answers before them, which wrk cannot send: one chain a connection."""

import asyncio
import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Final, Protocol

from bench.load import Load

TIMEOUT_SECONDS: Final = 10


class Chain(Protocol):
    path: str

    def body(self) -> bytes:
        """Of its next request."""

    def take(self, answer: bytes) -> None:
        """The body of an answer that was a success."""


def written(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status_and_length(head: bytes) -> tuple[int, int]:
    """Of an answer's status line and headers."""
    status, *headers = head.decode("latin-1").split("\r\n")
    length = next((line for line in headers if line.lower().startswith("content-length:")), ":0")
    return int(status.split(" ", 2)[1]), int(length.partition(":")[2])


def drive_chains(port: int, chains: Sequence[Chain], seconds: float) -> Load:
    """Until `seconds` have passed, and what is under way then is answered."""
    return asyncio.run(_drive(port, chains, seconds))


async def _drive(port: int, chains: Sequence[Chain], seconds: float) -> Load:
    milliseconds: list[float] = []
    failures: list[int] = []
    errors: list[Exception] = []
    started = time.perf_counter()

    async def follow(chain: Chain) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while time.perf_counter() < started + seconds:
                asked = time.perf_counter()
                writer.write(written(port, "POST", chain.path, chain.body()))
                status, length = status_and_length(await reader.readuntil(b"\r\n\r\n"))
                answer = await reader.readexactly(length)
                milliseconds.append((time.perf_counter() - asked) * 1000)
                if status != 200:
                    # What it would have said is needed for the next one.
                    failures.append(status)
                    return
                chain.take(answer)
        finally:
            writer.close()

    async def watched(chain: Chain) -> None:
        try:
            async with asyncio.timeout(seconds + TIMEOUT_SECONDS):
                await follow(chain)
        except (OSError, EOFError, ValueError) as error:
            errors.append(error)

    await asyncio.gather(*(watched(chain) for chain in chains))
    passed = time.perf_counter() - started
    p50, p99 = (median(milliseconds), quantiles(milliseconds, n=100)[98]) if len(milliseconds) > 1 else (0.0, 0.0)
    return Load(len(milliseconds), passed, len(failures), len(errors), p50, p99)

"""The smallest proxy that can hide a restart: it asks who is ready, and asks another one when the first did not take it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.ports import reserved_port
from tests.support.server import PROJECT, Server

LOOK_SECONDS = 0.1
_HEAD_END = b"\r\n\r\n"


class Proxy:
    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._ready = set(ports)
        self._turn = cycle(range(len(ports)))

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", port)
        async with server:
            await asyncio.gather(*(self._watch(upstream) for upstream in self._ports))

    async def _watch(self, port: int) -> None:
        while True:
            with suppress(OSError):
                answer = await _ask(port, b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                (self._ready.add if answer.startswith(b"HTTP/1.1 200") else self._ready.discard)(port)
            await asyncio.sleep(LOOK_SECONDS)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(_HEAD_END)
                body = await reader.readexactly(_length(head))
                # One connection a request: it ends with the answer.
                request = head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n" + body
                writer.write(_kept(await self._first_answer(_without_connection(request))))
                await writer.drain()
        writer.close()

    async def _first_answer(self, request: bytes) -> bytes:
        turn = next(self._turn)
        ports = self._ports[turn:] + self._ports[:turn]
        # Those that are ready first; a write may be sent twice where it has its key.
        for port in sorted(ports, key=lambda each: each not in self._ready):
            with suppress(OSError):
                if answer := await _ask(port, request):
                    return answer
                if not (request.startswith(b"GET ") or b"\r\nidempotency-key:" in request.lower()):
                    break
        return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


async def _ask(port: int, request: bytes) -> bytes:
    """The answer; nothing when the connection broke before all of it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(_HEAD_END)
        return head + await reader.readexactly(_length(head))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _without_connection(request: bytes) -> bytes:
    return request.replace(b"Connection: keep-alive\r\n", b"", 1)


def _kept(answer: bytes) -> bytes:
    return answer.replace(b"connection: close\r\n", b"", 1)


@contextmanager
def running_proxy(*upstreams: int) -> Iterator[Server]:
    with TemporaryDirectory(prefix="undercroft-proxy-") as folder, reserved_port() as port:
        log = Path(folder) / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.lifecycle.proxy", *map(str, (port, *upstreams))],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(port, process, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    own, *theirs = map(int, sys.argv[1:])
    asyncio.run(Proxy(theirs).serve(own))

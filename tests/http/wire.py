"""One connection, byte by byte: what a client library would hide."""

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.server import Server

SECONDS = 15


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:  # Any: JSON
        return json.loads(self.body)


class BrokenOffError(Exception):
    """The connection ended before the answer did."""

    def __init__(self, received: bytes) -> None:
        self.received = received
        super().__init__(received)


class Wire:
    """Reads answers as RFC 9112 frames them, so that the next request on the connection meets no leftovers."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def send(self, *lines: str, body: bytes = b"", host: str | None = "127.0.0.1") -> None:
        """The request line and headers, Host included unless `host` is None, then the body as it is."""
        request, *headers = lines
        given = [request, *([f"Host: {host}"] if host is not None else []), *headers]
        self.write("\r\n".join([*given, "", ""]).encode("latin-1") + body)

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def answer(self) -> Answer:
        return self.body_of(*self.head())

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        start, *lines = head.rstrip("\r\n").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return int(start.split(" ")[1]), headers

    def body_of(self, status: int, headers: list[tuple[str, str]]) -> Answer:
        fields = dict(headers)
        if status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if fields.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join(self.chunks()))
        return Answer(status, headers, self.read(int(fields.get("content-length", "0"))))

    def chunks(self) -> Iterable[bytes]:
        while (size := int(self.read_until(b"\r\n"), 16)) > 0:
            yield self.read(size)
            self.read(2)
        self.read_until(b"\r\n")

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        end = self._buffer.index(mark) + len(mark)
        return self.read(end)

    def ends(self) -> bool:
        """Whether the server closed the connection, and said nothing more."""
        try:
            self._receive()
        except BrokenOffError:
            return self._buffer == b""
        return False

    def _receive(self) -> None:
        try:
            received = self._connection.recv(65_536)
        except ConnectionResetError:
            received = b""
        if not received:
            raise BrokenOffError(self._buffer)
        self._buffer += received


@contextmanager
def connected(server: Server) -> Iterator[Wire]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        yield Wire(connection)

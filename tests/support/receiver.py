"""Receivers of webhooks on real ports: willing ones, and ones that do all that a receiver should not."""

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from typing import Final

HOST: Final = "127.0.0.2"
"""Where receivers live; the only place on loopback that the services of tests may call."""
ALLOWED: Final = {"WEBHOOKS__ALLOWED_NETWORKS": f"{HOST}/32"}
PATIENCE_SECONDS: Final = 30


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes
    peers: int
    """How many others were being answered when it came."""


Script = Callable[[socket.socket, "Receiver"], None]
"""Answers one request."""


def says(status: int, *headers: str, body: bytes = b"") -> Script:
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close", *headers]

    def answer(connection: socket.socket, _: "Receiver") -> None:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return answer


def hangs(_: socket.socket, receiver: "Receiver") -> None:
    """Until it is let go, and then without an answer."""
    receiver.released.wait(PATIENCE_SECONDS)


def held(connection: socket.socket, receiver: "Receiver") -> None:
    """As above, with one."""
    receiver.released.wait(PATIENCE_SECONDS)
    OK(connection, receiver)


def endless(head: bytes, part: bytes, *, pause_seconds: float = 0) -> Script:
    """`part` over and over, as long as somebody reads."""

    def answer(connection: socket.socket, receiver: "Receiver") -> None:
        connection.sendall(head)
        while not receiver.released.wait(pause_seconds) or not pause_seconds:
            receiver.told_bytes += connection.send(part)

    return answer


OK: Final = says(204)


@dataclass
class Receiver:
    port: int
    scheme: str = "http"
    script: list[Script] = field(default_factory=list)
    """What the next requests are answered with, before `otherwise`."""
    otherwise: Script = OK
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    told_bytes: int = 0
    released: Event = field(default_factory=Event)
    _busy: int = 0
    _changed: Condition = field(default_factory=Condition)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]

    def wait_for(self, number: int) -> Sequence[Request]:
        """So many requests, or more."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.requests) >= number, timeout=PATIENCE_SECONDS)
        assert there, f"{len(self.requests)} requests, not {number}"
        return list(self.requests)

    def wait_until_idle(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._busy == 0, timeout=PATIENCE_SECONDS)

    def serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            line, headers, body = _read(connection)
            with self._changed:
                self.requests.append(Request(line, headers, body, self._busy))
                answer = self.script.pop(0) if self.script else self.otherwise
                self._busy += 1
                self._changed.notify_all()
            try:
                answer(connection, self)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()


def _read(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    stream = connection.makefile("rb")
    line = stream.readline().decode().rstrip()
    if not line:
        raise OSError("nobody there")
    headers = {}
    while field_line := stream.readline().decode().rstrip():
        name, _, value = field_line.partition(":")
        headers[name.lower()] = value.strip()
    return line, headers, stream.read(int(headers.get("content-length", 0)))


@contextmanager
def running_receiver(
    host: str = HOST, *, port: int = 0, tls: ssl.SSLContext | None = None, family: int = socket.AF_INET
) -> Iterator[Receiver]:
    """With `tls` each connection begins with a handshake; one that fails counts as a connection and as no request."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
        receiver = Receiver(listener.getsockname()[1], "http" if tls is None else "https")

        def serve(connection: socket.socket) -> None:
            connection.settimeout(PATIENCE_SECONDS)
            if tls is not None:
                with suppress(OSError):
                    connection = tls.wrap_socket(connection, server_side=True)
            receiver.serve(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                receiver.connections += 1
                Thread(target=serve, args=[connection], daemon=True).start()

        thread = Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

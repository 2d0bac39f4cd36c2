"""What a running process holds, and how long it keeps others waiting. Linux only."""

import resource
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

MIB = 1024 * 1024


@dataclass(frozen=True)
class Holdings:
    pss_bytes: int
    """Memory: shared pages count in part."""
    descriptors: int


def holdings(*pids: int) -> Holdings:
    """Of all of them together."""
    return Holdings(sum(map(_pss_bytes, pids)), sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids))


def family(pid: int) -> list[int]:
    """It and all that it started."""
    children = [
        int(child) for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()
    ]
    return [pid, *(each for child in children for each in family(child))]


def _pss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def lag_seconds(port: int) -> float:
    """How long the event loop lets the plainest of requests wait."""
    begun = perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return perf_counter() - begun


@contextmanager
def many_sockets(count: int) -> Iterator[None]:
    """Within the block this process, and those that it starts, may have so many descriptors besides."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if before[1] != resource.RLIM_INFINITY:
        wanted = min(wanted, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def reset(connection: socket.socket) -> None:
    """Gone in the rudest way: RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def closing(connections: Iterable[socket.socket]) -> Iterator[list[socket.socket]]:
    held = list(connections)
    try:
        yield held
    finally:
        for connection in held:
            connection.close()

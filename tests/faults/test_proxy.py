"""The wire does what it says, or nothing that is shown through it is true."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from time import monotonic

import pytest

from tests.faults.proxy import BLACK_HOLE, CUT, DOWN, HANGS_UP, PASS, Proxy, Way, running_proxy

QUIET_SECONDS = 0.2
"""Whoever has heard nothing by then hears nothing."""


class Echo(ThreadingTCPServer):
    daemon_threads = True
    heard = b""


class _Repeat(BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Echo)
        with suppress(ConnectionResetError):
            while data := self.request.recv(65_536):
                self.server.heard += data
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo(("127.0.0.1", 0), _Repeat) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with running_proxy(echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(proxy: Proxy, connections: ExitStack) -> socket.socket:
    return connections.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def exchange(connection: socket.socket, said: bytes) -> bytes:
    connection.sendall(said)
    answer = b""
    while len(answer) < len(said):
        part = connection.recv(65_536)
        assert part, "it hung up"
        answer += part
    return answer


def is_quiet(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_SECONDS)
    try:
        return connection.recv(1) is None  # an answer, or an end, is none of it
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def test_it_passes_on_what_is_said(proxy: Proxy, connections: ExitStack) -> None:
    said = bytes(range(256)) * 4096

    assert exchange(connect(proxy, connections), said) == said
    assert proxy.open_connections() == 1


def test_down_refuses_and_resets(proxy: Proxy, connections: ExitStack) -> None:
    before = connect(proxy, connections)
    exchange(before, b"before")

    proxy.switch(DOWN)

    with pytest.raises(ConnectionResetError):
        before.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy, connections)
    proxy.switch(PASS)
    assert exchange(connect(proxy, connections), b"after") == b"after"


def test_hanging_up_ends_each_connection_at_once(proxy: Proxy, connections: ExitStack) -> None:
    proxy.switch(HANGS_UP)

    assert connect(proxy, connections).recv(1) == b""


def test_a_black_hole_swallows(proxy: Proxy, connections: ExitStack, echo: Echo) -> None:
    before = connect(proxy, connections)
    exchange(before, b"before")
    proxy.switch(BLACK_HOLE)
    during = connect(proxy, connections)

    for connection in (before, during):
        connection.sendall(b"lost")
        assert is_quiet(connection)

    assert echo.heard == b"before"
    proxy.switch(PASS)
    before.sendall(b"lost, too")
    assert is_quiet(before)
    assert echo.heard == b"before"
    assert exchange(connect(proxy, connections), b"after") == b"after"


def test_what_a_black_hole_has_swallowed_is_reset_if_asked_for(proxy: Proxy, connections: ExitStack) -> None:
    before = connect(proxy, connections)
    exchange(before, b"before")
    proxy.switch(BLACK_HOLE)
    during = connect(proxy, connections)
    during.sendall(b"lost")
    assert is_quiet(during)

    proxy.switch(PASS, reset=True)

    for connection in (before, during):
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_cut_holds_back_and_delivers(proxy: Proxy, connections: ExitStack, echo: Echo) -> None:
    connection = connect(proxy, connections)
    exchange(connection, b"before")
    proxy.switch(CUT)
    connection.sendall(b"held")
    assert is_quiet(connection)
    assert echo.heard == b"before"

    proxy.switch(PASS)

    assert connection.recv(65_536) == b"held"


def test_a_reset_comes_after_so_many_bytes_of_the_answers(proxy: Proxy, connections: ExitStack, echo: Echo) -> None:
    connection = connect(proxy, connections)
    exchange(connection, b"before")
    proxy.switch(Way(reset_after_bytes=10))
    assert exchange(connection, b"four") == b"four"

    connection.sendall(b"an answer")

    heard = connection.recv(6, socket.MSG_WAITALL)
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert heard == b"an ans"
    assert echo.heard == b"beforefouran answer"


def test_latency_is_added_in_each_direction(proxy: Proxy, connections: ExitStack) -> None:
    connection = connect(proxy, connections)
    proxy.switch(Way(latency_seconds=0.1))
    begun = monotonic()

    exchange(connection, b"slowly")

    assert monotonic() - begun >= 0.2


def test_slices_arrive_one_by_one(proxy: Proxy, connections: ExitStack) -> None:
    connection = connect(proxy, connections)
    said = bytes(range(250)) * 36
    connection.sendall(said)
    whole = parts_of(connection, len(said))
    proxy.switch(Way(piece_bytes=3))
    connection.sendall(said)

    sliced = parts_of(connection, len(said))

    assert b"".join(whole) == b"".join(sliced) == said
    # Some are there at once for whoever reads more slowly than they come.
    assert len(sliced) > 50 > len(whole)


def parts_of(connection: socket.socket, size: int) -> list[bytes]:
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        parts.append(connection.recv(65_536))
        assert parts[-1], "it hung up"
    return parts


def test_bandwidth_is_bounded(proxy: Proxy, connections: ExitStack) -> None:
    connection = connect(proxy, connections)
    proxy.switch(Way(bytes_per_second=10_000))
    begun = monotonic()

    assert exchange(connection, bytes(5_000)) == bytes(5_000)

    assert monotonic() - begun >= 0.45


def test_it_can_lead_somewhere_else(proxy: Proxy, connections: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        proxy.target_port = elsewhere.getsockname()[1]
        connect(proxy, connections).sendall(b"hello")
        with elsewhere.accept()[0] as accepted:
            assert accepted.recv(65_536) == b"hello"


def test_who_stands_behind_it_is_gone(echo: Echo, connections: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with running_proxy(port) as proxy, pytest.raises(ConnectionResetError):
        connect(proxy, connections).recv(1)

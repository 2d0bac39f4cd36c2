"""What a connection may hold and wait for has an end, whoever of our protocol classes serves it."""

import re
import select
import socket
import sys
from collections.abc import Iterator
from itertools import repeat
from time import monotonic

import pytest
from websockets.sync.client import connect as connect_websocket

from tests.http.wire import SECONDS, Answer, BrokenOffError, Wire, connected
from tests.support.resources import MIB, connect, holdings, reset
from tests.support.server import Server, running_server
from tests.support.waiting import eventually

APP = "tests.http.apps.echo:app"
PATIENCE_SECONDS = "0.5"
LONG = 100_000
# What both ends of a socket hold before the sender notices that nobody reads.
BUFFERS = 16 * MIB
CLASSES = ["QuickProtocol", "SteadyProtocol"]

HEAD = b"GET /seen HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = b"POST /late HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"


def serving(protocol: str, **env: str) -> Iterator[Server]:
    args = ["--http", f"src.http.server:{protocol}", "--timeout-keep-alive", "1", "--timeout-graceful-shutdown", "1"]
    compiled = str(protocol == "QuickProtocol").lower()
    with running_server({"HTTP__COMPILED_ROUTES": compiled, **env}, APP, args=args) as server:
        yield server


@pytest.fixture(scope="module", params=CLASSES)
def hasty(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Waits for nobody."""
    yield from serving(
        request.param,
        HTTP__HEADER_TIMEOUT_SECONDS=PATIENCE_SECONDS,
        HTTP__SEND_TIMEOUT_SECONDS=PATIENCE_SECONDS,
        HTTP__REQUEST_TIMEOUT_SECONDS="1",
    )


@pytest.fixture(scope="module", params=CLASSES)
def patient(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Waits so long that what ends is ended by its size."""
    yield from serving(request.param, HTTP__HEADER_TIMEOUT_SECONDS="600", HTTP__REQUEST_TIMEOUT_SECONDS="60")


def is_refused(answer: Answer, status: int, code: int) -> None:
    assert (answer.status, answer.json()["code"], answer.json()["data"]) == (status, code, None)
    assert answer.header("connection") == "close"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("content-security-policy")
    assert re.fullmatch("[0-9a-f]{32}", answer.header("x-request-id") or "")


def is_answered(wire: Wire) -> None:
    wire.write(HEAD + b"\r\n")
    assert wire.answer().status == 200


def drip(connection: socket.socket, byte: bytes) -> int:
    """One byte now and then, until the other side says something; how many."""
    begun, sent = monotonic(), 0
    while not select.select([connection], [], [], 0.05)[0]:
        assert monotonic() < begun + SECONDS
        connection.sendall(byte)
        sent += 1
    return sent


def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty: Server) -> None:
    with connected(hasty) as wire:
        assert wire.ends()


@pytest.mark.parametrize("begun", [b"G", b"GET /seen HT", HEAD, HEAD + b"X-Half: "], ids=repr)
def test_headers_that_do_not_end_are_not_waited_for(hasty: Server, begun: bytes) -> None:
    with connected(hasty) as wire:
        wire.write(begun)
        is_refused(wire.answer(), 408, 40010)
        assert wire.ends()


def test_one_byte_now_and_then_buys_no_time(hasty: Server) -> None:
    with connect(hasty.port) as connection:
        connection.sendall(HEAD + b"X-Slow: ")
        assert drip(connection, b"a") > 1
        is_refused(Wire(connection).answer(), 408, 40010)


def test_headers_of_a_later_request_are_not_waited_for_either(hasty: Server) -> None:
    with connected(hasty) as wire:
        for _ in range(3):
            is_answered(wire)
        wire.write(HEAD)
        is_refused(wire.answer(), 408, 40010)


def test_empty_lines_instead_of_a_request_buy_no_time(hasty: Server) -> None:
    with connect(hasty.port) as connection:
        assert drip(connection, b"\r\n") > 1
        assert Wire(connection).ends()


def test_a_body_that_goes_on_after_its_answer_is_not_waited_for(hasty: Server) -> None:
    with connect(hasty.port) as connection:
        wire = Wire(connection)
        wire.write(b"POST /unread HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        assert wire.answer().status == 200
        assert drip(connection, b"a") > 1
        assert wire.ends()


@pytest.mark.parametrize("byte", [b"1\r\na\r\n", b"a"], ids=["chunks", "an extension of a chunk"])
def test_a_body_that_comes_byte_by_byte_ends_at_the_deadline(hasty: Server, byte: bytes) -> None:
    with connect(hasty.port) as connection:
        connection.sendall(CHUNKED + b"\r\n" + (b"" if byte != b"a" else b"1;"))
        assert drip(connection, byte) > 1
        answer = Wire(connection).answer()
    assert (answer.status, answer.json()["code"]) == (503, 90003)


def test_a_request_at_work_outlives_the_time_for_headers(hasty: Server) -> None:
    with connected(hasty) as silent, connected(hasty) as wire:
        wire.write(b"GET /held HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert silent.ends()
        answer = wire.answer()  # at the deadline of requests, which is later
        is_answered(wire)
    assert answer.status == 503


def test_a_websocket_outlives_the_time_for_headers(hasty: Server) -> None:
    with connect_websocket(f"ws://127.0.0.1:{hasty.port}/socket", proxy=None) as socket_:
        with connected(hasty) as silent:
            assert silent.ends()
        socket_.send("hello")
        assert socket_.recv() == "you said hello"


def test_a_client_that_takes_nothing_of_its_answers_is_cut_off(hasty: Server) -> None:
    with connect(hasty.port) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * (BUFFERS // LONG))
        assert is_cut_off(connection)


def test_a_client_that_takes_nothing_of_its_last_answer_is_cut_off(hasty: Server) -> None:
    with connect(hasty.port) as connection:
        head = b"GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        connection.sendall((head + b"\r\n") * (BUFFERS // LONG) + head + b"Connection: close\r\n\r\n")
        assert is_cut_off(connection)


def is_cut_off(connection: socket.socket) -> bool:
    """Within some seconds, and without having read a byte."""
    poll = select.poll()
    poll.register(connection, select.POLLERR | select.POLLHUP)
    return bool(poll.poll(SECONDS * 1000))


def test_a_client_that_reads_slowly_is_served(hasty: Server) -> None:
    """For three times as long as one that reads nothing: each piece that it takes buys it time."""
    count = 2 * BUFFERS // LONG
    with connect(hasty.port) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * count)
        begun, received = monotonic(), 0
        slow_until = begun + 3 * float(PATIENCE_SECONDS)
        while received < count * LONG:
            if monotonic() < slow_until:
                select.select([], [], [], 0.05)
            received += len(connection.recv(MIB)) or pytest.fail("cut off")


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        (b"GET /", b"a"), (HEAD + b"X-Long: ", b"a"), (HEAD, b"X-%06d: a\r\n"), (HEAD, b"a"),
        (CHUNKED + b"\r\n1;", b"a"), (CHUNKED + b"\r\n1\r\na\r\n0\r\n", b"X-%06d: a\r\n"),
        (CHUNKED + b"\r\n1\r\na\r\n0\r\nX-Long: ", b"a"), (HEAD + b"\r\n", b"\r\n"),
        (HEAD + b"\r\n" + HEAD + b"X-Long: ", b"a"),
        (b"GET /held HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + HEAD, b"X-%06d: a\r\n"),
        (CHUNKED + b"Upgrade: foo\r\nConnection: Upgrade\r\n\r\n1\r\na\r\n0\r\n", b"X-%06d: a\r\n"),
    ],
    ids=[
        "target", "header", "headers", "name", "chunk extension", "trailers", "trailer", "empty lines",
        "header of a second request", "headers behind one at work", "trailers of an upgrade",
    ],
)  # fmt: skip
def test_what_never_ends_is_cut_off_before_it_takes_memory(patient: Server, begun: bytes, endless: bytes) -> None:
    before = holdings(patient.pid).pss_bytes
    with connect(patient.port) as connection:
        connection.sendall(begun)
        taken = flood(connection, endless)
        held = holdings(patient.pid).pss_bytes - before

    assert taken < BUFFERS
    assert held < 8 * MIB
    with connected(patient) as wire:
        is_answered(wire)


def flood(connection: socket.socket, endless: bytes) -> int:
    """As much of it as the other side takes; how much that was."""
    pieces = (
        repeat(endless * (65_536 // len(endless)))
        if b"%" not in endless
        else (
            b"".join(endless % (number % 1_000_000) for number in range(start, start + 6000))
            for start in range(0, 10**9, 6000)
        )
    )
    sent = 0
    connection.settimeout(1)
    for piece in pieces:
        try:
            connection.sendall(piece)
        except OSError:  # closed, or not read any more
            break
        sent += len(piece)
        if sent > 2 * BUFFERS:
            break
    return sent


@pytest.mark.parametrize("endless", [b"GET /" + b"a" * 200, HEAD + b"X-Long: a"], ids=["target", "header"])
def test_headers_that_are_too_long_are_refused_in_the_envelope(patient: Server, endless: bytes) -> None:
    with connected(patient) as wire:
        wire.write(endless)
        answer = None
        for _ in range(1000):
            try:
                wire.write(b"a" * 1024)
            except OSError:
                break
        answer = wire.answer()
    is_refused(answer, 431, 40008)


def test_a_body_in_many_pieces_has_no_such_limit(patient: Server) -> None:
    with connected(patient) as wire:
        wire.write(CHUNKED + b"\r\n")
        for _ in range(200):
            wire.write(b"1000;part=%b\r\n%b\r\n" % (b"x" * 100, b"a" * 4096))
        wire.write(b"0\r\n\r\n")
        assert wire.answer().status == 200
        wire.write(b"POST /late HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000\r\n\r\n")
        for _ in range(9):
            wire.write(b"a" * 100_000)
        assert wire.answer().status == 200
        is_answered(wire)


def test_trailers_are_no_headers(patient: Server) -> None:
    with connected(patient) as wire:
        wire.write(CHUNKED + b"\r\n1\r\na\r\n")
        wire.write(b"0\r\nAuthorization: Bearer later\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        answer = wire.answer()
        is_answered(wire)

    assert answer.status == 200
    assert "Bearer later" not in str(answer.json())
    assert "10.0.0.1" not in str(answer.json())


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        CHUNKED + b"\r\nzz\r\n", CHUNKED + b"\r\n1\r\naa\r\n", CHUNKED + b"Content-Length: 1\r\n\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_not_http_is_refused_in_the_envelope(patient: Server, raw: bytes) -> None:
    with connected(patient) as wire:
        wire.write(raw)
        is_refused(wire.answer(), 400, 40009)
        assert wire.ends()


def test_nonsense_behind_a_request_does_not_pass_for_its_answer(patient: Server) -> None:
    with connected(patient) as wire:
        wire.write(HEAD + b"X-Request-ID: first\r\n\r\n" + b"nonsense\r\n\r\n")
        answer = wire.answer()
        assert wire.ends()

    assert (answer.status, answer.header("x-request-id")) == (200, "first")


def test_nonsense_in_a_body_does_not_get_into_an_answer_that_has_begun(patient: Server) -> None:
    with connected(patient) as wire:
        wire.write(b"POST /streamed HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        status, _ = wire.head()
        wire.write(b"zz\r\n")
        with pytest.raises(BrokenOffError) as broken:
            list(wire.chunks())

    assert status == 200
    assert b"HTTP/1.1 400" not in broken.value.received


async def test_a_request_whose_client_is_gone_ends_at_the_deadline(hasty: Server) -> None:
    ids = {f"gone-{kind}-{hasty.port}": kind for kind in ("held", "late")}
    for own_id, kind in ids.items():
        connection = connect(hasty.port)
        method = "GET /held" if kind == "held" else "POST /late"
        connection.sendall(
            f"{method} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-ID: {own_id}\r\nContent-Length: 5\r\n\r\n12".encode()
        )
        reset(connection)

    async def have_ended() -> bool:
        return all(own_id in hasty.output() for own_id in ids)

    await eventually(have_ended)
    assert "Traceback" not in hasty.output()

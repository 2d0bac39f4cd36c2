"""On the wire our protocol class says what uvicorn's own says, byte by byte, in every order of bytes coming in."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from src.config import HTTPSettings, Settings
from src.http import server as serving
from src.http.server import QuickProtocol, SteadyProtocol, server_options
from tests.support.server import Server, running_server

APP = "tests.http.apps.echo:app"
SECONDS = 15
IDLE_SECONDS = "1"
KIB = 1024
LONG = "x" * 100_000


@dataclass(frozen=True)
class Pair:
    quick: Server
    plain: Server

    def say(self, *parts: bytes, read_first: bool = False) -> bytes:
        """What both answer to these bytes until they close; a part is sent when the one before was answered."""
        quick, plain = (conversation(server, *parts, read_first=read_first) for server in (self.quick, self.plain))
        assert quick == plain
        return quick


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    args = ["--timeout-keep-alive", IDLE_SECONDS, "--no-access-log"]
    quick = running_server(
        {"HTTP__COMPILED_ROUTES": "true"}, APP, args=[*args, "--http", "src.http.server:QuickProtocol"]
    )
    plain = running_server({"HTTP__COMPILED_ROUTES": "false"}, APP, args=[*args, "--http", "auto"])
    with quick as first, plain as second:
        yield Pair(first, second)


def conversation(server: Server, *parts: bytes, read_first: bool) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        answer = b""
        for number, part in enumerate(parts):
            try:
                connection.sendall(part)
            except ConnectionError:
                break  # it has said all that it wants to say
            if read_first and number < len(parts) - 1:
                answer += connection.recv(1)
        while received := _received(connection):
            answer += received
    return _told_alike(answer.replace(str(server.port).encode(), b"PORT"))


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def _told_alike(answer: bytes) -> bytes:
    answer = re.sub(rb"(?im)^date: [^\r]*\r\n", b"", answer)
    answer = re.sub(rb"[0-9a-f]{32}", b"RANDOM", answer)
    # The one thing that we say in our own words.
    for refusal in (_UVICORN_S_REFUSAL, _OUR_REFUSAL):
        answer = refusal.sub(b"NOT A REQUEST", answer)
    return answer


_UVICORN_S_REFUSAL = re.compile(rb"HTTP/1\.1 400 [^{]*Invalid HTTP request received\.")
_OUR_REFUSAL = re.compile(rb'HTTP/1\.1 400 (?:[^\r]+\r\n)+\r\n\{"code":40009,[^}]*\}')


def request(line: str, *headers: str, body: bytes = b"", host: str | None = "127.0.0.1", close: bool = True) -> bytes:
    given = [line, *([f"Host: {host}"] if host is not None else []), "X-Request-ID: same", *headers]
    given += ["Connection: close"] if close else []
    return "\r\n".join([*given, "", ""]).encode("latin-1") + body


def test_requests_in_one_piece_are_answered_in_their_order(pair: Pair) -> None:
    paths = ["/seen/1", "/text", "/seen/2", "/yield", "/stream", "/nowhere", "/seen/3?a=b", "/long", "/seen/4"]
    piece = b"".join(request(f"GET {path} HTTP/1.1", close=False) for path in paths)

    answer = pair.say(piece + request("GET /seen/last HTTP/1.1"))

    assert answer.count(b"HTTP/1.1 ") == 10
    assert answer.index(b'"/seen/1"') < answer.index(b'"/seen/2"') < answer.index(b'"/seen/last"')


def test_a_request_may_come_in_any_pieces(pair: Pair) -> None:
    whole = request("POST /body HTTP/1.1", "Content-Type: application/json", "Content-Length: 9", body=b'{"a": 12}')

    for size in (1, 7, 40):
        answer = pair.say(*(whole[start : start + size] for start in range(0, len(whole), size)))
        assert answer.endswith(b'{"code":200,"msg":"success","data":{"a":12}}')


def test_a_second_request_may_begin_in_the_piece_that_ends_the_first(pair: Pair) -> None:
    second = request("GET /seen/2 HTTP/1.1")
    first = request("GET /seen/1 HTTP/1.1", close=False) + second[:20]

    assert pair.say(first, second[20:], read_first=True).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "GET", "PROPFIND"])
@pytest.mark.parametrize("path", ["/seen", "/nowhere", "/stream"])
def test_each_method_has_the_same_answer(pair: Pair, method: str, path: str) -> None:
    answer = pair.say(request(f"{method} {path} HTTP/1.1", close=False) + request("GET /seen HTTP/1.1"))

    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.endswith(b"}")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Connection: keep-alive",),
        ("Connection: close",),
        ("Connection: Close",),
        ("Connection: keep-alive, close",),
    ],
    ids=repr,
)
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2"])
def test_each_version_ends_the_connection_alike(pair: Pair, version: str, headers: tuple[str, ...]) -> None:
    first = request(f"GET /seen {version}", *headers, close=False)

    assert pair.say(first + request("GET /seen HTTP/1.1"))


TARGETS = [
    b"/seen?", b"/seen?a=b?c", b"/seen?a=%20&b=+", b"/seen#part", b"/seen?a#b", b"//seen", b"///", b"/seen//", b"/./seen",
    b"/seen/%41", b"/seen/%2F", b"/seen/%", b"/seen/%zz", b"/seen/%C3%BC", b"/seen/%FF", b"/rest/a%2Fb/%00", b"*", b"seen", b"?a=b",
    b"http://127.0.0.1/seen?a=b", b"http://other.example/seen", b"HTTP://u:p@127.0.0.1:80/seen", b"http://127.0.0.1", b"https:///seen",
    b"/seen/\xc3\xbc", b"/seen?\xff", b"/seen/a\tb", b'/seen/"<>^`{|}', b"/seen/a;b=c,d", b"/seen/@:!$&'()*+", b"/seen/a\\b",
    b"/seen/" + b"a" * 5000, b"/seen?" + b"a" * 20_000, b"", b"/seen /b", b"/seen\x7f", b"/seen\x01",
    b"/seen:80", b"//127.0.0.1/seen", b"/seen/http://a/b",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: repr(target[:30]))
def test_each_kind_of_target_is_read_alike(pair: Pair, target: bytes) -> None:
    assert pair.say(b"GET " + target + request(" HTTP/1.1"))


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*b"/?#%&=;:@.a1", 0x80, 0xFF, 0x22, 0x7B, 0x5C]), max_size=12).map(bytes))
@example(b"?/%2")
def test_any_target_is_read_alike(pair: Pair, tail: bytes) -> None:
    pair.say(b"GET /seen" + tail + request(" HTTP/1.1"))


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade", "Upgrade: websocket"),
        ("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: keep-alive, Upgrade", "Upgrade: foo"),
        ("Upgrade: websocket",),
        ("Connection: Upgrade",),
    ],
    ids=repr,
)
def test_a_wish_to_upgrade_is_answered_alike(pair: Pair, headers: tuple[str, ...]) -> None:
    assert pair.say(request("GET /seen HTTP/1.1", *headers, close=False) + request("GET /seen/2 HTTP/1.1"))


def test_a_websocket_is_opened_alike(pair: Pair) -> None:
    for server in (pair.quick, pair.plain):
        with connect(f"ws://127.0.0.1:{server.port}/socket", proxy=None) as socket_:
            socket_.send("hello")
            assert socket_.recv() == "you said hello"
        # The request that asked for it was not answered as a plain one besides.
        assert "/socket 404" not in server.output()


@pytest.mark.parametrize("path", ["/body", "/unread", "/nowhere"])
def test_who_expects_to_be_told_to_go_on_is_told_when_somebody_reads(pair: Pair, path: str) -> None:
    head = request(
        f"POST {path} HTTP/1.1", "Expect: 100-continue", "Content-Length: 3", "Content-Type: application/json"
    )

    answer = pair.say(head, b"123", read_first=True)

    assert answer.startswith(b"HTTP/1.1 100 Continue") == (path == "/body")


@pytest.mark.parametrize("path", ["/body", "/unread", "/seen", "/nowhere"])
def test_a_body_that_is_declared_too_large_is_refused_alike(pair: Pair, path: str) -> None:
    answer = pair.say(request(f"POST {path} HTTP/1.1", f"Content-Length: {KIB * KIB + 1}"))

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_grows_too_large_is_refused_alike(pair: Pair) -> None:
    body = b"1" * (KIB * KIB + 1)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    answer = pair.say(request("POST /body HTTP/1.1", "Transfer-Encoding: chunked", body=chunk))

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"nonsense\r\n\r\n", b"GET /seen HTTP/1.1\r\n\r\n",
        b"GET /seen HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n", b"\x16\x03\x01\x02\x00", b"GET /seen\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /body HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_not_http_is_refused_alike(pair: Pair, raw: bytes) -> None:
    pair.say(raw)


@pytest.mark.parametrize("path", ["/odd-status", "/no-such-status", "/long", "/yield"])
def test_each_answer_leaves_alike(pair: Pair, path: str) -> None:
    pair.say(request(f"GET {path} HTTP/1.1"))


def test_a_client_that_reads_slowly_gets_everything(pair: Pair) -> None:
    """More than the buffers of both ends hold: writing stops until somebody reads."""
    asked = 100
    piece = request("GET /long HTTP/1.1", close=False) * asked + request("GET /seen HTTP/1.1")

    answer = pair.say(piece)

    assert answer.count(LONG.encode()) == asked
    assert answer.count(b"HTTP/1.1 200 OK") == asked + 1


def test_an_idle_connection_is_closed_and_one_at_work_is_not(pair: Pair) -> None:
    piece = request("GET /seen HTTP/1.1", close=False)

    # Nothing is said after the last answer, and yet the conversation ends.
    assert pair.say(piece).count(b"HTTP/1.1 200") == 1
    assert pair.say(piece, piece, piece, read_first=True).count(b"HTTP/1.1 200") == 3


def test_a_connection_at_work_outlives_the_time_that_an_idle_one_has(pair: Pair) -> None:
    def wait_for_an_idle_connection_to_be_closed(server: Server) -> None:
        conversation(server, request("GET /seen HTTP/1.1", close=False), read_first=False)

    for server in (pair.quick, pair.plain):
        with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
            connection.sendall(request("GET /text HTTP/1.1", close=False))
            answer = b""
            while not answer.endswith(b"\r\n\r\ntext"):
                answer += _received(connection)
            connection.sendall(request("GET /held HTTP/1.1"))

            wait_for_an_idle_connection_to_be_closed(server)
            conversation(server, request("GET /release HTTP/1.1"), read_first=False)

            rest = b""
            while received := _received(connection):
                rest += received
        assert rest.endswith(b'"data":"released"}')


@pytest.mark.parametrize(
    "cut",
    [
        request("GET /long HTTP/1.1", close=False),
        request("GET /long HTTP/1.1", close=False) * 50,
        request("POST /body HTTP/1.1", "Content-Length: 10", "Content-Type: application/json", body=b"12"),
        request("GET /seen HTTP/1.1")[:30],
        request("GET /stream HTTP/1.1", close=False),
        b"",
    ],
    ids=["before the answer", "before many answers", "within a body", "within a head", "before a stream", "at once"],
)
def test_a_client_that_goes_away_disturbs_nobody(pair: Pair, cut: bytes) -> None:
    before = [len(server.output()) for server in (pair.quick, pair.plain)]
    for server in (pair.quick, pair.plain):
        with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
            connection.sendall(cut)

    assert pair.say(request("GET /seen HTTP/1.1")).startswith(b"HTTP/1.1 200 OK")
    assert [
        "Traceback" in server.output()[at:] for server, at in zip((pair.quick, pair.plain), before, strict=True)
    ] == [False] * 2


def test_the_class_serves_where_routes_are_compiled_and_uvicorn_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def protocol_of(*, compiled: bool) -> object:
        return server_options(Settings(http=HTTPSettings.model_validate({"compiled_routes": compiled})))["http"]

    assert protocol_of(compiled=True) is QuickProtocol
    assert protocol_of(compiled=False) is SteadyProtocol

    monkeypatch.setattr(serving, "version", lambda _: "0.99.0")
    assert [protocol_of(compiled=compiled) for compiled in (True, False)] == ["auto", "auto"]

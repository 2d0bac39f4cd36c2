"""Hostile values at every door whose words are logged: what the process writes is one harmless line an event."""

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.conftest import PATIENT
from tests.http.wire import BrokenOffError, connected
from tests.support.hostile import hostile_texts
from tests.support.log import wrong_lines
from tests.support.server import Server, running_server
from tests.support.waiting import wait_for

APP = "tests.http.apps.talkative:app"
# What would end the line that a value is in, and the request with it.
_FRAMING = re.compile(rb"[\r\n\x00]")
_LONGEST_IN_HEAD = 8000
HEADERS = (
    "X-Request-ID", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "User-Agent", "Referer", "Authorization", "Cookie",
    "Content-Type", "Accept", "Accept-Language", "Idempotency-Key", "If-Match", "Origin", "Host",
)  # fmt: skip
Send = Callable[[Server, bytes], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    env = {"LOG__FORMAT": "json", "LOG__LEVEL": "TRACE", "HTTP__TRUSTED_PROXIES": "127.0.0.1", **PATIENT}
    with running_server(env, APP) as running:
        yield running


def send(server: Server, head: bytes, body: bytes = b"") -> None:
    """Whatever is said to it, and whether anything is."""
    with connected(server) as wire:
        length = b"" if b"GET" in head[:4] else b"Content-Length: %d\r\n" % len(body)
        wire.write(head + length + b"Connection: close\r\n\r\n" + body)
        try:
            wire.answer()
        except BrokenOffError:
            pytest.fail(f"no answer to {head!r:.200}")


def in_head(value: bytes) -> bytes:
    return _FRAMING.sub(b"", value)[:_LONGEST_IN_HEAD]


def in_path(server: Server, value: bytes) -> None:
    send(server, b"GET /%b HTTP/1.1\r\nHost: a\r\n" % quote(value[:_LONGEST_IN_HEAD], safe="").encode())


def in_raw_path(server: Server, value: bytes) -> None:
    send(server, b"GET /%b HTTP/1.1\r\nHost: a\r\n" % in_head(value).replace(b" ", b""))


def in_query(server: Server, value: bytes) -> None:
    send(server, b"GET /api/v1/products?q=%b HTTP/1.1\r\nHost: a\r\n" % in_head(value).replace(b" ", b""))


def in_method(server: Server, value: bytes) -> None:
    send(server, b"%b / HTTP/1.1\r\nHost: a\r\n" % in_head(value).replace(b" ", b""))


def in_headers(server: Server, value: bytes) -> None:
    shown = in_head(value)
    for name in HEADERS:
        host = b"" if name == "Host" else b"Host: a\r\n"
        send(server, b"GET /api/v1/profile HTTP/1.1\r\n%b%b: %b\r\n" % (host, name.encode(), shown))


def in_header_name(server: Server, value: bytes) -> None:
    send(server, b"GET /api/v1/profile HTTP/1.1\r\nHost: a\r\nX-%b: a\r\n" % in_head(value))


def in_body(server: Server, value: bytes) -> None:
    send(server, b"POST /talks HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n", value)


def in_letter(server: Server, value: bytes) -> None:
    send(server, b"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", value)


PLACES: tuple[Send, ...] = (
    in_path, in_raw_path, in_query, in_method, in_headers, in_header_name, in_body, in_letter,
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_value_makes_no_line_but_its_own(server: Server, place: Send, tried: Callable[[int], None]) -> None:
    values = [text.encode("utf-8", "surrogatepass") for text in hostile_texts()]
    before = len(server.log.read_bytes())

    def written() -> bytes:
        return server.log.read_bytes()[before:]

    for value in values:
        place(server, value)

    # They are written by and by, and one may be half written.
    wait_for(lambda: server.log.read_bytes().endswith(b"\n") and len(written().splitlines()) >= len(values))
    lines, wrong = wrong_lines(written())
    assert wrong == []
    assert lines >= len(values)
    tried(len(values) * (len(HEADERS) if place is in_headers else 1))


def test_a_line_that_is_wrong_is_found() -> None:
    """The control."""
    good = b'{"time":"t","level":"INFO","message":"m","logger":"l"}\n'
    bad = [
        b"Traceback (most recent call last):\n", b"[]\n", b'{"time":1}\n', good.replace(b'"m"', b'"\x7f"'),
        good.replace(b'"m"', b'"' + b"m" * 8192 + b'"'), good.replace(b'"m"', '"é"'.encode()),
        good.replace(b'"m"', b'"a record could not be rendered"'), good.rstrip(),
    ]  # fmt: skip

    assert wrong_lines(good * 3) == (3, [])
    assert [len(wrong_lines(good + each)[1]) for each in bad] == [1] * len(bad)

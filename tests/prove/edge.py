"""Slow, endless, vanishing and far too many clients, with what the service held meanwhile."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic
from uuid import uuid4

import httpx2

from src.config import HTTPSettings
from tests.load.crowds import (
    Course,
    crowded_service,
    deep_page,
    exhaust_pool,
    idle_and_slow,
    log_in,
    observe,
    retry_storm,
    storm,
    vanishing,
)
from tests.prove.figures import Figure, Proof
from tests.support.answers import data_of
from tests.support.resources import MIB, closing, connect, holdings
from tests.support.server import Server
from tests.support.service import Service

HEADER_SECONDS = HTTPSettings.model_fields["header_timeout_seconds"].default
LATE_SECONDS = 2
MOST_TAKEN = 16 * MIB
_HEAD = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_CHUNKED = (
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
# (what has begun, what never ends)
ENDLESS = {
    "target": (b"GET /", b"a"),
    "header": (_HEAD + b"X-Long: ", b"a"),
    "headers": (_HEAD, b"X-More: a\r\n"),
    "chunk extension": (_CHUNKED + b"1;", b"a"),
    "trailers": (_CHUNKED + b"1\r\na\r\n0\r\n", b"X-More: a\r\n"),
    "trailer": (_CHUNKED + b"1\r\na\r\n0\r\nX-Long: ", b"a"),
}


def _crowds(amount: int, _: int) -> Iterator[Figure]:
    """`amount` slow sockets, four times as many idle ones, and as many clients that vanish."""
    with crowded_service(AUTH__LOGIN_FAILURES_OVERALL="1000000") as (place, server):
        idle = 4 * amount
        # Longer than they are waited for.
        crowd = idle_and_slow(server, idle=idle, slow=amount, seconds=HEADER_SECONDS + LATE_SECONDS)
        yield _figure(f"{idle:,} idle and {amount:,} slow sockets keep nobody waiting", server, crowd, idle + amount)
        yield _figure("clients that vanish leave nothing behind", server, vanishing(server, count=amount), amount)
        log_ins = storm(server, log_in, count=amount, at_once=50, what="log-in")
        yield _figure("a storm of log-ins keeps nobody else waiting", server, log_ins, amount)
        pages = storm(server, deep_page, count=amount, at_once=10, what="page")
        yield _figure("deep pages are answered, or refused with a code", server, pages, amount)
        yield from _retries(server, amount)
        answers = exhaust_pool(place, count=40, hold_seconds=3)
        wrong = [f"{count} answers {answer}" for answer, count in answers.items() if answer not in _OF_A_FULL_POOL]
        yield Figure(
            "an exhausted pool is a 503 with Retry-After", "requests", answers.total(), wrong, str(dict(answers))
        )


_OF_A_FULL_POOL = {"503 90002 1", "200 200 -", "alive 200"}


def _figure(claim: str, server: Server, crowd: Callable[[Course], None], count: int) -> Figure:
    course = observe(server, crowd)
    notes = f"{course.asked} ordinary requests meanwhile; {course.notes()}"
    return Figure(claim, "sockets" if "sockets" in claim else "requests", count, list(course.problems()), notes)


def _retries(server: Server, amount: int) -> Iterator[Figure]:
    clients, tries, stock = max(1, amount // 10), 10, 1_000_000
    with httpx2.Client(base_url=server.url, verify=False, timeout=60) as client:
        service = Service(server, client)
        token = service.log_in()["access_token"]
        letter = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": stock}
        product = data_of(service.post("products", letter, token=token), 201)["id"]
        answers = retry_storm(server, token, product, clients=clients, tries=tries)
        sold = stock - data_of(service.get(f"products/{product}"))["stock"]
    wrong = [f"{count} answers {answer}" for answer, count in answers.items() if answer[:3] not in ("201", "409")]
    if sold != clients:
        wrong.append(f"{sold} orders of {clients} keys")
    claim = "an order that is sent again and again at once is placed once"
    yield Figure(claim, "requests", clients * tries, wrong, str(dict(answers)))


def _endless(amount: int, _: int) -> Iterator[Figure]:
    with crowded_service() as (_place, server):
        for what, (begun, endless) in islice(ENDLESS.items(), amount):
            before = holdings(server.pid).pss_bytes
            with closing([connect(server.port)]) as (connection,):
                connection.sendall(begun)
                taken = _flood(connection, endless)
                held = holdings(server.pid).pss_bytes - before
            wrong = [f"{taken} bytes were taken"] if taken >= MOST_TAKEN else []
            wrong += [f"{held} bytes were held"] if held > 8 * MIB else []
            yield Figure(f"{what} without an end: cut off", "connections", 1, wrong, f"after {taken >> 10} KiB at most")
        yield _late(server)


def _flood(connection: socket.socket, endless: bytes) -> int:
    piece, taken = endless * (65_536 // len(endless)), 0
    connection.settimeout(1)
    with suppress(OSError):
        while taken < MOST_TAKEN:
            connection.sendall(piece)
            taken += len(piece)
    return taken


def _late(server: Server) -> Figure:
    """With the settings as they are by default."""
    wrong, times = [], []
    for said in (b"", b"GET / HTTP/1.1\r\nHost: 127"):
        with closing([connect(server.port)]) as (connection,):
            begun = monotonic()
            connection.sendall(said)
            answer = connection.recv(1024)
            times.append(monotonic() - begun)
        if answer[:12] != (b"HTTP/1.1 408" if said else b""):
            wrong.append(f"{said!r} is answered with {answer[:40]!r}")
        if times[-1] > HEADER_SECONDS + LATE_SECONDS:
            wrong.append(f"{said!r} was waited for {times[-1]:.1f} s")
    shown = ", ".join(f"{each:.1f} s" for each in times)
    return Figure(f"headers are waited for {HEADER_SECONDS} s", "connections", len(times), wrong, shown)


PROOFS: tuple[Proof, ...] = (
    Proof("crowds", _crowds, full=500, what="slow sockets"),
    Proof("endless-heads", _endless, full=len(ENDLESS), what="kinds"),
)

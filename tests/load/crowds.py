"""Crowds that are bad for a service, and what it holds before, during and after."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from threading import Event, Thread
from time import monotonic, sleep
from uuid import uuid4

import httpx2

from tests.support.postgres import execute
from tests.support.resources import MIB, Holdings, closing, connect, family, holdings, lag_seconds, many_sockets, reset
from tests.support.server import Server
from tests.support.service import Place, own_place
from tests.support.valkey import running_valkey
from tests.support.waiting import wait_for

LAG_SAMPLES = 20
# Of a busy machine, and of a memory allocator that keeps what it had.
SLACK_BYTES = 48 * MIB
SLACK_DESCRIPTORS = 16
PATH = "/api/v1/products"


@dataclass
class Course:
    """What a crowd did to a service."""

    before: Holdings
    worst: Holdings
    after: Holdings
    lag_before: float
    """Median seconds, as those after it."""
    lag_during: float
    lag_after: float
    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """Of ordinary requests meanwhile, and of the crowd's own."""
    errors: list[str] = field(default_factory=list)

    def problems(self) -> Iterator[str]:
        yield from self.errors
        yield from (f"{count} answers {answer}" for answer, count in self.answers.items() if " 500" in answer)
        if self.after.descriptors > self.before.descriptors + SLACK_DESCRIPTORS:
            yield f"{self.before.descriptors} descriptors became {self.after.descriptors}"
        if self.after.pss_bytes > self.before.pss_bytes + SLACK_BYTES:
            yield f"{self.before.pss_bytes >> 20} MiB became {self.after.pss_bytes >> 20} MiB"

    def notes(self) -> str:
        memory = "/".join(f"{each.pss_bytes >> 20}" for each in (self.before, self.worst, self.after))
        descriptors = "/".join(str(each.descriptors) for each in (self.before, self.worst, self.after))
        lag = "/".join(f"{each * 1000:.1f}" for each in (self.lag_before, self.lag_during, self.lag_after))
        return f"before/during/after: {memory} MiB, {descriptors} descriptors, {lag} ms"


_SHOWN = 5


@contextmanager
def crowded_service(**env: str) -> Iterator[tuple[Place, Server]]:
    """On PostgreSQL and Valkey, as in production; with room for many sockets."""
    with ExitStack() as stack:
        stack.enter_context(many_sockets(6000))
        env = {
            "CACHE__URL": stack.enter_context(running_valkey()),
            "CACHE__NAMESPACE": f"load-{uuid4().hex[:12]}",
            # A crowd on a busy machine waits for connections; what is told then is `exhaust_pool`'s to see.
            "DB__POOL_TIMEOUT_SECONDS": "20",
        } | env
        place = stack.enter_context(own_place("postgres", **env))
        service = stack.enter_context(place.service())
        yield place, service.server


def observe(server: Server, crowd: Callable[[Course], None]) -> Course:
    """While the crowd is there somebody asks ordinary things, one after the other, and all of them must succeed."""
    for _ in range(3):
        _ordinary(server, Counter(), [])  # what a first request loads is no leak
    before, lag_before = _now(server), _lag(server)
    course = Course(before, before, before, lag_before, lag_before, lag_before)
    over = Event()
    witness = Thread(target=_watch, args=(server, course, over))
    witness.start()
    try:
        crowd(course)
    finally:
        over.set()
        witness.join()
    if course.errors:
        course.errors += [line for line in server.output().splitlines() if "WARNING" in line][-_SHOWN:]
    wait_for(lambda: _now(server).descriptors <= before.descriptors + SLACK_DESCRIPTORS)
    course.after, course.lag_after = _now(server), _lag(server)
    return course


def _watch(server: Server, course: Course, over: Event) -> None:
    lags = []
    while not over.is_set():
        lags.append(lag_seconds(server.port))
        _ordinary(server, course.answers, course.errors)
        course.asked += 1
        now = _now(server)
        course.worst = Holdings(
            max(course.worst.pss_bytes, now.pss_bytes), max(course.worst.descriptors, now.descriptors)
        )
    course.lag_during = median(lags) if lags else 0


def _ordinary(server: Server, answers: Counter[str], errors: list[str]) -> None:
    try:
        answer = httpx2.get(f"{server.url}{PATH}", verify=False, timeout=30)
    except httpx2.TransportError as error:
        errors.append(f"an ordinary request: {error!r}")
        return
    answers[f"ordinary {answer.status_code}"] += 1
    if answer.status_code != 200:
        errors.append(f"an ordinary request: {answer.status_code} {answer.text[:200]}")


def _now(server: Server) -> Holdings:
    return holdings(*family(server.pid))


def _lag(server: Server) -> float:
    return median(lag_seconds(server.port) for _ in range(LAG_SAMPLES))


def idle_and_slow(server: Server, *, idle: int, slow: int, seconds: float) -> Callable[[Course], None]:
    """Sockets that say nothing, and sockets that say a byte now and then, for so long."""

    def crowd(course: Course) -> None:
        with (
            closing(connect(server.port) for _ in range(idle)) as silent,
            closing(connect(server.port) for _ in range(slow)) as slowly,
        ):
            course.answers["idle sockets"] += len(silent)
            for connection in slowly:
                connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ".encode())
            until = monotonic() + seconds
            while monotonic() < until or course.asked == 0:
                for connection in slowly:
                    try:
                        connection.sendall(b"a")
                    except OSError:
                        course.answers["slow sockets closed"] += 1
                sleep(0.2)

    return crowd


def vanishing(server: Server, *, count: int) -> Callable[[Course], None]:
    """Clients that reset in mid-head, in mid-body, before and in the midst of their answer."""
    body = json.dumps({"email": "nobody@example.com", "password": "plum-lantern-quarry-81"}).encode()
    post = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    ways = [
        post,
        post + b"Content-Length: %d\r\n\r\n" % len(body) + body[:20],
        f"GET {PATH}?size=100 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
        b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20,
    ]

    def crowd(course: Course) -> None:
        for number in range(count):
            connection = connect(server.port)
            connection.sendall(ways[number % len(ways)])
            if number % 8 == 7:
                connection.recv(1024)
            reset(connection)
            course.answers["vanished"] += 1
        wait_for(lambda: course.asked > 0)

    return crowd


def storm(
    server: Server, ask: Callable[[httpx2.Client, int], httpx2.Response], *, count: int, at_once: int, what: str
) -> Callable[[Course], None]:
    """So many requests, so many of them at a time."""

    def crowd(course: Course) -> None:
        def each(number: int) -> None:
            with httpx2.Client(base_url=server.url, verify=False, timeout=60) as client:
                try:
                    answer = ask(client, number)
                except httpx2.TransportError as error:
                    course.errors.append(f"{what}: {error!r}")
                    return
                code = answer.json()["code"]
                course.answers[f"{what} {answer.status_code} {code}"] += 1
                if answer.status_code == 503 and "Retry-After" not in answer.headers:
                    course.errors.append(f"{what}: a 503 without Retry-After")
                if answer.status_code >= 500 and answer.status_code != 503:
                    course.errors.append(f"{what}: {answer.status_code} {answer.text[:200]}")

        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(each, range(count)))
        wait_for(lambda: course.asked > 0)

    return crowd


def log_in(client: httpx2.Client, number: int) -> httpx2.Response:
    """With an account that does not exist: the hash is computed all the same."""
    letter = {"email": f"nobody-{number}@example.com", "password": f"plum-lantern-quarry-{number}"}
    return client.post("/api/v1/auth/login", json=letter)


def deep_page(client: httpx2.Client, number: int) -> httpx2.Response:
    return client.get(PATH, params={"page": [10**6, 10**9, 10**18, 10**30][number % 4], "size": 100})


def exhaust_pool(place: Place, *, count: int, hold_seconds: float) -> Counter[str]:
    """More readers than the pool has connections, while somebody holds the table: each is told when to come back."""
    answers: Counter[str] = Counter()
    lock = f"DO $$ BEGIN LOCK TABLE {_TABLE} IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep({hold_seconds}); END $$"
    held = f"SELECT 1 FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = '{_TABLE}'::regclass"
    with place.service(workers=1, **SMALL_POOL) as service, ThreadPoolExecutor(count + 1) as threads:
        holder = threads.submit(execute, place.database_url, lock)
        wait_for(lambda: bool(execute(place.database_url, held)))
        for answer in threads.map(
            lambda _: httpx2.get(f"{service.server.url}{PATH}", verify=False, timeout=30), range(count)
        ):
            answers[f"{answer.status_code} {answer.json()['code']} {answer.headers.get('Retry-After', '-')}"] += 1
        answers[f"alive {service.client.get('/health/live').status_code}"] += 1
        holder.result()
        wait_for(lambda: service.client.get(PATH).status_code == 200)
    return answers


_TABLE = "products"
SMALL_POOL = {
    "DB__POOL_SIZE": "2",
    "DB__MAX_OVERFLOW": "0",
    "DB__POOL_TIMEOUT_SECONDS": "0.5",
    "DB__LOCK_TIMEOUT_SECONDS": "2",
}


def retry_storm(server: Server, token: str, product: str, *, clients: int, tries: int) -> Counter[str]:
    """Each client sends its one order again and again, all at once, without waiting for an answer in between."""
    answers: Counter[str] = Counter()
    body = {"items": [{"product_id": product, "quantity": 1}]}

    def send(number: int) -> None:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"storm-{number % clients:06d}"}
        answer = httpx2.post(f"{server.url}/api/v1/orders", json=body, headers=headers, verify=False, timeout=60)
        code = answer.json()["code"]
        answers[f"{answer.status_code} {code} {answer.headers.get('Retry-After', '-')}"] += 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(clients * tries)))
    return answers

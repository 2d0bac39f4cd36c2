"""Whatever becomes of the database or of the cache: coded answers in time, and all well again soon afterwards."""

import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlmodel import col

from src.core.orders.models import Order
from tests.faults.faults import FAULTS, Fault, session, stay
from tests.faults.load import Account, Answer, Bounds, Verdict, Window, judge, living, running_load
from tests.faults.outages import GENEROUS, SETTINGS, Scene, all_asks, open_scene
from tests.support.invariants import check_books
from tests.support.service import Service, own_place
from tests.support.tables import execute

pytestmark = pytest.mark.long

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="how processes are stalled, and open files are counted"
)
MANY = 18
"""Kinds that this machine can play at least."""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One service for all that befalls it."""
    with open_scene() as scene:
        yield scene


@needs_linux
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_costs_refusals_and_nothing_else(scene: Scene, fault: Fault) -> None:
    if fault.needs_room and scene.stage.room is None:
        pytest.skip("this machine lets nobody mount a file system")
    with scene.load() as load:
        verdict = scene.play(load, fault, GENEROUS)

    assert verdict.problems() == []
    assert scene.leaks() == []
    assert scene.lost() == []


@needs_linux
def test_what_was_begun_before_a_fault_is_delivered_after_it(scene: Scene) -> None:
    assert scene.undelivered() == 0


@contextmanager
def no_room(service: Service, file: Path) -> Iterator[None]:
    """No file of the process may grow beyond what its journal has now."""
    pid, limits = service.server.pid, resource.prlimit(service.server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file.with_name(f"{file.name}-wal").stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def locked_by_another(service: Service, file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        yield
        another.execute("ROLLBACK")


@needs_linux
@pytest.mark.parametrize("fault", [no_room, locked_by_another])
def test_a_sqlite_that_cannot_write_costs_refusals_and_nothing_else(
    fault: Callable[[Service, Path], AbstractContextManager[None]],
) -> None:
    settings = SETTINGS | {"APP__NAME": "lite", "DB__POOL_SIZE": "10"}
    with own_place("sqlite", **settings) as place, place.service() as service:
        file = Path(place.database_url.removeprefix("sqlite+aiosqlite:///"))
        account = Account()
        with running_load(service.server.url, account, all_asks(account, service)) as load:
            load.wait_for_successes(monotonic(), 1)
            begun = monotonic()
            with fault(service, file):
                load.wait_for_answers(monotonic(), 3)
            repaired = monotonic()
            load.newcomers()
            load.wait_for_successes(monotonic(), 2)
        window = Window(fault.__name__, begun, repaired, monotonic(), {})
        assert judge(window, account.answers, load.asks, GENEROUS).problems() == []
        assert any(not each.good for each in account.answers if each.kind == "order")
        orders = {str(row[0]) for row in execute(place.database_url, select(col(Order.id)))}
        assert set(account.placed.values()) <= orders
        check_books(place.database_url)


def test_each_kind_is_another() -> None:
    names = [fault.name for fault in FAULTS if not fault.needs_room]

    assert len(set(names)) == len(names) >= MANY


# The judge


@needs_linux
def test_a_fault_that_is_none_is_found_out(scene: Scene) -> None:
    with scene.load() as load:
        verdict = scene.play(load, Fault("none", "database", stay, stay), GENEROUS, patience_seconds=0.5)

    assert verdict.unfelt


@needs_linux
def test_a_connection_that_is_left_is_found_out(scene: Scene) -> None:
    for statement in ("SELECT 1", "BEGIN"):
        held = [session(scene.stage.postgres.port, statement) for _ in range(4)]
        try:
            assert scene.leaks(within_seconds=0.2) != []
        finally:
            for connection in held:
                connection.close()
    assert scene.leaks() == []


@needs_linux
def test_an_order_that_is_gone_is_found_out(scene: Scene) -> None:
    key, gone = uuid4().hex, str(uuid4())
    scene.account.placed[key] = gone
    try:
        assert scene.lost() == [f"{gone} was acknowledged and is not there"]
    finally:
        del scene.account.placed[key]


REFUSAL = b'{"code":90002,"msg":"The service cannot answer now","data":null}'


class Mistaken(ThreadingHTTPServer):
    """A service that is well until its database is not, and then does what it should not."""

    daemon_threads = True
    mistake = ""
    ends = 0.0


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Mistaken)
        match self.server.mistake:
            case "":
                self._answer(200, b'{"code":200,"msg":"success","data":null}')
            case "crashes":
                self._answer(500, b'{"code":90001,"msg":"Something went wrong on our side","data":null}', "1")
            case "does not say when to come again":
                self._answer(503, REFUSAL)
            case "has no code":
                self._answer(503, b"Service Unavailable", "1")
            case "hangs up":
                self.close_connection = True
            case "answers late":
                sleep(0.3)  # what it is found out by
                self._answer(503, REFUSAL, "1")
            case _:
                self._answer(503, REFUSAL, "1")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nobody reads it."""

    def _answer(self, status: int, body: bytes, retry_after: str = "") -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Mistaken]:
    with Mistaken(("127.0.0.1", 0), _Answering) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def play(mistake: str, *, unseen: bool = False) -> Verdict:
    account = Account()
    with (
        serving() as server,
        running_load(f"http://127.0.0.1:{server.server_address[1]}", account, {"live": lambda: living}) as load,
    ):
        load.wait_for_successes(monotonic(), 2)
        begun = monotonic()
        server.mistake = mistake
        load.wait_for_answers(monotonic(), 2)
        server.mistake = ""
        repaired = monotonic()
        load.newcomers()
        load.wait_for_successes(monotonic(), 2)
    window = Window("mistake", begun, repaired, monotonic(), {"live": 5} if unseen else {})
    return judge(window, account.answers, ["live"], Bounds(0.25 if mistake == "answers late" else 5, 5, 5))


def test_the_judge_finds_nothing_wrong_with_a_refusal_as_it_should_be() -> None:
    assert play("refuses").problems() == []


@pytest.mark.parametrize("mistake", ["crashes", "does not say when to come again", "has no code", "hangs up"])
def test_the_judge_finds_a_wrong_answer(mistake: str) -> None:
    assert play(mistake).wrong


def test_the_judge_finds_a_late_answer() -> None:
    verdict = play("answers late")

    assert verdict.late
    assert not verdict.wrong


def test_the_judge_finds_a_refusal_that_nobody_should_have_noticed() -> None:
    assert play("refuses", unseen=True).seen


WINDOW = Window("fault", begun=0, repaired=10, ended=20, unseen={})
GOOD = Answer("page", 10.1, 10.2, 200, 200, retry_after=False, text="")


@pytest.mark.parametrize(
    ("answers", "slow"),
    [
        ([GOOD], False),
        ([replace(GOOD, asked=13, heard=13.1)], True),
        ([GOOD, replace(GOOD, asked=13, heard=13.1, status=503, code=90002, retry_after=True)], True),
        ([], True),
    ],
    ids=["at once", "late", "at once and then not", "never"],
)
def test_the_judge_finds_a_slow_recovery(answers: list[Answer], slow: bool) -> None:  # noqa: FBT001 - a column of the table
    verdict = judge(WINDOW, answers, ["page"], Bounds(5, 2, 5))

    assert (verdict.slow != [], verdict.wrong, verdict.late) == (slow, [], [])

"""SIGTERM: first the traffic is sent elsewhere, then what was begun is finished, then the process is gone."""

import signal
import sys

import httpx2
import pytest

from tests.http.wire import BrokenOffError, connected
from tests.lifecycle.stops import play_stops
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.scale import rounds
from tests.support.server import Server, running_server
from tests.support.valkey import running_valkey
from tests.support.waiting import wait_for

STREAMS = "tests.lifecycle.app:app"
PARTS = 20  # as there
READS = 30  # uvicorn alone would be gone after the first few
ARGS = ["--http", "src.http.server:QuickProtocol"]

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the port of a service is kept for its next life")


@pytest.mark.long
@needs_linux
@pytest.mark.parametrize(("database", "workers"), [("sqlite", 1), ("postgres", 2)])
def test_nothing_that_was_accepted_is_lost(database: Kind, workers: int) -> None:
    number = rounds(2, full=50)

    stopped = play_stops(database, rounds=number, seed=26, workers=workers)

    assert stopped.problems() == []
    assert len(stopped.stops) == number
    assert max(stop.seconds for stop in stopped.stops) < 20
    # The stops were felt, and orders were placed all the while.
    assert stopped.outcome.told.asked_again
    assert stopped.outcome.told.receipts


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_is_to_stop_says_so_before_it_does(workers: int) -> None:
    url = fresh_database("postgres")
    with running_valkey() as cache:
        env = {"DB__URL": url, "CACHE__URL": cache, "HTTP__DRAIN_SECONDS": "4"}
        with running_server(env, workers=workers) as server:
            wait_for(lambda: ready(server) == 200)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: ready(server) == 503)
            with httpx2.Client(base_url=server.url, verify=False) as client:
                answers = [client.get("/api/v1/products") for _ in range(READS)]

            assert [answer.status_code for answer in answers] == [200] * READS
            if workers == 1:
                # Who has a connection is told to take another one the next time.
                assert {answer.headers["connection"] for answer in answers} == {"close"}
            assert server.process.wait(20) == 0
    drop_database(url)


def ready(server: Server) -> int:
    return httpx2.get(f"{server.url}/health/ready", verify=False).status_code


def test_a_stream_under_way_is_finished() -> None:
    with running_server({}, STREAMS, args=ARGS) as server, connected(server) as wire:
        wire.send("GET /parts HTTP/1.1")
        wire.head()
        chunks = iter(wire.chunks())
        received = [next(chunks)]
        server.process.send_signal(signal.SIGTERM)
        received += chunks

    assert received == [b"%d\n" % number for number in range(PARTS)]


def test_a_stream_without_an_end_is_cut_and_seen_to_be() -> None:
    args = [*ARGS, "--timeout-graceful-shutdown", "1"]
    with running_server({}, STREAMS, args=args) as server, connected(server) as wire:
        wire.send("GET /endless HTTP/1.1")
        wire.head()
        chunks = iter(wire.chunks())
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(BrokenOffError):
            list(chunks)
        assert server.process.wait(20) in (0, -signal.SIGTERM)

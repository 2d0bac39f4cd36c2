"""A crowd costs what is bounded, ordinary requests are answered meanwhile, and afterwards all is as before."""

import sys
from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest

from tests.load.crowds import (
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
from tests.support.answers import data_of
from tests.support.resources import MIB
from tests.support.server import Server
from tests.support.service import Place, Service

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc"),
]
SECONDS = 3.0


@pytest.fixture(scope="module")
def crowded() -> Iterator[tuple[Place, Server]]:
    with crowded_service(HTTP__HEADER_TIMEOUT_SECONDS="2", AUTH__LOGIN_FAILURES_OVERALL="1000000") as service:
        yield service


@pytest.fixture
def server(crowded: tuple[Place, Server]) -> Server:
    return crowded[1]


def test_idle_and_slow_sockets_keep_nobody_waiting(server: Server) -> None:
    course = observe(server, idle_and_slow(server, idle=2000, slow=500, seconds=SECONDS))

    assert list(course.problems()) == []
    assert course.worst.descriptors > 2000
    assert course.worst.pss_bytes < course.before.pss_bytes + 128 * MIB
    assert course.answers["slow sockets closed"] > 0


def test_clients_that_vanish_leave_nothing_behind(server: Server) -> None:
    course = observe(server, vanishing(server, count=400))

    assert list(course.problems()) == []
    assert "Traceback" not in server.output()


def test_a_storm_of_log_ins_keeps_nobody_else_waiting(server: Server) -> None:
    course = observe(server, storm(server, log_in, count=150, at_once=50, what="log-in"))

    assert list(course.problems()) == []
    # AUTH__PASSWORD_HASH_CONCURRENCY of argon2's memory at a time, and not one for each who asks.
    assert course.worst.pss_bytes < course.before.pss_bytes + 256 * MIB


def test_deep_pages_are_answered_without_being_counted_off(server: Server) -> None:
    course = observe(server, storm(server, deep_page, count=100, at_once=10, what="page"))

    assert list(course.problems()) == []
    assert {answer.split()[1] for answer in course.answers if answer.startswith("page")} <= {"200", "422"}


def test_a_pool_that_is_exhausted_is_a_503_that_says_when_to_come_back(crowded: tuple[Place, Server]) -> None:
    answers = exhaust_pool(crowded[0], count=20, hold_seconds=3)

    assert answers.pop("alive 200") == 1
    # Whoever came first may have had its turn in the end.
    assert set(answers) <= {"503 90002 1", "200 200 -"}
    assert answers["503 90002 1"] >= 15


def test_a_storm_of_retries_places_each_order_once(crowded: tuple[Place, Server]) -> None:
    _, server = crowded
    clients, stock = 10, 1000
    with httpx2.Client(base_url=server.url, verify=False, timeout=30) as client:
        service = Service(server, client)
        token = service.log_in()["access_token"]
        letter = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": stock}
        product = data_of(service.post("products", letter, token=token), 201)["id"]

        answers = retry_storm(server, token, product, clients=clients, tries=12)

        assert data_of(service.get(f"products/{product}"))["stock"] == stock - clients
    # 40004: the first one with this key is still under way.
    assert {answer.rpartition(" ")[0] for answer in answers} <= {"201 201", "409 40004"}
    assert not any(answer.endswith("40004 -") for answer in answers)

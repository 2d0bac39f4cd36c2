"""A request whose transaction lost against another one is run again, whole, on both paths; PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.support.answers import data_of
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import running_server
from tests.support.waiting import wait_for


@pytest.fixture(scope="module", params=["true", "false"], ids=["compiled", "ordinary"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    url = fresh_database("postgres")
    env = {"DB__URL": url, "HTTP__COMPILED_ROUTES": request.param, "LOG__FORMAT": "json"}
    with (
        running_server(env, "tests.http.apps.contended:app") as server,
        httpx2.Client(base_url=server.url, timeout=20, verify=False) as client,
    ):
        yield client
    drop_database(url)


@pytest.fixture
def name() -> str:
    return f"n{uuid4().hex}"


def went(client: httpx2.Client, name: str) -> Any:  # Any: counts
    return data_of(client.get(f"/tries/{name}"))


def settled(client: httpx2.Client, name: str, key: str, number: int) -> Any:  # Any: as above
    """Behind the answer too."""
    wait_for(lambda: went(client, name).get(key) == number)
    return went(client, name)


@pytest.mark.parametrize("at", ["statement", "commit"])
@pytest.mark.parametrize("times", [1, 3])
def test_who_loses_is_run_again_whole(client: httpx2.Client, name: str, at: str, times: int) -> None:
    answer = client.post(f"/tries/{name}", json={"times": times, "at": at})

    assert data_of(answer, 201) == {"times": times, "at": at}
    assert settled(client, name, "behind", 1) == {"stored": 1, "attempts": times + 1, "behind": 1}


@pytest.mark.parametrize("at", ["statement", "commit"])
def test_who_always_loses_is_told_to_come_back(client: httpx2.Client, name: str, at: str) -> None:
    answer = client.post(f"/tries/{name}", json={"times": 99, "at": at})

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert went(client, name) == {"stored": 0, "attempts": 4}


@pytest.mark.parametrize("at", ["statement", "commit"])
def test_what_an_attempt_opened_ends_with_it(client: httpx2.Client, name: str, at: str) -> None:
    data_of(client.post(f"/watched/{name}", json={"times": 2, "at": at}))

    assert settled(client, name, "closed", 1) == {"stored": 1, "attempts": 3, "opened": 3, "failed": 2, "closed": 1}


def test_a_body_that_was_read_piece_by_piece_is_gone(client: httpx2.Client, name: str) -> None:
    answer = client.post(f"/streamed/{name}", json={"times": 1, "at": "statement"})

    assert answer.status_code == 503
    assert went(client, name) == {"stored": 0, "attempts": 1}


def test_a_refusal_of_the_database_is_final(client: httpx2.Client, name: str) -> None:
    assert client.post(f"/twice/{name}").status_code == 500
    assert went(client, name) == {"stored": 0, "attempts": 1}


def test_of_two_that_lock_each_other_out_both_come_through(client: httpx2.Client, name: str) -> None:
    one, other = f"{name}a", f"{name}b"
    for seat in (one, other):
        data_of(client.post(f"/seats/{seat}"))
    with ThreadPoolExecutor() as both:
        answers = list(both.map(client.post, (f"/seats/{one}/{other}", f"/seats/{other}/{one}")))

    assert [answer.status_code for answer in answers] == [200, 200]
    assert went(client, one)["attempts"] + went(client, other)["attempts"] == 3

"""Patterns, Caching: in memory beside SQLite, on Valkey beside PostgreSQL."""

import httpx2
import pytest


@pytest.fixture(autouse=True)
def nothing_cached(client: httpx2.Client) -> None:
    client.delete("/cached")


def test_the_second_call_gets_what_the_first_one_stored(client: httpx2.Client) -> None:
    first, second = (client.get("/cached").json()["data"] for _ in range(2))

    assert first is None
    assert second == {"name": "Anna", "visits": [1, 2.5, None]}


def test_the_entry_lives_for_its_ttl(client: httpx2.Client) -> None:
    before = client.get("/cached/seconds-left").json()["data"]
    client.get("/cached")

    left = client.get("/cached/seconds-left").json()["data"]

    # On a shared server up to a tenth less, at random, so that entries do not expire together.
    assert before is None
    assert 240 < left <= 300


def test_a_falsy_value_is_a_value_that_the_pattern_loads_again(client: httpx2.Client) -> None:
    client.put("/cached", json={})

    client.get("/cached")

    assert client.get("/cached").json()["data"]["name"] == "Anna"


def test_what_is_deleted_is_gone(client: httpx2.Client) -> None:
    client.get("/cached")

    assert [client.delete("/cached").json()["data"] for _ in range(2)] == [True, False]
    assert client.get("/cached").json()["data"] is None

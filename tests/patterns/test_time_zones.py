"""Patterns, Time zones: UTC in the tables, the zone of `APP__TIMEZONE` (here 5.75, Nepal) on the wire."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx2
import pytest

Show = Callable[[int, str], datetime]

numbers = count(1)
OFFSET = timedelta(hours=5, minutes=45)


@pytest.fixture
def order(client: httpx2.Client) -> int:
    number = next(numbers)
    assert client.put(f"/orders/{number}").status_code == 200
    return number


@pytest.fixture
def shown(client: httpx2.Client) -> Callable[[int], dict[str, str]]:
    return lambda order: client.get(f"/orders/{order}/table").json()["data"]


def test_times_are_aware_and_utc_on_both_databases(client: httpx2.Client, order: int) -> None:
    assert client.get(f"/orders/{order}/zone").json()["data"] == ["UTC", "UTC"]


def test_a_new_row_is_as_old_as_the_request(client: httpx2.Client) -> None:
    number, before = next(numbers), datetime.now(UTC)
    created = client.put(f"/orders/{number}").json()["data"]

    assert before <= datetime.fromisoformat(created["created_at"]) <= datetime.now(UTC)


@pytest.mark.parametrize("form", ["serializer", "type", "table"])
def test_times_are_shown_in_the_local_zone(client: httpx2.Client, form: str) -> None:
    number = next(numbers)
    client.put(f"/orders/{number}", params={"created_at": "2026-03-29T00:30:00.123456Z"})

    told = client.get(f"/orders/{number}/{form}").json()["data"]["created_at"]

    assert told == "2026-03-29T06:15:00.123456+05:45"
    assert datetime.fromisoformat(told).utcoffset() == OFFSET


def test_a_moment_of_another_zone_is_the_same_moment(client: httpx2.Client) -> None:
    number = next(numbers)
    client.put(f"/orders/{number}", params={"created_at": "2026-03-28T23:30:00-01:00"})

    assert client.get(f"/orders/{number}/zone").json()["data"][0] == "UTC"
    assert client.get(f"/orders/{number}/serializer").json()["data"]["created_at"] == "2026-03-29T06:15:00+05:45"


def test_a_naive_time_is_refused_and_leaves_no_row(client: httpx2.Client) -> None:
    number = next(numbers)

    answer = client.put(f"/orders/{number}", params={"created_at": "2026-03-29T00:30:00"})

    assert answer.status_code >= 400
    assert client.get(f"/orders/{number}/table").status_code == 404


def test_updated_at_advances_when_a_row_changes(
    client: httpx2.Client, order: int, shown: Callable[[int], dict[str, str]]
) -> None:
    before = shown(order)

    client.patch(f"/orders/{order}", params={"note": "changed"})

    after = shown(order)
    assert after["note"] == "changed"
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]


def test_updated_at_advances_on_a_bulk_update(client: httpx2.Client, shown: Callable[[int], dict[str, str]]) -> None:
    numbers_of_three = [next(numbers) for _ in range(3)]
    for number in numbers_of_three:
        client.put(f"/orders/{number}")
    before = [shown(number) for number in numbers_of_three]

    client.patch("/orders", params={"first": numbers_of_three[0], "last": numbers_of_three[1], "note": "changed"})

    after = [shown(number) for number in numbers_of_three]
    assert [row["note"] for row in after] == ["changed", "changed", ""]
    moved = [new["updated_at"] > old["updated_at"] for old, new in zip(before, after, strict=True)]
    assert moved == [True, True, False]

"""Patterns, Retry: the snippet's own address, over TLS, at a far side with bad moments (see `far_side.py`)."""

from itertools import count

import httpx2
import pytest

from tests.patterns.far_side import FarSide

numbers = count(1)


@pytest.fixture
def number() -> int:
    """Somebody whom the far side was not asked about before."""
    return next(numbers)


def test_two_failures_of_the_far_side_are_not_seen(client: httpx2.Client, far_side: FarSide, number: int) -> None:
    answer = client.get(f"/fetched-users/{number}")

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == {"id": number, "name": "Anna"}
    assert far_side.calls[f"/users/{number}"] == 3


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, 5)])
def test_what_does_not_pass_surfaces(client: httpx2.Client, far_side: FarSide, status: int, tries: int) -> None:
    before = far_side.calls[f"/users/{status}"]

    answer = client.get(f"/fetched-users/{status}")

    # APP__MAX_RETRIES=4: one try and four more, for what may pass.
    assert far_side.calls[f"/users/{status}"] - before == tries
    assert answer.status_code == 500
    assert "example.com" not in answer.text

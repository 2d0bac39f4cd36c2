"""When the circuit breaker opens, and what closes it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from src.cache import CacheUnavailableError
from src.cache.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(2, failures=(OSError,), clock=clock)


def fail(breaker: Breaker) -> None:
    with suppress(CacheUnavailableError), breaker.attempt():
        raise OSError


def lets_through(breaker: Breaker) -> bool:
    """Whether an attempt is made; it ends like one that was cancelled and so proves nothing."""
    entered = False
    with suppress(asyncio.CancelledError, CacheUnavailableError), breaker.attempt():
        entered = True
        raise asyncio.CancelledError
    return entered


def test_the_first_failure_opens_it(breaker: Breaker) -> None:
    assert lets_through(breaker)

    fail(breaker)

    assert not lets_through(breaker)


def test_it_lets_one_through_when_its_rest_is_over(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 2

    with breaker.attempt():
        assert not lets_through(breaker)

    with breaker.attempt():
        assert lets_through(breaker)


def test_a_probe_that_fails_starts_another_rest(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 2
    fail(breaker)

    clock.now = 3.9
    assert not lets_through(breaker)
    clock.now = 4
    assert lets_through(breaker)


def test_a_probe_that_is_cancelled_leaves_the_next_one_to_try(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now = 2

    assert lets_through(breaker)
    assert lets_through(breaker)


def test_a_mistake_of_the_caller_is_no_failure(breaker: Breaker) -> None:
    with pytest.raises(ValueError, match="mine"), breaker.attempt():
        raise ValueError("mine")

    assert lets_through(breaker)


def test_a_failure_from_before_the_recovery_does_not_open_it_again(breaker: Breaker, clock: Clock) -> None:
    with suppress(CacheUnavailableError), breaker.attempt():
        fail(breaker)
        clock.now = 2
        with breaker.attempt():
            pass
        raise OSError

    assert lets_through(breaker)


def test_each_outage_is_logged_once(breaker: Breaker, clock: Clock, log_lines: list[str]) -> None:
    steps: list[Callable[[], object]] = [lambda: fail(breaker), lambda: lets_through(breaker)] * 5
    for seconds in (0, 2, 4):
        clock.now = seconds
        for step in steps:
            step()
    clock.now = 6
    with breaker.attempt():
        pass

    assert [line.split()[0] for line in log_lines] == ["WARNING", "INFO"]
    assert "OSError" in log_lines[0]

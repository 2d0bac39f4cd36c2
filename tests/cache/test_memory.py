"""The bounds of the cache in memory."""

import pytest

from src.cache.memory import MemoryCache
from src.config import CacheSettings


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_the_least_recently_used_entry_makes_room(clock: Clock) -> None:
    cache = MemoryCache(CacheSettings(max_entries=3), clock)
    await cache.set_many({"a": 1, "b": 2, "c": 3})

    await cache.get("a")
    await cache.set("d", 4)

    assert await cache.get_many("abcd") == {"a": 1, "c": 3, "d": 4}


async def test_the_expired_make_room_before_the_living(clock: Clock) -> None:
    cache = MemoryCache(CacheSettings(max_entries=2), clock)
    await cache.set("lives", 1, ttl=100)
    await cache.set("expires", 2, ttl=1)

    clock.now = 2
    await cache.set("new", 3, ttl=100)

    assert await cache.get_many(["lives", "expires", "new"]) == {"lives": 1, "new": 3}


async def test_an_entry_lives_exactly_as_long_as_its_ttl(clock: Clock) -> None:
    cache = MemoryCache(CacheSettings(), clock)
    await cache.set("n", 1, ttl=10)

    clock.now = 9.999
    assert await cache.get("n") == 1
    clock.now = 10
    assert await cache.delete("n") is False
    assert await cache.get("n") is None


async def test_a_longer_life_is_not_cut_by_the_first_one(clock: Clock) -> None:
    cache = MemoryCache(CacheSettings(), clock)
    await cache.set("n", 1, ttl=1)
    await cache.set("n", 2, ttl=100)

    clock.now = 2
    await cache.set("other", 1)

    assert await cache.get("n") == 2


async def test_no_traces_are_left_of_what_is_gone(clock: Clock) -> None:
    cache = MemoryCache(CacheSettings(max_entries=100), clock)

    for number in range(10_000):
        clock.now = float(number)
        await cache.set("same", number)
        await cache.set(f"expires:{number}", number, ttl=10)
        await cache.delete(f"expires:{number - 1}")

    assert len(cache._entries) <= 100
    assert len(cache._expiries) <= 201
    assert await cache.get("same") == 9999

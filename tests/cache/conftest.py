"""Both caches, each as the service opens it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from loguru import logger

from src.cache import CacheProtocol, open_cache
from src.cache.first_tier import FirstTier
from src.cache.redis import RedisCache
from src.config import CacheSettings, Settings
from tests.support.valkey import running_valkey
from tests.support.waiting import eventually

OpenCache = Callable[..., CacheProtocol]


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with running_valkey() as url:
        yield url


@pytest.fixture
async def opened() -> AsyncIterator[OpenCache]:
    """Opens caches with the given settings, and closes them after the test."""
    async with AsyncExitStack() as stack:

        def open_one(**settings: Any) -> CacheProtocol:
            # A busy test machine is no outage: only tests of outages are impatient.
            cache = open_cache(Settings(cache=CacheSettings(**{"timeout_seconds": 10, **settings})))
            stack.push_async_callback(cache.close)
            return cache

        yield open_one


@pytest.fixture
def on_valkey(opened: OpenCache, valkey_url: str) -> OpenCache:
    """Opens caches on one server; those of a test share a namespace, unless they are given another."""
    namespace = f"test-{uuid4().hex[:16]}"

    def open_one(**settings: Any) -> CacheProtocol:
        return opened(**{"url": valkey_url, "namespace": namespace, **settings})

    return open_one


def first_tier(cache: CacheProtocol) -> FirstTier:
    assert isinstance(cache, RedisCache)
    return cache._connected[asyncio.get_running_loop()].tier


async def open_first_tier(cache: CacheProtocol) -> FirstTier:
    """Read until the cache keeps what it reads."""

    async def is_open() -> bool:
        await cache.get("nothing")
        return first_tier(cache).is_open()

    await eventually(is_open)
    return first_tier(cache)


@pytest.fixture(params=["memory", "valkey", "valkey with copies"])
async def cache(request: pytest.FixtureRequest, opened: OpenCache) -> CacheProtocol:
    """The promise is one; each test that takes this runs against all who make it."""
    if request.param == "memory":
        return opened()
    on_valkey: OpenCache = request.getfixturevalue("on_valkey")  # starts a server, which the other does not need
    if request.param == "valkey":
        return on_valkey(local_seconds=0)
    cache = on_valkey(local_seconds=3600)
    await open_first_tier(cache)
    return cache


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message} {extra}", level=0)
    yield lines
    logger.remove(sink)

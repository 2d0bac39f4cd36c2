"""Both caches, each as the service opens it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from loguru import logger

from src.cache import CacheProtocol, open_cache
from src.config import CacheSettings, Settings
from tests.support.valkey import running_valkey

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


@pytest.fixture(params=["memory", "valkey"])
def cache(request: pytest.FixtureRequest) -> CacheProtocol:
    """The promise is one; each test that takes this runs against both who make it."""
    opener: OpenCache = request.getfixturevalue("opened" if request.param == "memory" else "on_valkey")
    return opener()


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message} {extra}", level=0)
    yield lines
    logger.remove(sink)

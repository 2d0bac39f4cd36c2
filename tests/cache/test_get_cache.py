"""The cache of the process, as routes and the lifespan meet it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from src import config
from src.cache import CacheDep, CacheProtocol, close_cache, get_cache
from src.cache.memory import MemoryCache
from src.cache.redis import RedisCache
from src.config import CacheSettings, Settings, use_settings


@pytest.fixture(autouse=True)
async def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(config, "_current", Settings())
    yield
    await close_cache()


async def test_a_route_gets_the_cache_as_the_patterns_type_it() -> None:
    app = FastAPI()

    @app.get("/things/{id}")
    async def handler(id: int, cache: CacheProtocol = Depends(get_cache)) -> Any:  # noqa: A002, B008, FAST002 - as typed in the patterns
        cached = await cache.get(f"key:{id}")
        if cached:
            return cached
        data = {"id": id}
        await cache.set(f"key:{id}", {**data, "cached": True}, ttl=300)
        return data

    @app.get("/short/{id}")
    async def short(id: int, cache: CacheDep) -> Any:  # noqa: A002 - as above
        return await cache.get(f"key:{id}")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answers = [(await client.get(path)).json() for path in ("/things/1", "/things/1", "/short/1", "/short/2")]
        documented = (await client.get("/openapi.json")).json()

    assert answers == [{"id": 1}, {"id": 1, "cached": True}, {"id": 1, "cached": True}, None]
    assert [parameter["name"] for parameter in documented["paths"]["/things/{id}"]["get"]["parameters"]] == ["id"]


async def test_the_process_has_one_cache() -> None:
    assert await get_cache() is await get_cache()


async def test_after_closing_the_next_one_is_new() -> None:
    cache = await get_cache()
    await cache.set("n", 1)

    await close_cache()
    await close_cache()

    assert await (await get_cache()).get("n") is None


async def test_the_settings_say_which_cache_it_is(valkey_url: str) -> None:
    in_memory = await get_cache()

    use_settings(Settings(cache=CacheSettings(url=valkey_url, timeout_seconds=10)))

    assert isinstance(in_memory, MemoryCache)
    assert isinstance(await get_cache(), RedisCache)


@pytest.mark.parametrize("where", ["memory", "valkey"])
def test_each_event_loop_can_use_it_and_leaves_nothing_open(where: str, valkey_url: str) -> None:
    # Warnings are errors here: a connection that a closed loop leaves behind would fail this test.
    url = "memory://" if where == "memory" else valkey_url
    use_settings(Settings(cache=CacheSettings(url=url, namespace="test-loops", timeout_seconds=10)))

    async def count() -> int:
        cache = await get_cache()
        return await cache.increment("n", ttl=60)

    async def clear() -> None:
        await (await get_cache()).clear()

    asyncio.run(clear())
    counted = [asyncio.run(count()) for _ in range(3)]
    asyncio.run(clear())

    assert counted == [1, 2, 3]


def test_a_load_that_a_closed_loop_left_behind_blocks_nobody() -> None:
    async def never_ends() -> str:
        await asyncio.Event().wait()
        return "never"

    async def loaded() -> str:
        return "loaded"

    cache = MemoryCache(CacheSettings())
    left = asyncio.new_event_loop()
    task = left.create_task(cache.get_or_set("n", never_ends))
    left.run_until_complete(asyncio.sleep(0))

    assert asyncio.run(asyncio.wait_for(cache.get_or_set("n", loaded), 10)) == "loaded"

    task.cancel()
    left.run_until_complete(asyncio.wait((task,)))
    left.close()

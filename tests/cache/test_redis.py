"""What only a shared server brings: outages, neighbours, other processes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import uvloop
from redis.asyncio import Redis

from src.cache import CacheProtocol, CacheUnavailableError
from src.cache import redis as redis_module
from src.cache.redis import RedisCache
from src.config import CacheSettings
from tests.cache.conftest import OpenCache
from tests.faults.proxy import DOWN, PASS, Proxy, running_proxy
from tests.support.ports import reserved_port
from tests.support.valkey import own_valkey
from tests.support.waiting import eventually

ONE_DAY = 86_400
LOSSES = 100


async def loaded() -> str:
    return "loaded"


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url) as client:
        yield client


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Takes connections and commands and never answers: its URL, and what it was sent on each connection."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if command := await reader.read(1000):
            heard.append(command)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", heard


async def assert_does_without(cache: CacheProtocol) -> None:
    assert await cache.get("n") is None
    assert await cache.get_many(["n"]) == {}
    assert await cache.get_or_set("n", loaded) == "loaded"
    assert await cache.delete("n") is False
    assert await cache.delete_many(["n"]) == 0
    assert await cache.exists("n") is False
    assert await cache.ttl("n") is None
    assert await cache.expire("n", 1) is False
    assert await cache.ping() is False
    await cache.set("n", 1)
    await cache.set_many({"n": 1})
    await cache.clear()
    with pytest.raises(CacheUnavailableError):
        await cache.increment("n")


async def test_without_a_server_everything_goes_on(opened: OpenCache, log_lines: list[str]) -> None:
    with reserved_port() as nobody_listens:
        cache = opened(url=f"redis://:s3cret@127.0.0.1:{nobody_listens}/0", breaker_seconds=0.0001)

        await assert_does_without(cache)

    assert len(log_lines) == 1
    assert "s3cret" not in log_lines[0]


async def test_with_a_stalled_server_everything_goes_on(opened: OpenCache, log_lines: list[str]) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, timeout_seconds=0.05, breaker_seconds=0.0001)
        with server.stalled():
            async with asyncio.timeout(30):
                await assert_does_without(cache)

    assert len(log_lines) == 1


async def test_a_mistake_is_refused_in_an_outage_too(opened: OpenCache) -> None:
    with reserved_port() as nobody_listens:
        cache = opened(url=f"redis://127.0.0.1:{nobody_listens}/0")

        with pytest.raises(TypeError):
            await cache.set("n", (1, 2))
        with pytest.raises(ValueError, match="empty"):
            await cache.get("")
        with pytest.raises(LookupError):
            await cache.get_or_set("n", no_such_order)


async def no_such_order() -> None:
    raise LookupError


async def test_a_server_that_failed_is_left_alone(opened: OpenCache) -> None:
    async with silent_server() as (url, heard):
        cache = opened(url=url, timeout_seconds=0.05, breaker_seconds=ONE_DAY)
        await cache.get("n")
        heard_first = list(heard)

        for _ in range(100):
            await cache.get("n")
        await cache.close()

    assert len(heard_first) == 1
    assert heard == heard_first


async def test_a_hundred_who_ask_a_stalled_server_at_once_share_one_time_out(
    opened: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # If each had a time-out of its own, counted from when it got one of two connections, all would take 10 s.
    monkeypatch.setattr(redis_module, "MAX_CONNECTIONS", 2)
    with own_valkey() as server:
        cache = opened(url=server.url, timeout_seconds=0.2, breaker_seconds=ONE_DAY)
        await eventually(cache.ping)
        with server.stalled():
            async with asyncio.timeout(8):
                answers = await asyncio.gather(*(cache.get("n") for _ in range(100)))

    assert answers == [None] * 100


async def test_only_one_probes_a_server_that_failed(opened: OpenCache) -> None:
    async with silent_server() as (url, heard):
        cache = opened(url=url, timeout_seconds=0.1, breaker_seconds=0.0001)
        await cache.get("n")

        await asyncio.gather(*(cache.get("n") for _ in range(100)))
        await cache.close()

    assert len(heard) == 2


async def test_a_server_that_stalled_is_used_again(opened: OpenCache, log_lines: list[str]) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, timeout_seconds=0.2, breaker_seconds=0.05)
        await eventually(cache.ping)
        log_lines.clear()
        await cache.set("n", 1)
        with server.stalled():
            assert await cache.get("n") is None

        await eventually(cache.ping)

        async def answers_as_before() -> bool:
            return bool(await cache.get("n") == 1)

        await eventually(answers_as_before)
    assert [line.split()[0] for line in log_lines][:2] == ["WARNING", "INFO"]


async def test_a_server_that_was_restarted_is_used_again(opened: OpenCache) -> None:
    with reserved_port() as port:
        cache = opened(url=f"redis://127.0.0.1:{port}/0", breaker_seconds=0.05)
        with own_valkey(port):
            await eventually(cache.ping)
        assert not await cache.ping()

        with own_valkey(port):
            await eventually(cache.ping)
            await cache.set("n", 1)

            assert await cache.get("n") == 1


async def test_a_restart_between_two_calls_goes_unnoticed(opened: OpenCache, log_lines: list[str]) -> None:
    with reserved_port() as port:
        cache = opened(url=f"redis://127.0.0.1:{port}/0", breaker_seconds=ONE_DAY)
        with own_valkey(port):
            await asyncio.gather(*(cache.set(f"n:{number}", number) for number in range(20)))

        with own_valkey(port):
            for _ in range(3):
                await asyncio.sleep(0)  # starting a server blocked the loop, which now sees that the old one left
            await cache.set("n", 1)

            assert await cache.get("n") == 1
    assert log_lines == []


def test_connections_that_are_lost_at_any_moment_are_an_outage(valkey_url: str) -> None:
    """Now and then uvloop, which serves, refuses to write to one with an error that no driver expects."""
    port = urlsplit(valkey_url).port
    assert port is not None

    async def count(cache: CacheProtocol, until: asyncio.Event) -> None:
        while not until.is_set():
            with suppress(CacheUnavailableError):
                await cache.increment("n")
            await asyncio.sleep(0.001)  # others want to be served, too

    async def lose_connections(wire: Proxy) -> None:
        url = f"redis://127.0.0.1:{wire.port}/0"
        cache = RedisCache(CacheSettings(url=url, timeout_seconds=10, breaker_seconds=0.001, namespace=uuid4().hex))
        until = asyncio.Event()
        counting = [asyncio.create_task(count(cache, until)) for _ in range(8)]
        for _ in range(LOSSES):
            for way in (DOWN, PASS):
                await asyncio.to_thread(wire.switch, way)
                await asyncio.sleep(0.005)  # they connect, and count
        until.set()
        await asyncio.gather(*counting)
        await cache.close()

    with running_proxy(port) as wire, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lose_connections(wire))


async def test_a_busy_process_is_not_taken_for_an_outage(on_valkey: OpenCache) -> None:
    await on_valkey().set("n", 1)
    cache = on_valkey(timeout_seconds=0.4, breaker_seconds=ONE_DAY)
    asked = asyncio.create_task(cache.get("n"))
    for _ in range(3):
        await asyncio.sleep(0)  # now the connection is under way

    time.sleep(0.7)  # noqa: ASYNC251 - the process is busy longer than the server may be

    assert await asked == 1
    assert await cache.ping()


async def test_the_answer_to_one_who_left_goes_to_nobody_else(on_valkey: OpenCache) -> None:
    cache = on_valkey()
    await cache.set_many({f"n:{number}": number for number in range(50)})

    for turn in range(20):
        asked = [asyncio.create_task(cache.get(f"n:{number}")) for number in range(50)]
        for _ in range(turn):
            await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)

        assert answers[1::2] == list(range(50))[1::2]
        assert [answer for answer in answers[::2] if isinstance(answer, int)] == [
            number for number, answer in enumerate(answers) if number % 2 == 0 and isinstance(answer, int)
        ]


async def test_clear_touches_only_its_own_namespace(on_valkey: OpenCache, raw: Redis) -> None:
    ours = on_valkey()
    assert isinstance(ours, RedisCache)
    longer_name, shorter_name = "ours-and-more", "our"
    ours = on_valkey(namespace="ours")
    neighbours = [on_valkey(namespace=longer_name), on_valkey(namespace=shorter_name)]
    for cache in (ours, *neighbours):
        await cache.set("n", 1)
    await raw.set("ours", "not an entry", ex=60)

    await ours.clear()

    assert not await ours.exists("n")
    assert [await cache.get("n") for cache in neighbours] == [1, 1]
    assert await raw.getdel("ours") == b"not an entry"
    for cache in neighbours:
        await cache.clear()


async def test_every_key_on_the_server_is_ours_and_ends(on_valkey: OpenCache, raw: Redis) -> None:
    cache = on_valkey()
    assert isinstance(cache, RedisCache)
    await cache.set("*", 1)
    await cache.set_many({"k" * 1000: 1})
    await cache.get_or_set("o", loaded)
    await cache.increment("p")

    names = [name async for name in raw.scan_iter(cache._prefix + b"*")]

    assert len(names) == 4
    assert all(len(name) < 400 for name in names)
    assert all([await raw.pttl(name) > 0 for name in names])


async def test_what_is_set_together_does_not_expire_together(on_valkey: OpenCache) -> None:
    cache = on_valkey()
    keys = [f"n:{number}" for number in range(50)]
    await cache.set_many(dict.fromkeys(keys, 1), ttl=1000)

    lives = [await cache.ttl(key) for key in keys]

    assert all(life is not None and 890 < life <= 1000 for life in lives)
    assert len({round(life) for life in lives if life is not None}) > 5


async def test_a_counter_lives_exactly_as_long_as_its_window(on_valkey: OpenCache) -> None:
    cache = on_valkey()
    for number in range(20):
        await cache.increment(f"n:{number}", ttl=1000)

    lives = [await cache.ttl(f"n:{number}") for number in range(20)]

    assert all(life is not None and life > 990 for life in lives)


async def test_processes_share_entries(on_valkey: OpenCache) -> None:
    one, other = on_valkey(), on_valkey()

    await one.set("n", [1])

    assert await other.get("n") == [1]
    assert await other.delete("n")
    assert not await one.exists("n")


async def test_many_who_ask_in_several_processes_cause_one_load(on_valkey: OpenCache) -> None:
    calls = 0
    called, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> dict[str, int]:
        nonlocal calls
        calls += 1
        called.set()
        await go_on.wait()
        return {"total": 1}

    processes = [on_valkey() for _ in range(3)]
    asked = [asyncio.create_task(cache.get_or_set("stats", load)) for cache in processes * 20]
    await called.wait()
    for cache in processes:
        await cache.ping()
    go_on.set()

    assert await asyncio.gather(*asked) == [{"total": 1}] * 60
    assert calls == 1


async def test_an_invalidation_in_another_process_counts_for_a_load_under_way(on_valkey: OpenCache) -> None:
    one, other = on_valkey(), on_valkey()
    called, go_on = asyncio.Event(), asyncio.Event()

    async def load_stale() -> str:
        called.set()
        await go_on.wait()
        return "stale"

    asked = asyncio.create_task(one.get_or_set("order", load_stale))
    await called.wait()

    await other.delete("order")
    go_on.set()

    assert await asked == "stale"
    assert not await other.exists("order")


async def test_a_load_that_fails_lets_the_other_processes_try_at_once(on_valkey: OpenCache, raw: Redis) -> None:
    one, other = on_valkey(), on_valkey()
    assert isinstance(one, RedisCache)

    with pytest.raises(LookupError):
        await one.get_or_set("order", no_such_order)

    assert not await raw.exists(one._lock(one._entry("order")))
    assert await other.get_or_set("order", loaded) == "loaded"
    assert not await raw.exists(one._lock(one._entry("order")))


async def test_a_process_that_died_while_it_loaded_holds_nobody_up_for_long(on_valkey: OpenCache, raw: Redis) -> None:
    cache = on_valkey()
    assert isinstance(cache, RedisCache)
    await raw.set(cache._lock(cache._entry("order")), b"the token of the dead", px=100)

    async with asyncio.timeout(10):
        assert await cache.get_or_set("order", loaded) == "loaded"

    assert await cache.get("order") == "loaded"


async def test_a_load_that_takes_long_keeps_its_lock(
    on_valkey: OpenCache, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "RENEW_SECONDS", 0.01)
    one, other = on_valkey(), on_valkey()
    assert isinstance(one, RedisCache)
    lock = one._lock(one._entry("order"))
    called, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        called.set()
        await go_on.wait()
        return "slow"

    first = asyncio.create_task(one.get_or_set("order", load))
    await called.wait()
    await raw.pexpire(lock, 1000)

    async def is_renewed() -> bool:
        return await raw.pttl(lock) > 1000

    await eventually(is_renewed)
    second = asyncio.create_task(other.get_or_set("order", loaded))
    await other.ping()
    go_on.set()

    assert [await first, await second] == ["slow", "slow"]


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_the_schemes_of_redis_and_valkey_mean_the_same(
    on_valkey: OpenCache, valkey_url: str, scheme: str
) -> None:
    cache = on_valkey(url=f"{scheme}:{valkey_url.partition(':')[2]}")

    assert await cache.ping()


@pytest.mark.parametrize(
    ("url", "secure", "address"),
    [
        ("rediss://host:1/2", True, ("host", 1, 2)),
        ("valkeys://host:1/2", True, ("host", 1, 2)),
        ("valkey://host:1/2", False, ("host", 1, 2)),
    ],
)
def test_a_url_says_where_and_how(opened: OpenCache, url: str, secure: bool, address: tuple[str, int, int]) -> None:  # noqa: FBT001 - a parameter
    cache = opened(url=url)
    assert isinstance(cache, RedisCache)

    pool = cache._new_client().connection_pool

    assert (pool.connection_class.__name__ == "SSLConnection") is secure
    assert tuple(pool.connection_kwargs[name] for name in ("host", "port", "db")) == address


def test_a_url_that_cannot_be_read_is_refused_and_not_quoted(opened: OpenCache) -> None:
    """What the settings let pass: they judge the form of a URL, see tests/config."""
    with pytest.raises(ValueError, match="CACHE__URL") as refusal:
        opened(url="redis://host/0?hunter2=1")

    assert "ter2" not in str(refusal.value)
    assert refusal.value.__suppress_context__

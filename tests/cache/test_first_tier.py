"""Copies in the process: read without the server, and never less true than promised."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from src.cache import CacheProtocol
from src.cache import changes as changes_module
from src.cache import first_tier as first_tier_module
from src.cache.first_tier import FirstTier
from src.cache.redis import RedisCache
from tests.cache.conftest import OpenCache, first_tier, open_first_tier
from tests.support.ports import reserved_port
from tests.support.valkey import own_valkey
from tests.support.waiting import eventually

FALSY = [0, 0.0, "", False, [], {}, None]
# Copies that nobody forgets would be seen for longer than a test waits.
FOR_LONG = 3600


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def copied(cache: CacheProtocol, key: str) -> bool:
    return first_tier(cache).find(key) is not None


async def copy(cache: CacheProtocol, key: str) -> Any:
    """What is read, once reading it has left a copy; a word of an earlier change may have forgotten the first."""

    async def is_copied() -> bool:
        await cache.get(key)
        return copied(cache, key)

    await open_first_tier(cache)
    await eventually(is_copied)
    return await cache.get(key)


async def put(cache: CacheProtocol, key: str, value: object) -> None:
    """For an impatient cache on a busy machine, which may take that for an outage."""

    async def is_put() -> bool:
        await cache.set(key, value)
        return await cache.exists(key)

    await eventually(is_put)


async def deaf(cache: CacheProtocol) -> FirstTier:
    """Open the first tier of a cache that hears of no change: what it forgets it forgets by itself."""
    await cache.ping()
    tier = first_tier(cache)
    tier.trust_until(inf)
    return tier


def sees(cache: CacheProtocol, key: str, value: object) -> Callable[[], Awaitable[bool]]:
    async def it_does() -> bool:
        return bool(await cache.get(key) == value)

    return it_does


def closed(cache: CacheProtocol) -> Callable[[], Awaitable[bool]]:
    async def is_closed() -> bool:
        return not first_tier(cache).is_open()

    return is_closed


@pytest.fixture
async def raw(valkey_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(changes_module, "REST_SECONDS", 0.01)


async def test_what_was_read_is_read_again_without_the_server(opened: OpenCache) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, local_seconds=FOR_LONG)
        await cache.set_many({"order": {"total": 1}, "nobody": None})
        await copy(cache, "order")
        await copy(cache, "nobody")
        with server.stalled():
            assert await cache.get("order") == {"total": 1}
            assert await cache.get_many(["order", "nobody"]) == {"order": {"total": 1}, "nobody": None}
            assert await cache.get_or_set("order", never_called) == {"total": 1}
            assert await cache.get_or_set("nobody", never_called) is None


async def never_called() -> Any:
    raise AssertionError


async def test_what_was_read_among_many_is_found_alone(on_valkey: OpenCache) -> None:
    cache = on_valkey()
    await deaf(cache)
    await cache.set_many({"a": 1, "b": 2})

    await cache.get_many(["a", "absent"])
    assert await cache.get_many(["a", "b", "a"]) == {"a": 1, "b": 2}

    assert [copied(cache, key) for key in ("a", "b", "absent")] == [True, True, False]


@pytest.mark.parametrize("value", FALSY, ids=repr)
async def test_a_copy_of_a_falsy_value_is_a_value(on_valkey: OpenCache, value: Any) -> None:
    cache = on_valkey()
    await cache.set("empty", value)

    got = await copy(cache, "empty")

    assert got == value
    assert type(got) is type(value)
    assert await cache.get_or_set("empty", never_called) == value
    assert await cache.get_many(["empty"]) == {"empty": value}


async def test_each_reader_has_a_copy_of_its_own(on_valkey: OpenCache) -> None:
    cache = on_valkey()
    await cache.set("order", {"lines": [1]})
    await copy(cache, "order")

    (await cache.get("order"))["lines"].append(2)
    (await cache.get_many(["order"]))["order"]["lines"].append(3)
    (await cache.get_or_set("order", never_called))["lines"].append(4)

    assert copied(cache, "order")
    assert await cache.get("order") == {"lines": [1]}


CHANGES: dict[str, tuple[Callable[[CacheProtocol], Awaitable[Any]], object]] = {
    "set": (lambda cache: cache.set("n", 2), 2),
    "set_many": (lambda cache: cache.set_many({"m": 1, "n": 2}), 2),
    "increment": (lambda cache: cache.increment("n", by=5), 6),
    "delete": (lambda cache: cache.delete("n"), None),
    "delete_many": (lambda cache: cache.delete_many(["m", "n"]), None),
    "clear": (lambda cache: cache.clear(), None),
    "expire": (lambda cache: cache.expire("n", 0.001), None),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_by_another_process_is_seen(on_valkey: OpenCache, change: str) -> None:
    one, other = on_valkey(local_seconds=FOR_LONG), on_valkey()
    do, afterwards = CHANGES[change]
    await one.set("n", 1)
    assert await copy(one, "n") == 1

    await do(other)

    await eventually(sees(one, "n", afterwards))


async def test_a_change_of_a_long_key_is_seen(on_valkey: OpenCache) -> None:
    one, other, key = on_valkey(local_seconds=FOR_LONG), on_valkey(), "ключ" * 1000
    await one.set(key, 1)
    await copy(one, key)

    await other.set(key, 2)

    await eventually(sees(one, key, 2))


async def test_that_a_server_was_flushed_is_seen(opened: OpenCache) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, local_seconds=FOR_LONG)
        await cache.set("n", 1)
        await copy(cache, "n")
        async with Redis.from_url(server.url) as raw:
            await raw.flushall()

        await eventually(sees(cache, "n", None))


async def test_a_change_by_a_real_second_process_is_seen(on_valkey: OpenCache, valkey_url: str) -> None:
    cache = on_valkey(local_seconds=FOR_LONG, namespace="test-two-processes")
    await cache.set("n", 1)
    await copy(cache, "n")
    program = f"""
import asyncio
from src.cache import open_cache
from src.config import CacheSettings, Settings
settings = CacheSettings(url={valkey_url!r}, namespace="test-two-processes", timeout_seconds=10)
asyncio.run(open_cache(Settings(cache=settings)).set("n", 2))
"""

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=PIPE)
    _, said = await process.communicate()

    assert process.returncode == 0, said.decode()
    await eventually(sees(cache, "n", 2))
    await cache.clear()


@pytest.mark.parametrize("change", CHANGES)
async def test_a_process_reads_its_own_writes_at_once(on_valkey: OpenCache, change: str) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    do, afterwards = CHANGES[change]
    await deaf(cache)
    await cache.set("n", 1)
    await cache.get("n")
    assert copied(cache, "n")

    await do(cache)

    if change == "expire":
        await eventually(sees(cache, "n", afterwards))
    assert await cache.get("n") == afterwards


async def test_a_write_that_failed_leaves_no_copy(opened: OpenCache) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, timeout_seconds=0.2)
        await put(cache, "n", 1)
        await deaf(cache)
        await copy(cache, "n")
        with server.stalled():
            await cache.set("n", 2)

            assert not copied(cache, "n")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_reads_during_a_write_does_not_read_past_it(on_valkey: OpenCache, when: str) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    assert isinstance(cache, RedisCache)
    ask, under_way, go_on = cache._ask, asyncio.Event(), asyncio.Event()

    async def hold(*command: bytes | str | int) -> Any:
        if command[0] != "SET":
            return await ask(*command)
        if when == "after":
            await ask(*command)
        under_way.set()
        await go_on.wait()
        return await ask(*command)

    await cache.set("n", 1)
    await deaf(cache)
    assert await cache.get("n") == 1
    cache._ask = hold  # type: ignore[method-assign] # a planted race
    writing = asyncio.create_task(cache.set("n", 2))
    await under_way.wait()

    during = await cache.get("n")
    go_on.set()
    await writing

    assert during == (1 if when == "before" else 2)
    assert await cache.get("n") == 2


def holding_back(cache: CacheProtocol) -> tuple[asyncio.Event, asyncio.Event]:
    """The next value that is fetched is held back: when it is there, and to let it go on."""
    assert isinstance(cache, RedisCache)
    ask, fetched, go_on = cache._ask, asyncio.Event(), asyncio.Event()

    async def hold(*command: bytes | str | int) -> Any:
        answer = await ask(*command)
        if command[0] == "EVAL" and not fetched.is_set():
            fetched.set()
            await go_on.wait()
        return answer

    cache._ask = hold  # type: ignore[method-assign] # a planted race
    return fetched, go_on


@pytest.mark.parametrize("invalidate", ["set", "clear"])
async def test_a_value_that_another_process_changed_while_it_was_fetched_is_not_kept(
    on_valkey: OpenCache, invalidate: str
) -> None:
    one, other = on_valkey(local_seconds=FOR_LONG), on_valkey()
    await one.set("n", 1)
    tier = await open_first_tier(one)
    await copy(one, "n")  # so the word of the first set has come
    tier.forget(None)
    fetched, go_on = holding_back(one)
    asked = asyncio.create_task(one.get("n"))
    await fetched.wait()

    do, afterwards = CHANGES[invalidate]
    await do(other)

    async def is_heard() -> bool:
        return not tier._fills

    await eventually(is_heard)
    go_on.set()
    assert await asked == 1
    assert not copied(one, "n")
    assert await one.get("n") == afterwards


@pytest.mark.parametrize("change", ["set", "delete", "clear"])
async def test_a_value_that_this_process_changed_while_it_was_fetched_is_not_kept(
    on_valkey: OpenCache, change: str
) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    await deaf(cache)
    await cache.set("n", 1)
    fetched, go_on = holding_back(cache)
    asked = asyncio.create_task(cache.get("n"))
    await fetched.wait()

    do, afterwards = CHANGES[change]
    await do(cache)
    go_on.set()

    assert await asked == 1
    assert await cache.get("n") == afterwards


async def test_a_value_that_was_loaded_follows_the_copy_of_one_that_is_gone(on_valkey: OpenCache, raw: Redis) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    assert isinstance(cache, RedisCache)
    tier = await deaf(cache)

    async def load() -> str:
        # Another process set, this one read, and the other deleted; of that nothing is heard here.
        with tier.fill({"n": cache._entry("n")}) as keep:
            keep("n", b'"of the other"', 60)
        return "loaded"

    assert await cache.get_or_set("n", load) == "loaded"

    assert await cache.get("n") == "loaded"


async def test_a_copy_never_outlives_the_entry(on_valkey: OpenCache, raw: Redis) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    assert isinstance(cache, RedisCache)
    await deaf(cache)
    await cache.set("n", 1, ttl=0.3)
    await cache.get("n")
    assert copied(cache, "n")

    left = 1
    while left > 0:
        left = await raw.pttl(cache._entry("n"))
        if left <= 0:
            assert not copied(cache, "n")


async def test_an_entry_that_never_ends_is_copied_too(on_valkey: OpenCache, raw: Redis) -> None:
    cache = on_valkey()
    assert isinstance(cache, RedisCache)
    await deaf(cache)
    await raw.set(cache._entry("n"), b"1")

    await cache.get("n")

    assert copied(cache, "n")
    await cache.delete("n")


@pytest.mark.parametrize("key", ["", "\ud800"], ids=ascii)
async def test_a_key_that_no_server_could_store_is_refused_with_copies_too(on_valkey: OpenCache, key: str) -> None:
    cache = on_valkey()
    await open_first_tier(cache)

    for call in (cache.get(key), cache.get_many([key]), cache.get_or_set(key, never_called)):
        with pytest.raises(ValueError, match=r"empty|surrogates"):
            await call


async def test_without_seconds_there_are_no_copies(opened: OpenCache) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url, local_seconds=0)
        await cache.set("n", 1)
        for _ in range(10):
            assert await cache.get("n") == 1
        async with Redis.from_url(server.url) as raw:
            assert await raw.client_list(_type="pubsub") == []

        assert not first_tier(cache).is_open()
        assert not copied(cache, "n")


async def test_a_process_that_only_writes_listens_to_nothing(opened: OpenCache) -> None:
    with own_valkey() as server:
        cache = opened(url=server.url)
        for number in range(10):
            await cache.set("n", number)
            await cache.increment("m")
        async with Redis.from_url(server.url) as raw:
            assert await raw.client_list(_type="pubsub") == []


async def test_counters_and_locks_of_other_services_are_not_heard_of(on_valkey: OpenCache) -> None:
    cache, neighbour = on_valkey(local_seconds=FOR_LONG), on_valkey(namespace="neighbour")
    assert isinstance(cache, RedisCache)
    tier = await open_first_tier(cache)
    heard: list[bytes] = []
    forget = tier.forget

    def listen(names: Any) -> None:
        heard.extend(names or [])
        forget(names)

    tier.forget = listen  # type: ignore[method-assign] # looks on
    await neighbour.set("n", 1)
    await cache._ask("SET", cache._lock(cache._entry("n")), "token", "PX", 1)
    await cache._ask("SET", cache._entry("last"), "1", "PX", 1)

    async def is_heard() -> bool:
        return cache._entry("last") in heard

    await eventually(is_heard)
    assert set(heard) == {cache._entry("last")}
    await neighbour.clear()


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_is_cut_takes_the_copies_along(opened: OpenCache) -> None:
    with own_valkey() as server:
        one, other = (opened(url=server.url, local_seconds=FOR_LONG) for _ in range(2))
        await one.set("n", 1)
        await copy(one, "n")
        first_tier(one).trust_until(inf)  # not only because no heart beats
        async with Redis.from_url(server.url) as raw:
            assert await raw.client_kill_filter(_type="pubsub") == 1

        await eventually(closed(one))
        await other.set("n", 2)

        assert await one.get("n") == 2
        await copy(one, "n")  # it listens again
        await other.set("n", 3)
        await eventually(sees(one, "n", 3))


@pytest.mark.usefixtures("quick")
async def test_a_server_that_stalls_closes_the_first_tier(opened: OpenCache) -> None:
    with own_valkey() as server:
        one, other = (
            opened(url=server.url, local_seconds=FOR_LONG, timeout_seconds=0.2, breaker_seconds=0.05) for _ in range(2)
        )
        await put(one, "n", 1)
        await copy(one, "n")
        with server.stalled():
            await eventually(closed(one))
            assert await one.get("n") is None

        await put(other, "n", 2)
        await eventually(sees(one, "n", 2))
        assert await copy(one, "n") == 2


@pytest.mark.usefixtures("quick")
async def test_a_server_that_was_restarted_brings_no_copy_back(opened: OpenCache) -> None:
    with reserved_port() as port:
        cache = opened(url=f"redis://127.0.0.1:{port}/0", local_seconds=FOR_LONG, breaker_seconds=0.05)
        with own_valkey(port):
            await cache.set("n", 1)
            await copy(cache, "n")
            first_tier(cache).trust_until(inf)
        await eventually(closed(cache))
        assert await cache.get("n") is None

        with own_valkey(port):
            await eventually(cache.ping)
            assert await cache.get("n") is None
            await cache.set("n", 2)
            assert await copy(cache, "n") == 2


@pytest.mark.usefixtures("quick")
async def test_a_process_that_was_busy_does_not_believe_what_it_did_not_hear(
    on_valkey: OpenCache, valkey_url: str
) -> None:
    cache = on_valkey(local_seconds=FOR_LONG, timeout_seconds=0.2)
    assert isinstance(cache, RedisCache)
    await put(cache, "n", 1)
    await copy(cache, "n")
    with SyncRedis.from_url(valkey_url) as other:
        other.set(cache._entry("n"), b"2", ex=60)

    time.sleep(0.3)  # noqa: ASYNC251 - the word has come, and nobody had time to read it

    assert not copied(cache, "n")
    await eventually(sees(cache, "n", 2))


class Gate:
    """What stands between a cache and its server, and can lose the connection on which it hears of changes."""

    def __init__(self) -> None:
        self.holds_back = False
        self.url = ""


@asynccontextmanager
async def gate(server_url: str, *, holds_back: bool = False) -> AsyncIterator[Gate]:
    gate, address = Gate(), urlsplit(server_url)
    gate.holds_back = holds_back
    open_ones: set[asyncio.StreamWriter] = set()

    async def let_through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        open_ones.add(server_writer)
        listens = lost = False

        async def up() -> None:
            nonlocal listens
            while sent := await reader.read(65_536):
                listens = listens or b"SUBSCRIBE" in sent
                server_writer.write(sent)

        async def down() -> None:
            nonlocal lost
            while told := await server_reader.read(65_536):
                lost = lost or (listens and gate.holds_back and b"subscribe" not in told)
                if not lost:
                    writer.write(told)

        with suppress(OSError):
            await asyncio.wait([asyncio.create_task(up()), asyncio.create_task(down())], return_when="FIRST_COMPLETED")
        writer.close()
        server_writer.close()

    server = await asyncio.start_server(let_through, "127.0.0.1", 0)
    gate.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield gate
    finally:
        for writer in open_ones:
            writer.close()
        server.close()


async def test_a_listener_that_is_cut_off_is_believed_for_a_heartbeat_at_most(
    opened: OpenCache, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "HEARTBEAT_SECONDS", 0.2)
    async with gate(valkey_url) as between:
        one = opened(url=between.url, namespace="test-gate", local_seconds=FOR_LONG, timeout_seconds=0.5)
        other = opened(url=valkey_url, namespace="test-gate")
        await put(one, "n", 1)
        await copy(one, "n")
        between.holds_back = True
        await other.set("n", 2)

        async with asyncio.timeout(5):
            await eventually(sees(one, "n", 2))
        between.holds_back = False
        assert await copy(one, "n") == 2  # over another connection, for that one is lost
        await one.close()


async def test_a_server_that_agrees_to_tell_and_does_not_is_not_believed(opened: OpenCache, valkey_url: str) -> None:
    async with gate(valkey_url, holds_back=True) as between:
        cache = opened(url=between.url, namespace="test-gate", local_seconds=FOR_LONG)
        await cache.set("n", 1)
        assert await cache.get("n") == 1
        async with Redis.from_url(valkey_url) as raw:

            async def is_probed() -> bool:
                return bool(await raw.client_list(_type="pubsub"))

            await eventually(is_probed)
        for _ in range(20):
            assert await cache.get("n") == 1

        assert not first_tier(cache).is_open()
        await cache.close()


@pytest.mark.parametrize("forbidden", ["-client|tracking", "-eval", "resetchannels"])
async def test_a_server_that_refuses_to_tell_is_used_without_copies(
    opened: OpenCache, log_lines: list[str], forbidden: str
) -> None:
    with own_valkey() as server:
        async with Redis.from_url(server.url) as raw:
            rules = ["on", ">s3cret", "~*", "&*", "+@all", forbidden]
            await raw.execute_command("ACL", "SETUSER", "app", *rules)  # type: ignore[no-untyped-call] # redis-py leaves it bare
        cache = opened(url=server.url.replace("//", "//app:s3cret@"), local_seconds=FOR_LONG)
        await cache.set("n", 1)

        async def is_told() -> bool:
            assert await cache.get("n") == 1
            return bool(log_lines)

        await eventually(is_told)
        for _ in range(20):
            assert await cache.get("n") == 1

    assert [line.split()[0] for line in log_lines] == ["WARNING"]
    assert "s3cret" not in log_lines[0]


async def test_copies_end_with_the_loop_that_made_them(on_valkey: OpenCache) -> None:
    cache = on_valkey(local_seconds=FOR_LONG)
    await cache.set("n", 1)
    tier = await open_first_tier(cache)
    await copy(cache, "n")

    await cache.close()

    assert not tier.is_open()
    assert tier.find("n") is None
    assert await cache.get("n") == 1


def keep(tier: FirstTier, key: str, written: bytes = b"1", seconds: float = inf) -> None:
    with tier.fill({key: key.encode()}) as keep_one:
        keep_one(key, written, seconds)


def test_a_copy_lives_as_long_as_its_entry_and_no_longer_than_the_settings_say() -> None:
    clock = Clock()
    tier = FirstTier(10, 5, clock)
    tier.trust_until(inf)
    keep(tier, "short", seconds=2)
    keep(tier, "long", seconds=100)

    found = []
    for clock.now in (101.999, 102, 104.999, 105):
        found.append([tier.find("short"), tier.find("long")])

    assert found == [[b"1", b"1"], [None, b"1"], [None, b"1"], [None, None]]


def test_the_life_of_a_copy_counts_from_before_it_was_fetched() -> None:
    clock = Clock()
    tier = FirstTier(10, 5, clock)
    tier.trust_until(inf)
    with tier.fill({"n": b"n"}) as keep_one:
        clock.now += 3
        keep_one("n", b"1", 60)

    clock.now += 2

    assert tier.find("n") is None


def test_nothing_is_found_when_trust_has_run_out() -> None:
    clock = Clock()
    tier = FirstTier(10, 60, clock)
    keep(tier, "n")
    before = tier.find("n")
    tier.trust_until(101)
    while_trusted = tier.find("n")
    clock.now = 101

    assert [before, while_trusted, tier.find("n")] == [None, b"1", None]
    assert not tier.is_open()


def test_what_was_fetched_while_the_tier_closed_and_opened_again_is_not_kept() -> None:
    tier = FirstTier(10, 60, Clock())
    tier.trust_until(inf)
    with tier.fill({"n": b"n"}) as keep_one:
        tier.close()
        tier.trust_until(inf)
        keep_one("n", b"1", 60)

    assert tier.find("n") is None


def test_of_those_who_fetch_at_once_one_keeps_it() -> None:
    tier = FirstTier(10, 60, Clock())
    tier.trust_until(inf)
    with tier.fill({"n": b"n"}) as first, tier.fill({"n": b"n"}):
        first("n", b"1", 60)

    assert tier.find("n") == b"1"
    assert tier._fills == {}


def test_a_fetch_that_fails_leaves_nothing_behind() -> None:
    tier = FirstTier(10, 60, Clock())
    tier.trust_until(inf)
    with suppress(OSError), tier.fill({"n": b"n"}):
        raise OSError

    assert tier._fills == {}


def test_the_oldest_copies_make_room() -> None:
    tier = FirstTier(3, 60, Clock())
    tier.trust_until(inf)
    for key in "abcad":
        keep(tier, key)

    assert [tier.find(key) for key in "abcd"] == [b"1", None, b"1", b"1"]
    assert len(tier._keys) == len(tier._copies) == 3


def test_copies_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_tier_module, "MAX_BYTES", 100)
    tier = FirstTier(1000, 60, Clock())
    tier.trust_until(inf)
    for number in range(100):
        keep(tier, f"{number:02}", b"x" * 18)
        keep(tier, "same", b"y" * 16)
        assert tier._bytes <= 100
    assert [tier.find(key) is not None for key in ("95", "96", "97", "98", "99", "same")] == [False, *[True] * 5]

    keep(tier, "too long", b"x" * 26)

    assert tier.find("too long") is None
    assert tier.find("same") is not None
    tier.forget(None)
    assert tier._bytes == 0

"""What CacheProtocol promises, asked of both caches."""

import asyncio
import gc
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel

from src.cache import CacheProtocol
from tests.support.waiting import eventually

FALSY = [0, 0.0, "", False, [], {}]
AWKWARD_KEYS = [
    " ",
    "a b\r\nc",
    "*",
    "[a-z]?",
    "{x}",
    "\x00",
    "ключ",
    "🗝️",
    "e\u0301",
    "k" * 256,
    "k" * 257,
    "k" * 100_000,
    "h:" + "0" * 64,
    "l:x",
]


class Price(BaseModel):
    amount: int


class Loader:
    """Counts its calls and answers when it is let go."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.called.set()
        await self.go_on.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def at_once(answer: Any) -> Loader:
    loader = Loader(answer)
    loader.go_on.set()
    return loader


async def test_what_is_set_is_got(cache: CacheProtocol) -> None:
    await cache.set("order:1", {"total": 250, "lines": [{"sku": "a", "price": 1.5}], "note": None})

    assert await cache.get("order:1") == {"total": 250, "lines": [{"sku": "a", "price": 1.5}], "note": None}


async def test_the_absent_is_none(cache: CacheProtocol) -> None:
    assert await cache.get("order:1") is None
    assert not await cache.exists("order:1")
    assert await cache.ttl("order:1") is None
    assert not await cache.expire("order:1", 10)


@pytest.mark.parametrize("value", FALSY, ids=repr)
async def test_a_falsy_value_is_a_value(cache: CacheProtocol, value: Any) -> None:
    loader = at_once("loaded")
    await cache.set("empty", value)

    got = await cache.get("empty")

    assert got == value
    assert type(got) is type(value)
    assert await cache.exists("empty")
    assert await cache.get_or_set("empty", loader) == value
    assert loader.calls == 0


async def test_a_stored_none_exists(cache: CacheProtocol) -> None:
    loader = at_once(None)

    assert await cache.get_or_set("nobody", loader) is None
    assert await cache.get_or_set("nobody", loader) is None

    assert loader.calls == 1
    assert await cache.get("nobody") is None
    assert await cache.exists("nobody")
    assert await cache.get_many(["nobody", "absent"]) == {"nobody": None}


async def test_a_later_set_replaces_the_value(cache: CacheProtocol) -> None:
    await cache.set("n", 1)
    await cache.set("n", [2])

    assert await cache.get("n") == [2]


async def test_delete_says_whether_there_was_something(cache: CacheProtocol) -> None:
    await cache.set("n", None)

    assert await cache.delete("n") is True
    assert await cache.delete("n") is False
    assert not await cache.exists("n")


async def test_nobody_else_can_change_what_is_stored(cache: CacheProtocol) -> None:
    given: dict[str, list[int]] = {"lines": [1]}
    await cache.set("order", given)
    loaded = await cache.get_or_set("loaded", at_once(given))

    given["lines"].append(2)
    loaded["lines"].append(3)
    (await cache.get("order"))["lines"].append(4)
    (await cache.get_many(["order"]))["order"]["lines"].append(5)

    assert await cache.get("order") == {"lines": [1]}
    assert await cache.get("loaded") == {"lines": [1]}


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {"tags": {"a"}},
        b"bytes",
        b"\xff",
        datetime(2026, 1, 1, tzinfo=UTC),
        Decimal("1.10"),
        uuid4(),
        Price(amount=1),
        object(),
        {1: "a"},
        {None: "a"},
        float("nan"),
        [float("inf")],
        "\ud800",
        {"\ud800": 1},
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_that_json_would_change_is_refused(cache: CacheProtocol, value: Any) -> None:
    await cache.set("n", "before")

    with pytest.raises(TypeError):
        await cache.set("n", value)
    with pytest.raises(TypeError):
        await cache.set_many({"m": 1, "n": value})
    with pytest.raises(TypeError):
        await cache.get_or_set("o", at_once(value))

    assert await cache.get_many(["n", "m", "o"]) == {"n": "before"}


async def test_a_value_without_end_is_refused(cache: CacheProtocol) -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    for value in (endless, deep):
        with pytest.raises(TypeError):
            await cache.set("n", value)


async def test_keys_of_any_text_stay_apart(cache: CacheProtocol) -> None:
    await cache.set_many({key: number for number, key in enumerate(AWKWARD_KEYS)})
    await cache.set(AWKWARD_KEYS[-1], "last")

    assert [await cache.get(key) for key in AWKWARD_KEYS] == [*range(len(AWKWARD_KEYS) - 1), "last"]
    assert await cache.get("\u00e9") is None
    assert await cache.get("k" * 100_001) is None


async def test_a_long_key_is_not_mistaken_for_its_digest(cache: CacheProtocol) -> None:
    long = "k" * 1000
    await cache.set(long, "long")
    await cache.set(sha256(long.encode()).hexdigest(), "digest")

    assert await cache.get(long) == "long"


@pytest.mark.parametrize("key", ["", "\ud800"], ids=ascii)
async def test_a_key_that_no_server_could_store_is_refused(cache: CacheProtocol, key: str) -> None:
    for call in (cache.get(key), cache.set(key, 1), cache.delete(key), cache.increment(key), cache.get_many([key])):
        with pytest.raises(ValueError, match=r"empty|surrogates"):
            await call


async def test_an_entry_leaves_at_the_end_of_its_ttl(cache: CacheProtocol) -> None:
    await cache.set("n", 1, ttl=0.05)
    await cache.set_many({"m": 1}, ttl=0.05)
    await cache.get_or_set("o", at_once(1), ttl=0.05)
    await cache.increment("p", ttl=0.05)

    async def gone() -> bool:
        return not await cache.get_many(["n", "m", "o", "p"])

    await eventually(gone)
    assert not await cache.exists("n")
    assert await cache.ttl("n") is None
    assert not await cache.delete("n")


async def test_an_entry_without_a_ttl_lives_as_long_as_the_settings_say(cache: CacheProtocol) -> None:
    await cache.set("n", 1)

    left = await cache.ttl("n")

    assert left is not None
    assert 260 < left <= 300


async def test_expire_gives_a_new_ttl(cache: CacheProtocol) -> None:
    await cache.set("n", 1, ttl=1000)

    assert await cache.expire("n", 20) is True

    left = await cache.ttl("n")
    assert left is not None
    assert left <= 20
    assert await cache.get("n") == 1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e12])
async def test_a_ttl_that_is_none_is_refused(cache: CacheProtocol, ttl: float) -> None:
    for call in (
        cache.set("n", 1, ttl=ttl),
        cache.set_many({"n": 1}, ttl=ttl),
        cache.get_or_set("n", at_once(1), ttl=ttl),
        cache.increment("n", ttl=ttl),
        cache.expire("n", ttl),
    ):
        with pytest.raises(ValueError, match="ttl"):
            await call

    assert not await cache.exists("n")


async def test_many_are_got_set_and_deleted_together(cache: CacheProtocol) -> None:
    await cache.set_many({"a": 1, "b": None, "c": [3]})

    assert await cache.get_many(["c", "a", "x", "a"]) == {"c": [3], "a": 1}
    assert await cache.delete_many(["a", "b", "x"]) == 2
    assert await cache.get_many(["a", "b", "c"]) == {"c": [3]}


async def test_many_may_be_none(cache: CacheProtocol) -> None:
    await cache.set_many({})

    assert await cache.get_many([]) == {}
    assert await cache.delete_many([]) == 0


async def test_clear_leaves_nothing(cache: CacheProtocol) -> None:
    await cache.set_many({f"n:{number}": number for number in range(2500)})

    await cache.clear()

    assert await cache.get_many([f"n:{number}" for number in range(2500)]) == {}


async def test_increments_are_not_lost(cache: CacheProtocol) -> None:
    sums = await asyncio.gather(*(cache.increment("n") for _ in range(100)))

    assert sorted(sums) == list(range(1, 101))
    assert await cache.get("n") == 100
    assert await cache.increment("n", by=-150) == -50


async def test_a_counter_starts_from_what_was_set(cache: CacheProtocol) -> None:
    await cache.set("n", 2**62)

    assert await cache.increment("n", by=5) == 2**62 + 5


async def test_an_increment_does_not_prolong_the_life(cache: CacheProtocol) -> None:
    await cache.increment("n", ttl=20)

    await cache.increment("n", ttl=1000)

    left = await cache.ttl("n")
    assert left is not None
    assert 10 < left <= 20


@pytest.mark.parametrize("held", ["5", 5.0, True, None, [], 2**63, -(2**63) - 1], ids=repr)
async def test_what_is_no_64_bit_integer_cannot_be_counted(cache: CacheProtocol, held: Any) -> None:
    await cache.set("n", held)

    with pytest.raises(ValueError, match="64-bit"):
        await cache.increment("n")

    assert await cache.get("n") == held


@pytest.mark.parametrize(("held", "by"), [(2**63 - 1, 1), (-(2**63), -1), (None, 2**63)])
async def test_a_sum_that_does_not_fit_is_refused_and_not_stored(
    cache: CacheProtocol, held: int | None, by: int
) -> None:
    if held is not None:
        await cache.set("n", held)

    with pytest.raises(ValueError, match="64-bit"):
        await cache.increment("n", by=by)

    assert await cache.get("n") == held
    assert await cache.exists("n") is (held is not None)


async def test_fifty_who_ask_at_once_cause_one_load(cache: CacheProtocol) -> None:
    loader = Loader({"total": 1})
    asked = [asyncio.create_task(cache.get_or_set("stats", loader)) for _ in range(50)]
    await loader.called.wait()

    loader.go_on.set()

    assert await asyncio.gather(*asked) == [{"total": 1}] * 50
    assert loader.calls == 1
    assert await cache.get("stats") == {"total": 1}


async def test_those_who_waited_get_copies_of_their_own(cache: CacheProtocol) -> None:
    loader = Loader([])
    asked = [asyncio.create_task(cache.get_or_set("stats", loader)) for _ in range(3)]
    await loader.called.wait()
    loader.go_on.set()

    first, *others = await asyncio.gather(*asked)
    first.append("changed")

    assert others == [[], []]


async def test_a_load_that_fails_fails_for_those_who_wait_and_for_nobody_later(cache: CacheProtocol) -> None:
    failing = Loader(LookupError("no such order"))
    await asyncio.gather(*(cache.exists("order") for _ in range(10)))  # each has a connection from now on
    asked = [asyncio.create_task(cache.get_or_set("order", failing)) for _ in range(10)]
    await failing.called.wait()
    await cache.exists("order")  # answered behind those who have looked: all ten wait
    failing.go_on.set()

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(answer) for answer in answers] == [LookupError] * 10
    assert failing.calls == 1
    assert not await cache.exists("order")
    assert await cache.get_or_set("order", at_once("found")) == "found"


async def test_a_load_that_fails_for_its_only_caller_is_not_reported_twice(cache: CacheProtocol) -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))

    with pytest.raises(LookupError):
        await cache.get_or_set("order", at_once(LookupError()))

    gc.collect()
    assert reports == []


async def test_who_is_cancelled_while_loading_takes_nobody_along(cache: CacheProtocol) -> None:
    cancelled, next_one = Loader("first"), at_once("second")
    first = asyncio.create_task(cache.get_or_set("stats", cancelled))
    await cancelled.called.wait()
    others = [asyncio.create_task(cache.get_or_set("stats", next_one)) for _ in range(10)]

    first.cancel()

    assert await asyncio.gather(*others) == ["second"] * 10
    assert next_one.calls == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_is_cancelled_while_waiting_disturbs_nobody(cache: CacheProtocol) -> None:
    loader = Loader("loaded")
    first = asyncio.create_task(cache.get_or_set("stats", loader))
    await loader.called.wait()
    waiting = asyncio.create_task(cache.get_or_set("stats", loader))
    for _ in range(3):
        await cache.ping()  # gives the waiting one its turn

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    loader.go_on.set()

    assert await first == "loaded"
    assert loader.calls == 1


@pytest.mark.parametrize("invalidate", ["delete", "delete_many", "clear"])
async def test_a_load_that_began_before_an_invalidation_is_not_stored(cache: CacheProtocol, invalidate: str) -> None:
    stale = Loader("stale")
    asked = asyncio.create_task(cache.get_or_set("order", stale))
    await stale.called.wait()

    if invalidate == "delete":
        await cache.delete("order")
    elif invalidate == "delete_many":
        await cache.delete_many(["order"])
    else:
        await cache.clear()
    stale.go_on.set()

    assert await asked == "stale"
    assert not await cache.exists("order")


async def test_who_asks_after_an_invalidation_does_not_join_a_load_from_before(cache: CacheProtocol) -> None:
    stale = Loader("stale")
    asked = asyncio.create_task(cache.get_or_set("order", stale))
    await stale.called.wait()

    await cache.delete("order")
    async with asyncio.timeout(10):
        fresh = await cache.get_or_set("order", at_once("fresh"))
    stale.go_on.set()

    assert [fresh, await asked, await cache.get("order")] == ["fresh", "stale", "fresh"]


async def test_a_load_does_not_overwrite_what_was_set_meanwhile(cache: CacheProtocol) -> None:
    stale = Loader("stale")
    asked = asyncio.create_task(cache.get_or_set("order", stale))
    await stale.called.wait()

    await cache.set("order", "set")
    stale.go_on.set()
    await asked

    assert await cache.get("order") == "set"


async def test_loads_of_different_keys_do_not_wait_for_each_other(cache: CacheProtocol) -> None:
    slow = Loader("slow")
    asked = asyncio.create_task(cache.get_or_set("slow", slow))
    await slow.called.wait()

    assert await cache.get_or_set("quick", at_once("quick")) == "quick"

    slow.go_on.set()
    await asked


async def test_a_load_may_load(cache: CacheProtocol) -> None:
    async def outer() -> list[str]:
        return [await cache.get_or_set("inner", at_once("inner"))]

    assert await cache.get_or_set("outer", outer) == ["inner"]


async def test_a_cache_can_be_used_again_after_it_was_closed(cache: CacheProtocol) -> None:
    await cache.set("n", 1)

    await cache.close()
    await cache.close()

    assert await cache.get("n") == 1
    assert await cache.ping()

"""A cache within the process, for one worker and for tests."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import Any, NamedTuple, TypeVar, cast

from src.cache.entries import decode, encode, entry_name, int64, life_ms
from src.cache.flights import Flights
from src.config import CacheSettings

T = TypeVar("T")

# Expired entries leave while others come, a few at a time: a thousand that expire together must not stop the loop.
SWEEP_AT_MOST = 16


class _Entry(NamedTuple):
    written: bytes
    expires_at: float


class MemoryCache:
    """The least recently used entry leaves when there are more than `max_entries`."""

    def __init__(self, settings: CacheSettings, clock: Callable[[], float] = monotonic) -> None:
        self._max_entries = settings.max_entries
        self._ttl_seconds = settings.ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._expiries: list[tuple[float, bytes]] = []  # a heap; what was overwritten or deleted is still in it
        self._flights = Flights()

    async def get(self, key: str) -> Any:  # Any: as in the protocol
        entry = self._find(entry_name(key))
        return None if entry is None else decode(entry.written)

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:  # Any: as in the protocol
        self._put(entry_name(key), encode(value), life_ms(ttl, self._ttl_seconds))

    async def delete(self, key: str) -> bool:
        return self._remove(entry_name(key))

    async def exists(self, key: str) -> bool:
        return self._find(entry_name(key)) is not None

    async def clear(self) -> None:
        self._entries.clear()
        self._expiries.clear()
        self._flights.forget_all()

    async def get_or_set(self, key: str, load: Callable[[], Awaitable[T]], ttl: float | None = None) -> T:
        name, life = entry_name(key), life_ms(ttl, self._ttl_seconds)

        async def load_written() -> bytes:
            # Whoever loads because another was cancelled may find that a third has already done so.
            entry = self._find(name)
            return encode(await load()) if entry is None else entry.written

        def keep(loaded: bytes) -> None:
            if self._find(name) is None:
                self._put(name, loaded, life)

        entry = self._find(name)
        written = await self._flights.join(name, load_written, keep) if entry is None else entry.written
        return cast("T", decode(written))  # equal to what was loaded, or it would not have been written

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:  # Any: as in the protocol
        entries = {key: self._find(entry_name(key)) for key in keys}
        return {key: decode(entry.written) for key, entry in entries.items() if entry is not None}

    async def set_many(self, values: Mapping[str, Any], ttl: float | None = None) -> None:  # Any: as in the protocol
        life = life_ms(ttl, self._ttl_seconds)
        # All are written down before the first is stored: a refusal leaves nothing behind.
        for name, written in [(entry_name(key), encode(value)) for key, value in values.items()]:
            self._put(name, written, life)

    async def delete_many(self, keys: Iterable[str]) -> int:
        return sum([self._remove(entry_name(key)) for key in keys])

    async def increment(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        name, life = entry_name(key), life_ms(ttl, self._ttl_seconds)
        entry = self._find(name)
        held = 0 if entry is None else int64(decode(entry.written))
        total = int64(held + int64(by))
        if entry is None:
            self._put(name, encode(total), life)
        else:
            self._entries[name] = entry._replace(written=encode(total))
        return total

    async def ttl(self, key: str) -> float | None:
        entry = self._find(entry_name(key))
        return None if entry is None else entry.expires_at - self._clock()

    async def expire(self, key: str, ttl: float) -> bool:
        name, life = entry_name(key), life_ms(ttl, self._ttl_seconds)
        entry = self._find(name)
        if entry is not None:
            self._put(name, entry.written, life)
        return entry is not None

    async def ping(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to give back."""

    def _find(self, name: bytes) -> _Entry | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            del self._entries[name]
            return None
        self._entries.move_to_end(name)
        return entry

    def _put(self, name: bytes, written: bytes, life: int) -> None:
        entry = _Entry(written, self._clock() + life / 1000)
        self._entries[name] = entry
        self._entries.move_to_end(name)
        heappush(self._expiries, (entry.expires_at, name))
        self._sweep()
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def _remove(self, name: bytes) -> bool:
        self._flights.forget(name)
        entry = self._entries.pop(name, None)
        return entry is not None and entry.expires_at > self._clock()

    def _sweep(self) -> None:
        now = self._clock()
        for _ in range(SWEEP_AT_MOST):
            if not self._expiries or self._expiries[0][0] > now:
                break
            _, name = heappop(self._expiries)
            entry = self._entries.get(name)
            if entry is not None and entry.expires_at <= now:
                del self._entries[name]
        if len(self._expiries) > 2 * self._max_entries:
            self._expiries = [(entry.expires_at, name) for name, entry in self._entries.items()]
            heapify(self._expiries)

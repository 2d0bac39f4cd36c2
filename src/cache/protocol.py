"""What a cache promises, whichever one it is."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class CacheUnavailableError(Exception):
    """The cache server does not answer. Only `increment` lets it through: a limiter must know that nobody counts."""


class CacheProtocol(Protocol):
    """JSON values under text keys, for a while.

    - A value is what JSON can say: dict with text keys, list, str, int of any size, finite float, bool, None. What is
      set is what is got, or `set` refuses it with TypeError. Each `get` returns a copy of its own.
    - A falsy value is a value. `get` says None for what is absent and for a stored None; `exists` tells them apart.
    - A key is any text but the empty one (ValueError); no normalisation.
    - A `ttl` is in seconds, fractions allowed, at most ten years; zero and less are refused with ValueError. Without
      one an entry lives for `settings.cache.ttl_seconds`. On a shared server `set`, `set_many` and `get_or_set` shorten
      it by up to 10 % at random, so that what was stored together does not expire together.
    - A process reads its own writes at once. What another one changed on a shared server may be read as it was for as
      long as the server's word of it is under way, most often less than a millisecond: what was read is kept in the
      process for up to `settings.cache.local_seconds`, and dropped at that word. While no word can come, because the
      connection or this process is stuck, what was kept is believed for a heartbeat and a time-out, about a second,
      and then not at all. `exists`, `ttl` and `increment` always ask the server.
    - An outage costs entries, never a request: reads find nothing, writes do nothing. An invalidation is lost with the
      rest, so an entry may be stale until its ttl: nothing that decides about security belongs here.
    """

    async def get(self, key: str) -> Any:  # Any: a JSON value, whose shape the caller knows
        """The value, or None."""

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None: ...  # Any: a JSON value

    async def delete(self, key: str) -> bool:
        """Whether there was something to delete. A load under way (`get_or_set`) is not stored any more."""

    async def exists(self, key: str) -> bool: ...

    async def clear(self) -> None:
        """Delete every entry of this service; on a shared server that reads all its keys."""

    async def get_or_set(self, key: str, load: Callable[[], Awaitable[T]], ttl: float | None = None) -> T:
        """The value, or what `load` returns, stored: one load at a time for a key, over all processes.

        Whoever comes meanwhile waits for that load and shares its result, or its exception; a failure is not stored.
        When the one who loads is cancelled, the next one loads. A load is not stored when `delete`, `clear` or `set`
        overtook it. A None is stored too.
        """

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:  # Any: JSON values
        """The entries that exist; a stored None is in it."""

    async def set_many(self, values: Mapping[str, Any], ttl: float | None = None) -> None: ...  # Any: JSON values

    async def delete_many(self, keys: Iterable[str]) -> int:
        """How many there were."""

    async def increment(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        """Add in one step and return the sum. The ttl counts from the first increment and is never shortened.

        Raises:
            CacheUnavailableError: nobody counted.
            ValueError: the entry holds no 64-bit integer, or the sum is none.
        """

    async def ttl(self, key: str) -> float | None:
        """Seconds left, None for what is absent."""

    async def expire(self, key: str, ttl: float) -> bool:
        """Give an entry a new ttl; whether there is one."""

    async def ping(self) -> bool:
        """Whether the cache works, for the readiness route."""

    async def close(self) -> None:
        """Give back the connections of the running event loop; the next call opens new ones."""

"""Values kept for a while: in the process, or on a Redis or Valkey server that all processes share."""

from typing import Annotated

from fastapi import Depends

from src.cache.memory import MemoryCache
from src.cache.protocol import CacheProtocol, CacheUnavailableError
from src.config import Settings, get_settings

__all__ = ["CacheDep", "CacheProtocol", "CacheUnavailableError", "close_cache", "get_cache", "open_cache"]

_opened: tuple[Settings, CacheProtocol] | None = None


async def get_cache() -> CacheProtocol:
    """The cache of the process, as `settings.cache` says; opened by the first who asks."""
    global _opened  # noqa: PLW0603 - the cache belongs to the process, as its settings do
    settings = get_settings()
    if _opened is None or _opened[0] is not settings:
        _opened = settings, open_cache(settings)
    return _opened[1]


CacheDep = Annotated[CacheProtocol, Depends(get_cache)]


def open_cache(settings: Settings) -> CacheProtocol:
    """A cache of one's own; no connection is made before the first call."""
    if settings.cache.url.startswith("memory:"):
        return MemoryCache(settings.cache)
    # Here, because redis costs 50 ms of start-up, which a process without a server does not pay.
    from src.cache.redis import RedisCache

    return RedisCache(settings.cache)


async def close_cache() -> None:
    """Close the cache of the process; the next `get_cache` opens a new one."""
    global _opened
    if _opened is not None:
        (_, cache), _opened = _opened, None
        await cache.close()

"""A cache on a Redis or Valkey server, shared by all processes of the service."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from secrets import token_bytes
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from src.cache.breaker import Breaker
from src.cache.changes import FAILURES, FETCH, Changes
from src.cache.entries import NAME_KINDS, NO_INT64, decode, encode, entry_name, int64, life_ms
from src.cache.first_tier import FirstTier
from src.cache.flights import Flights
from src.cache.protocol import CacheUnavailableError
from src.config import CacheSettings

T = TypeVar("T")
# Any in this module: what a caller stores, as in the protocol, and what the server answers, which depends on the command
Command = tuple[bytes | str | int, ...]

VERSION = "v1"
MAX_CONNECTIONS = 64
MAX_JITTER = 0.1
SCAN_COUNT = 1000
# A process that dies while it loads holds the others up for so long; one that lives renews its lock.
LOCK_MS = 2000
RENEW_SECONDS = 0.5
POLL_SECONDS = 0.025

# KEYS: lock, entry. ARGV: token, and what to store: value, life. Only the holder of the lock stores, for whoever
# deletes an entry takes its lock away too; and never over an entry, for somebody set it meanwhile.
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3], 'NX') end
return 1
"""


@dataclass(frozen=True, slots=True)
class _Connected:
    client: Redis
    tier: FirstTier
    changes: Changes
    keeper: AsyncGenerator[None, None]


class RedisCache:
    """What was read is kept in the process while the server tells of changes, see docs/decisions/0015.

    Each command has one deadline, from the wait for a connection to its answer; a failure opens the breaker.

    No Redis Cluster: an entry and its lock may lie in different slots there.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._url = settings.url.replace("valkey", "redis", 1) if settings.url.startswith("valkey") else settings.url
        self._timeout_seconds = settings.timeout_seconds
        self._ttl_seconds = settings.ttl_seconds
        self._local_seconds = settings.local_seconds
        self._max_entries = settings.max_entries
        self._prefix = f"{settings.namespace}:{VERSION}:".encode()
        self._breaker = Breaker(settings.breaker_seconds, FAILURES)
        self._flights = Flights()
        self._connected: dict[asyncio.AbstractEventLoop, _Connected] = {}
        self._new_client()  # a URL that cannot be read is refused here, at start

    async def get(self, key: str) -> Any:
        written = self._find(key) or (await self._fetch({key: self._entry(key)})).get(key)
        return None if written is None else decode(written)

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        entry, written, life = self._entry(key), encode(value), self._life_ms(ttl)
        with self._changing((entry,)):
            await self._ask_or(None, "SET", entry, written, "PX", life)

    async def delete(self, key: str) -> bool:
        return await self.delete_many((key,)) > 0

    async def exists(self, key: str) -> bool:
        return bool(await self._ask_or(0, "EXISTS", self._entry(key)))

    async def clear(self) -> None:
        self._flights.forget_all()
        cursor = None
        with suppress(CacheUnavailableError), self._changing(None):
            while cursor != 0:
                # No character of a namespace means anything in a pattern, see settings.cache.namespace.
                cursor, names = await self._ask("SCAN", cursor or 0, "MATCH", self._prefix + b"*", "COUNT", SCAN_COUNT)
                if names:
                    await self._ask("UNLINK", *names)

    async def get_or_set(self, key: str, load: Callable[[], Awaitable[T]], ttl: float | None = None) -> T:
        life, written = self._life_ms(ttl), self._find(key)
        if written is not None:
            return cast("T", decode(written))
        entry = self._entry(key)

        async def load_written() -> bytes:
            return encode(await load())

        written = (await self._fetch({key: entry})).get(key)
        if written is None:
            written = await self._flights.join(entry, lambda: self._load_alone(entry, load_written, life))
        return cast("T", decode(written))  # equal to what was loaded, or it would not have been written

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        found = {key: self._find(key) for key in keys}
        if missing := {key: self._entry(key) for key, written in found.items() if written is None}:
            found |= await self._fetch(missing)
        return {key: decode(written) for key, written in found.items() if written is not None}

    async def set_many(self, values: Mapping[str, Any], ttl: float | None = None) -> None:
        written = [(self._entry(key), encode(value)) for key, value in values.items()]
        commands: list[Command] = [("SET", entry, value, "PX", self._life_ms(ttl)) for entry, value in written]
        with suppress(CacheUnavailableError), self._changing([entry for entry, _ in written]):
            await self._ask_all(*commands)

    async def delete_many(self, keys: Iterable[str]) -> int:
        entries = [self._entry(key) for key in keys]
        for entry in entries:
            self._flights.forget(entry)
        if not entries:
            return 0
        with suppress(CacheUnavailableError), self._changing(entries):
            # The locks first, or a load that ends in between would be stored and stay.
            _, deleted = await self._ask_all(("UNLINK", *map(self._lock, entries)), ("UNLINK", *entries))
            return int(deleted)
        return 0

    async def increment(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        entry, life, step = self._entry(key), life_ms(ttl, self._ttl_seconds), int64(by)

        async def count(client: Redis) -> Any:
            pipeline = client.pipeline(transaction=True)
            pipeline.set(entry, 0, px=life, nx=True)
            pipeline.incrby(entry, step)
            try:
                return (await pipeline.execute())[1]
            except ResponseError as error:
                if "not an integer" in str(error) or "overflow" in str(error):
                    raise ValueError(NO_INT64) from None
                raise

        with self._changing((entry,)):
            return int(await self._attempt(count))

    async def ttl(self, key: str) -> float | None:
        left = await self._ask_or(-2, "PTTL", self._entry(key))
        return None if left < 0 else left / 1000

    async def expire(self, key: str, ttl: float) -> bool:
        entry, life = self._entry(key), life_ms(ttl, self._ttl_seconds)
        with self._changing((entry,)):
            return bool(await self._ask_or(0, "PEXPIRE", entry, life))

    async def ping(self) -> bool:
        return bool(await self._ask_or(False, "PING"))  # noqa: FBT003 - the answer of a server that is away

    async def close(self) -> None:
        connected = self._connected.get(asyncio.get_running_loop())
        if connected is not None:
            await connected.keeper.aclose()

    def _entry(self, key: str) -> bytes:
        return self._prefix + entry_name(key)

    def _lock(self, entry: bytes) -> bytes:
        return self._prefix + b"l:" + entry

    def _life_ms(self, ttl: float | None) -> int:
        life = life_ms(ttl, self._ttl_seconds)
        return max(1, round(life * random.uniform(1 - MAX_JITTER, 1)))  # noqa: S311 - spreads expiry, hides nothing

    def _find(self, key: str) -> bytes | None:
        connected = self._connected.get(asyncio.get_running_loop())
        return None if connected is None else connected.tier.find(key)

    async def _fetch(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """What exists of them on the server; it is found in the process from now on, if that may be."""
        with suppress(CacheUnavailableError):
            connected = await self._here()
            if not connected.tier.is_open():
                found = await self._ask("MGET", *entries.values())
                if self._local_seconds:
                    connected.changes.listen()
                return {key: written for key, written in zip(entries, found, strict=True) if written is not None}
            with connected.tier.fill(entries) as keep:
                answer = iter(await self._ask("EVAL", FETCH, len(entries), *entries.values()))
                held = {}
                for key, written, left_ms in zip(entries, answer, answer, strict=True):
                    if written is not None:
                        held[key] = written
                        # Whole milliseconds of what may have been a part of one; -1 is for ever.
                        keep(key, written, inf if left_ms < 0 else (left_ms - 1) / 1000)
                return held
        return {}

    @contextmanager
    def _changing(self, entries: Collection[bytes] | None) -> Iterator[None]:
        """Around a change of these entries, or of all: who asks in this process afterwards does not find what was.

        The server tells of it too, but on another connection, so perhaps later than it answers.
        """
        self._forget(entries)
        try:
            yield
        finally:
            self._forget(entries)

    def _forget(self, entries: Collection[bytes] | None) -> None:
        connected = self._connected.get(asyncio.get_running_loop())
        if connected is not None:
            connected.tier.forget(entries)

    async def _load_alone(self, entry: bytes, load: Callable[[], Awaitable[bytes]], life: int) -> bytes:
        """Load, unless another process does: then wait for what it stores."""
        lock, token = self._lock(entry), token_bytes(16)
        try:
            while True:
                # Both at once: whoever held the lock before may have stored just now.
                taken, written = await self._ask_all(
                    ("SET", lock, token, "PX", LOCK_MS, "NX"),
                    ("GET", entry),
                )
                if taken or written is not None:
                    break
                await asyncio.sleep(POLL_SECONDS)
        except CacheUnavailableError:
            return await load()
        if not taken:
            return cast("bytes", written)
        to_store: Command = ()
        renewal = asyncio.create_task(self._renew(lock))
        try:
            if written is None:
                written = await load()
                to_store = (written, life)
            return cast("bytes", written)
        finally:
            renewal.cancel()
            with self._changing((entry,)):
                await self._ask_or(None, "EVAL", RELEASE, 2, lock, entry, token, *to_store)

    async def _renew(self, lock: bytes) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            # Whoever took the lock after an invalidation renews it too, so it does not matter whose it is by now.
            await self._ask_or(None, "PEXPIRE", lock, LOCK_MS)

    async def _ask_or(self, without: Any, *command: bytes | str | int) -> Any:
        try:
            return await self._ask(*command)
        except CacheUnavailableError:
            return without

    async def _ask(self, *command: bytes | str | int) -> Any:
        async def execute(client: Redis) -> Any:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it bare

        return await self._attempt(execute)

    async def _ask_all(self, *commands: Command) -> list[Any]:
        """In one round trip, in this order; other clients may come in between."""

        async def execute(client: Redis) -> Any:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute()

        return cast("list[Any]", await self._attempt(execute))

    async def _attempt(self, ask: Callable[[Redis], Awaitable[Any]]) -> Any:
        with self._breaker.attempt():
            client, loop = (await self._here()).client, asyncio.get_running_loop()
            async with asyncio.timeout(None) as scope:
                due = loop.time() + self._timeout_seconds
                timer = loop.call_at(due, self._give_up, scope, due)
                try:
                    return await ask(client)
                finally:
                    timer.cancel()

    def _give_up(self, scope: asyncio.Timeout, due: float) -> None:
        # A timer that comes late tells of a busy process, not of a slow server: the answer may have come already. So
        # the time that was lost is given back, once and no more than a whole time-out.
        now = asyncio.get_running_loop().time()
        scope.reschedule(now + min(now - due, self._timeout_seconds))

    async def _here(self) -> _Connected:
        loop = asyncio.get_running_loop()
        return self._connected.get(loop) or await self._connect(loop)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connected:
        client, tier = self._new_client(), FirstTier(self._max_entries, self._local_seconds)
        kinds = [self._prefix + kind for kind in NAME_KINDS]
        changes = Changes(client, tier, kinds, self._timeout_seconds)
        keeper = self._keep(loop)
        connected = self._connected[loop] = _Connected(client, tier, changes, keeper)
        await anext(keeper)
        return connected

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        # Connections belong to an event loop. One that ends closes its generators (`asyncio.run` does, and each test
        # runner), and so this closes the connections of a loop whose owner forgot to.
        try:
            yield
        finally:
            connected = self._connected.pop(loop)
            await connected.changes.close()
            with suppress(*FAILURES):
                await connected.client.aclose(close_connection_pool=True)

    def _new_client(self) -> Redis:
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=None,
                # No time-out for each step: `_attempt` has one for the whole. This one is left for closing.
                socket_timeout=None,
                socket_connect_timeout=2 * self._timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                # RESP2 and no CLIENT SETINFO: a new connection costs no round trip before its first command.
                protocol=2,
                driver_info=None,
            )
            # Connects nowhere, but reads the options in the URL.
            pool.make_connection()  # type: ignore[no-untyped-call] # redis-py leaves it bare
        except (ValueError, TypeError):
            # Its own words could quote a password with an unescaped character in it.
            raise ValueError("CACHE__URL is not the URL of a Redis or Valkey server") from None
        return Redis(connection_pool=pool)

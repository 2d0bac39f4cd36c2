"""What a Redis or Valkey server tells about changes: client-side caching, as both call it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from loguru import logger
from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError, ResponseError

from src.cache.first_tier import FirstTier

# RuntimeError: what uvloop says to whoever writes to a connection that was lost in the same turn of the loop, where asyncio
# says nothing; redis-py hands it on.
FAILURES = (RedisError, OSError, RuntimeError)
CHANNEL = b"__redis__:invalidate"
HEARTBEAT_SECONDS = 1.0
REST_SECONDS = 1.0
REST_AFTER_REFUSAL_SECONDS = 60.0

# KEYS: entries. Value and life of each at one moment, and cheaper than a pipeline of GET and PTTL.
FETCH = """
local found = {}
for number, name in ipairs(KEYS) do
    found[2 * number - 1] = redis.call('GET', name)
    found[2 * number] = redis.call('PTTL', name)
end
return found
"""


class Changes:
    """Keeps a first tier true, and open for as long as the server is heard.

    One connection, for this alone: it is told the names of all entries that change (BCAST), so the server remembers
    nothing per client and the commands of the cache go over any connection. In RESP2 they come as messages of a channel
    (REDIRECT, to itself), which redis-py reads as it reads others, and for which the server's buffer has a bound.
    """

    def __init__(self, client: Redis, tier: FirstTier, prefixes: Sequence[bytes], timeout_seconds: float) -> None:
        self._client = client
        self._tier = tier
        self._prefixes = prefixes
        self._timeout_seconds = timeout_seconds
        self._listening: asyncio.Task[None] | None = None
        self._rest_until = 0.0

    def listen(self) -> None:
        """Begin, unless that is done already or failed just now. For those whom the server has answered.

        So nothing is tried in an outage, when the breaker lets nobody through, and nothing for who never reads.
        """
        if (self._listening is None or self._listening.done()) and monotonic() >= self._rest_until:
            self._listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait((self._listening,))

    async def _listen(self) -> None:
        rest_seconds = REST_SECONDS
        connection: Connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # redis-py leaves it bare
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS + self._timeout_seconds):
                begun_at = await self._begin(connection)
            await self._follow(connection, begun_at)
        except ResponseError as error:
            rest_seconds = REST_AFTER_REFUSAL_SECONDS
            logger.bind(reason=type(error).__name__).warning(
                "Cache server tells nothing of changes, no copies are kept"
            )
        except FAILURES:
            pass  # the breaker tells of outages
        finally:
            self._tier.close()
            self._rest_until = monotonic() + rest_seconds
            with suppress(*FAILURES):
                await connection.disconnect()

    async def _begin(self, connection: Connection) -> float:
        """Return when a change has been heard of, with the moment before it."""
        await connection.connect()  # type: ignore[no-untyped-call] # as above
        itself = await self._ask(connection, "CLIENT", "ID")
        prefixes = [word for prefix in self._prefixes for word in ("PREFIX", prefix)]
        await self._ask(connection, "CLIENT", "TRACKING", "ON", "REDIRECT", itself, "BCAST", *prefixes)
        await self._ask(connection, "SUBSCRIBE", CHANNEL)
        # Not every server or proxy that says OK means it. No key is empty, so this is nobody's entry.
        probe, begun_at = self._prefixes[0], monotonic()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(probe, b"", px=1000)
        pipeline.eval(FETCH, 1, probe)
        pipeline.unlink(probe)
        await pipeline.execute()
        while True:
            _, _, changed = await connection.read_response()
            if changed is not None and probe in changed:
                return begun_at

    async def _follow(self, connection: Connection, begun_at: float) -> None:
        """Forget what changes, and trust what is left for as long as the server says that this was all.

        It answers a PING on the same connection and after what it had to tell before. So nothing has to notice that it
        fell silent, nor that this process was too busy to listen: trust runs out by itself.
        """
        heard_at = begun_at
        asked_at: float | None = None
        self._tier.trust_until(heard_at + HEARTBEAT_SECONDS + self._timeout_seconds)
        while True:
            now = monotonic()
            if asked_at is None and now >= heard_at + HEARTBEAT_SECONDS:
                asked_at = now
                await connection.send_command("PING", check_health=False)
            due = heard_at + HEARTBEAT_SECONDS if asked_at is None else asked_at + self._timeout_seconds
            # What is overdue may have come while the process was busy: one more look, without waiting.
            reply = await connection.read_response(timeout=max(0.0, due - now))
            if reply is None:
                if asked_at is not None and now >= due:
                    return
            elif asked_at is not None and reply[0] == b"pong":
                heard_at, asked_at = asked_at, None
                self._tier.trust_until(heard_at + HEARTBEAT_SECONDS + self._timeout_seconds)
            else:
                self._tier.forget(reply[2])

    @staticmethod
    async def _ask(connection: Connection, *command: bytes | str | int) -> Any:  # Any: depends on the command
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()

"""One load at a time for a key, within a process."""

import asyncio
from collections.abc import Awaitable, Callable


class Flights:
    """Loads under way. The first to ask loads, in its own task and context; the others wait for it."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, asyncio.Future[bytes]] = {}

    async def join(
        self, name: bytes, load: Callable[[], Awaitable[bytes]], keep: Callable[[bytes], None] | None = None
    ) -> bytes:
        """What the load returns, for all who wait. It is kept unless `forget` overtook it."""
        while True:
            flight = self._under_way.get(name)
            if flight is None or flight.get_loop() is not asyncio.get_running_loop():
                return await self._lead(name, load, keep)
            # Not `await flight`: a waiter that is cancelled would cancel it for everybody.
            await asyncio.wait((flight,))
            if not flight.cancelled():
                return flight.result()

    def forget(self, name: bytes) -> None:
        """Whoever asks from now on does not join the load under way, and its result is not kept."""
        self._under_way.pop(name, None)

    def forget_all(self) -> None:
        self._under_way.clear()

    async def _lead(
        self, name: bytes, load: Callable[[], Awaitable[bytes]], keep: Callable[[bytes], None] | None
    ) -> bytes:
        flight = self._under_way[name] = asyncio.get_running_loop().create_future()
        try:
            loaded = await load()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # seen here, so that asyncio does not log it when nobody waits
            raise
        except BaseException:
            flight.cancel()
            raise
        else:
            flight.set_result(loaded)
            if keep is not None and self._under_way.get(name) is flight:
                keep(loaded)
            return loaded
        finally:
            if self._under_way.get(name) is flight:
                del self._under_way[name]

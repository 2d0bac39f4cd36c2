"""A wire that can be cut: a TCP proxy between the service and a server that it needs, in a thread of its own."""

import asyncio
import socket
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final, TypeVar

T = TypeVar("T")

_CHUNK_BYTES: Final = 65_536
_TICKS_PER_SECOND: Final = 50
_AT_ONCE_RST: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Way:
    """What becomes of connections, and of what is sent through them."""

    listens: bool = True
    """Else connections are refused, and those that are open are reset."""
    hangs_up: bool = False
    """Each new connection is accepted and closed at once, those that are open are reset: nobody stands behind it."""
    swallows: bool = False
    """Connections are accepted, and nothing arrives, nor that somebody hung up. Those that were open, or were opened
    meanwhile, lead nowhere for ever."""
    holds: bool = False
    """Nothing arrives until the way changes, and then all of it, as when a network comes together again."""
    reset_after_bytes: int | None = None
    """Of the answers on a connection, from the change on; then it is reset."""
    latency_seconds: float = 0
    """In each direction."""
    piece_bytes: int | None = None
    bytes_per_second: int | None = None
    """In each direction, of each connection."""


PASS: Final = Way()
DOWN: Final = Way(listens=False)
HANGS_UP: Final = Way(hangs_up=True)
BLACK_HOLE: Final = Way(swallows=True)
CUT: Final = Way(holds=True)


class _Link:
    """One connection, and the one behind it."""

    def __init__(self, near: asyncio.StreamWriter) -> None:
        self.near = near
        self.far: asyncio.StreamWriter | None = None
        self.lost = False
        self.answered_bytes = 0

    def writers(self) -> list[asyncio.StreamWriter]:
        return [self.near] if self.far is None else [self.near, self.far]

    def reset(self) -> None:
        for writer in self.writers():
            with suppress(OSError):  # it is closed already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE_RST)
            writer.transport.abort()


class Proxy:
    """Callable from any thread but its own."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        """Of new connections."""
        self.port = 0
        self.way = PASS
        self._loop = asyncio.new_event_loop()
        self._listener: socket.socket | None = None
        self._links: dict[_Link, None] = {}
        self._orphans: set[asyncio.StreamWriter] = set()
        """To the server, of clients that are gone: it is not told until the way changes, and keeps what they had."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def switch(self, way: Way, *, reset: bool = False) -> None:
        """From now on it is like this. `reset`: connections that lead nowhere are reset now; else nobody ever hears of it."""
        self._do(self._switch(way, reset=reset))

    def open_connections(self) -> int:
        """Of clients, as these see it."""

        async def count() -> int:
            return len(self._links)

        return self._do(count())

    def start(self) -> None:
        self._thread.start()
        self._do(self._switch(PASS, reset=False))

    def stop(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:  # Any: asyncio's own
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _switch(self, way: Way, *, reset: bool) -> None:
        self.way = way
        for link in list(self._links):
            link.answered_bytes = 0
            link.lost = link.lost or way.swallows
            if not way.listens or way.hangs_up or (reset and link.lost):
                link.reset()
        self._leave_orphans()
        if not way.listens:
            self._stop_listening()
        elif self._listener is None:
            self._listen()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _listen(self) -> None:
        # Not asyncio's own server, nor sock_accept(): ended while somebody connects, both lose a socket (Python 3.11).
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self._listener.settimeout(0)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _leave_orphans(self) -> None:
        for far in self._orphans:
            far.transport.abort()
        self._orphans.clear()

    async def _end(self) -> None:
        await self._switch(PASS, reset=True)
        self._stop_listening()
        while self._tasks:
            for link in list(self._links):
                link.reset()
            await asyncio.wait(self._tasks, timeout=0.1)
        await asyncio.sleep(0)  # what was reset closes its socket in the next turn

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return  # whoever knocked is gone
        accepted.settimeout(0)
        task = self._loop.create_task(self._serve(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        link = _Link(writer)
        self._links[link] = None
        try:
            await self._connect(link, reader)
        except OSError:
            pass  # one of the two is gone: so is the other
        finally:
            del self._links[link]
            link.near.close()
            if link.far is not None:
                if self.way.swallows:
                    self._orphans.add(link.far)
                else:
                    link.far.close()

    async def _connect(self, link: _Link, reader: asyncio.StreamReader) -> None:
        if self.way.hangs_up or not self.way.listens:
            return
        link.lost = self.way.swallows
        if link.lost:
            await self._pump(link, reader)
            return
        try:
            answers, link.far = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            link.reset()
            return
        pumps = [asyncio.create_task(pump) for pump in (self._pump(link, reader), self._pump_back(link, answers))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if link.lost:
                # Whoever ended it, the other side does not hear of it.
                await asyncio.wait(pumps[:1])
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if link.far is not None and await self._arrives(link):
                await self._carry(data, link.far)

    async def _pump_back(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if not await self._arrives(link):
                continue
            left = None if self.way.reset_after_bytes is None else self.way.reset_after_bytes - link.answered_bytes
            link.answered_bytes += len(data)
            if left is not None and left < len(data):
                link.near.write(data[: max(0, left)])
                # What a reset overtakes never arrives; here the client has read a part.
                await link.near.drain()
                await asyncio.sleep(0.005)
                link.reset()
                return
            await self._carry(data, link.near)
        await self._arrives(link)  # its end is told as late as all else, or not at all

    async def _arrives(self, link: _Link) -> bool:
        while self.way.holds:
            await self._changed.wait()
        return not link.lost

    async def _carry(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        way = self.way
        if way.latency_seconds:
            await asyncio.sleep(way.latency_seconds)
        size = way.piece_bytes or len(data)
        if way.bytes_per_second:
            size = min(size, max(1, way.bytes_per_second // _TICKS_PER_SECOND))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(piece)
            await writer.drain()
            # A turn of the loop between two pieces: the kernel sends each by itself.
            await asyncio.sleep(len(piece) / way.bytes_per_second if way.bytes_per_second else 0)


@contextmanager
def running_proxy(target_port: int) -> Iterator[Proxy]:
    proxy = Proxy(target_port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()

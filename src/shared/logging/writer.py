"""The thread that writes: lines are put down as plain values and rendered here, in batches, off the hot path."""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.util import Finalize
from queue import Empty, SimpleQueue
from typing import TextIO

from src.shared.logging.lines import Event, Line, Render

BATCH_LINES = 256
BATCH_SECONDS = 0.05
MAX_WAITING = 8192
STOP_SECONDS = 5.0
# Up to so many bytes a write to a pipe is never mixed with that of another worker (PIPE_BUF; 512 by POSIX).
CHUNK_BYTES = 4096


class Writer:
    """Puts never wait and never raise. When the output stalls, lines beyond MAX_WAITING are dropped, the newest
    first, and counted; errors have as much room again. A line waits at most BATCH_SECONDS: that is what a SIGKILL
    can lose. Once stopped, each line is written at once, by whoever puts it."""

    def __init__(self, render: Render, write: Callable[[bytes], None]) -> None:
        self._render = render
        self._write = write
        self._stopping = False
        self._stopped = False
        self._reset()

    def _reset(self) -> None:
        self._lines: deque[Line] = deque()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._finalizer: Finalize | None = None
        self._asleep = True
        # Two locks, since the first is held while the output stalls. These and the bell may be used again by a
        # signal handler or __del__ that interrupts their use.
        self._writing = threading.RLock()
        self._counting = threading.RLock()
        self._bell: SimpleQueue[None] = SimpleQueue()

    def put(self, line: Line, *, important: bool = False) -> None:
        lines = self._lines
        waiting = len(lines)
        if waiting >= MAX_WAITING and not (important and waiting < 2 * MAX_WAITING):
            with self._counting:
                self._dropped += 1
            return
        lines.append(line)
        if self._asleep or waiting == BATCH_LINES:
            self._wake()

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Write what waits. Gives up after the time-out: an output that nobody reads must not keep a process alive."""
        thread = self._thread
        self._stopping = True
        if self._finalizer is not None:
            self._finalizer.cancel()
        if thread is not None:
            self._bell.put(None)
            thread.join(timeout_seconds)
            if thread.is_alive():
                return
        self._settle()

    def forget_parent(self) -> None:
        """After a fork: the waiting lines are the parent's, the thread did not come along, locks may be held."""
        self._reset()

    def _wake(self) -> None:
        if self._stopped:
            self._drain()
            return
        if self._thread is None:
            self._start()
        self._asleep = False
        self._bell.put(None)
        if self._stopped:  # meanwhile: nobody hears the bell any more
            self._settle()

    def _start(self) -> None:
        with self._counting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._settle()
                return
            self._thread = thread
            # Not atexit: a worker that multiprocessing forked leaves by os._exit, which skips it.
            self._finalizer = Finalize(None, self.stop, exitpriority=0)

    def _run(self) -> None:
        while not self._stopping:
            self._asleep = True
            if not self._lines:
                self._bell.get()
            self._asleep = False
            if not self._stopping:
                with suppress(Empty):
                    self._bell.get(timeout=BATCH_SECONDS)  # rung for a full batch, or the end
            self._drain()
        self._settle()

    def _settle(self) -> None:
        self._stopped = self._asleep = True
        self._drain()

    def _drain(self) -> None:
        render = self._render
        with self._writing:
            while self._lines or self._dropped:
                chunk = bytearray()
                # Counted, so that a dropped line is told of behind those that filled the queue. A signal handler that
                # logs after the end may have taken some of them.
                with suppress(IndexError):
                    for _ in range(len(self._lines)):
                        waiting = self._lines.popleft()
                        try:
                            line = render(waiting)
                        except Exception as error:  # noqa: BLE001 - a line that cannot be rendered must not take the others along
                            line = render(_own("A log line could not be rendered", {"error": type(error).__name__}))
                        if chunk and len(chunk) + len(line) > CHUNK_BYTES:
                            self._write_quietly(chunk)
                            chunk = bytearray()
                        chunk += line
                with self._counting:
                    dropped, self._dropped = self._dropped, 0
                if dropped:
                    chunk += render(_own(f"{dropped} log lines dropped", {"dropped": dropped}))
                self._write_quietly(chunk)

    def _write_quietly(self, chunk: bytearray) -> None:
        with suppress(Exception):  # the output is gone: there is nowhere left to say so
            self._write(bytes(chunk))


def _own(message: str, fields: dict[str, int | str]) -> Event:
    return Event(time.time_ns(), "WARNING", message, __name__, fields={**fields})


def output(stream: TextIO | None) -> Callable[[bytes], None]:
    """The quickest way into a stream: past its buffers, whose locks a fork may leave held."""
    if stream is None:  # started with its standard output closed
        return lambda _: None
    try:
        stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError, AttributeError):  # in memory, or a test's
        return lambda data: _write_text(stream, data)
    return lambda data: _write_all(fd, data)


def _write_text(stream: TextIO, data: bytes) -> None:
    stream.write(data.decode())
    stream.flush()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # a terminal or pipe that someone made non-blocking
            select.select([], [fd], [], 1.0)

"""The log: one stream on standard output, loguru's lines, the standard library's and the access lines alike.

Lines are rendered and written by a thread, at most 50 ms later, and flushed when the process ends in an orderly way;
a SIGKILL may lose those 50 ms. Application code writes `from loguru import logger`; this room is for who starts and
stops the process and for the middleware.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from src.config import Settings
from src.shared.logging.capture import failure, plain
from src.shared.logging.context import RequestContext, current_request, enter_request, leave_request
from src.shared.logging.interception import intercept
from src.shared.logging.lines import MAX_FIELDS, AccessLine, Event, json_line, text_line
from src.shared.logging.writer import Writer, output

if TYPE_CHECKING:
    from loguru import Record

__all__ = [
    "AccessLine",
    "RequestContext",
    "current_request",
    "enter_request",
    "leave_request",
    "log_access",
    "set_up_logging",
    "shut_down_logging",
]

_LOGURU_DEFAULT = 0

_writer: Writer | None = None
_access_writer: Writer | None = None  # none while the level is above INFO
_handler_id: int = _LOGURU_DEFAULT
_fork_watched = False


def set_up_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream`, standard output by default. A second call replaces the first."""
    global _writer, _access_writer, _handler_id  # noqa: PLW0603 - a process has one log
    shut_down_logging()
    stream = sys.stdout if stream is None else stream
    render = json_line if settings.json_logs else partial(text_line, colour=_is_colourful(stream))
    _writer = Writer(render, output(stream))
    level = logger.level(settings.log.level).no
    _access_writer = _writer if level <= logger.level("INFO").no else None
    with suppress(ValueError):  # somebody removed it already
        logger.remove(_handler_id)
    _handler_id = logger.add(
        _nowhere,
        level=settings.log.level,
        filter=_recorder(_writer),
        format="",
        colorize=False,
        backtrace=False,
        diagnose=False,
        catch=True,
    )
    intercept(_writer, level)
    _watch_forks()


def shut_down_logging() -> None:
    """Write what waits. What is logged later is written at once, so the last words of a server are not lost."""
    if _writer is not None:
        _writer.stop()


def log_access(line: AccessLine) -> None:
    """Record a request that has been answered; its path is without the query."""
    if _access_writer is not None:
        _access_writer.put(line)


def _is_colourful(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and "NO_COLOR" not in os.environ
    except ValueError:  # closed
        return False


def _recorder(writer: Writer) -> "Callable[[Record], bool]":
    """Loguru's filter does the sink's work and lets nothing through.

    Behind the filter loguru would make a string that nobody reads and render the traceback a second time, under a
    lock that refuses a line logged by a `__repr__`: 11 µs a line instead of 8.
    """
    error = logger.level("ERROR").no

    def record(record: "Record") -> bool:
        context = current_request()
        exception, level = record["exception"], record["level"]
        fields = record["extra"]
        writer.put(
            Event(
                time.time_ns(),
                level.name,
                record["message"],
                f"{record['name']}:{record['function']}:{record['line']}",
                None if context is None else context.request_id,
                None if context is None else context.user_id,
                {key: plain(fields[key]) for key in list(fields)[: MAX_FIELDS + 1]} if fields else None,
                None if exception is None else failure((exception.type, exception.value, exception.traceback)),
            ),
            important=level.no >= error,
        )
        return False

    return record


def _nowhere(_: str) -> None:
    """Never reached; see `_recorder`."""


def _watch_forks() -> None:
    global _fork_watched  # noqa: PLW0603 - hooks of the process cannot be taken back
    if not _fork_watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _writer.forget_parent() if _writer is not None else None)
        _fork_watched = True

"""Lines that other libraries write with the standard library's logging, brought into the same stream."""

import logging
import sys

from src.shared.logging.capture import failure, plain
from src.shared.logging.context import current_request
from src.shared.logging.lines import Event
from src.shared.logging.writer import Writer

# Ours is the access line. Without handlers uvicorn does not even make one of its own.
_SILENCED = ("uvicorn.access",)
# These write whole addresses, queries included, at INFO; and headers or every statement at DEBUG.
_AT_LEAST = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore": logging.INFO,
    "httpcore2": logging.INFO,
    "aiosqlite": logging.INFO,
}
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class StandardLibraryHandler(logging.Handler):
    """Straight to the writer: the usual way through loguru walks the stack and costs 40 µs a line."""

    def __init__(self, writer: Writer, level: int) -> None:
        super().__init__(level)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        context = current_request()
        self._writer.put(
            Event(
                int(record.created * 1e9),
                record.levelname,
                _message(record),
                f"{record.name}:{record.funcName}:{record.lineno}",
                None if context is None else context.request_id,
                None if context is None else context.user_id,
                {key: plain(value) for key, value in vars(record).items() if key not in _STANDARD_FIELDS},
                failure(record.exc_info) if record.exc_info else None,
            ),
            important=record.levelno >= logging.ERROR,
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip("\n")
    except Exception:  # noqa: BLE001 - arguments that do not fit the format, or a foreign __str__
        return f"{plain(record.msg)} {plain(record.args)}"


def intercept(writer: Writer, level: int) -> None:
    root = logging.getLogger()
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in (root, *loggers):
        for handler in [each for each in logger.handlers if _is_ours_or_console(each)]:
            logger.removeHandler(handler)
            logger.propagate = True
    for name in _SILENCED:
        logging.getLogger(name).propagate = False
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, least in _AT_LEAST.items():
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(least)
    root.addHandler(StandardLibraryHandler(writer, level))
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _is_ours_or_console(handler: logging.Handler) -> bool:
    """Whatever else writes to the console would write each line twice, and as it came. A test's handler stays."""
    if isinstance(handler, logging.StreamHandler):
        return handler.stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, StandardLibraryHandler)

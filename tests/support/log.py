"""The log of the process, written into memory for a while."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Any, NoReturn
from uuid import UUID

import pytest
from loguru import logger

from src.config import AppSettings, Env, LogSettings, Settings
from src.shared import logging as log
from src.shared.logging.interception import StandardLibraryHandler
from src.shared.logging.lines import MAX_LINE_BYTES


class Log:
    def __init__(self) -> None:
        self._stream = io.StringIO()

    def set_up(self, level: str = "TRACE", form: str = "json") -> None:
        chosen = LogSettings.model_validate({"level": level, "format": form})
        log.set_up_logging(Settings(app=AppSettings(env=Env.TEST), log=chosen), self._stream)
        # pytest's own handlers copy each line into its report, where the hostile ones bring xdist down.
        root = logging.getLogger()
        root.handlers[:] = [each for each in root.handlers if isinstance(each, StandardLibraryHandler)]

    def written(self) -> str:
        return self._stream.getvalue()

    def text(self) -> str:
        log.shut_down_logging()
        return self.written()

    def lines(self) -> list[dict[str, Any]]:  # Any: whatever a line says
        *lines, rest = self.text().split("\n")
        assert rest == ""
        assert all(len(line.encode()) < MAX_LINE_BYTES for line in lines)
        parsed: list[dict[str, Any]] = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        json.dumps(parsed, ensure_ascii=False).encode()  # lone surrogates, which strict parsers refuse, fail here
        return parsed

    def line(self) -> dict[str, Any]:  # Any: as above
        (line,) = self.lines()
        return line


@contextmanager
def log_in_memory() -> Iterator[Log]:
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, propagate = root.handlers[:], root.level, access.propagate
    out = Log()
    out.set_up()
    try:
        yield out
    finally:
        log.shut_down_logging()
        logger.remove(log._handler_id)
        root.handlers[:] = handlers
        root.setLevel(level)
        access.propagate = propagate
        logging.captureWarnings(capture=False)


def log_access(  # noqa: PLR0913 - the columns of the line
    *,
    method: str = "GET",
    route: str | None = "/orders/{id}",
    path: str = "/orders/1",
    request_id: str = "req-1",
    user_id: UUID | str | None = None,
    client: str | None = "192.0.2.1",
    size: int | None = 12,
) -> None:
    log.log_access((time_ns(), method, route, path, 200, 1.23456, request_id, user_id, client, size))


def fail(error: Exception) -> NoReturn:
    raise error


def wrong_lines(output: bytes) -> tuple[int, list[str]]:
    """How many lines a process wrote with LOG__FORMAT=json, and what is wrong with some: each is one object in ASCII."""
    *lines, rest = output.split(b"\n")
    wrong = [f"no line's end: {rest!r:.200}"] if rest else []
    for line in lines:
        try:
            told = json.loads(line.decode("ascii"), parse_constant=pytest.fail)
        except ValueError:
            wrong.append(f"no JSON in ASCII: {line!r:.200}")
            continue
        if len(line) >= MAX_LINE_BYTES:
            wrong.append(f"{len(line)} bytes: {line!r:.200}")
        if _RAW.search(line):
            wrong.append(f"control characters: {line!r:.200}")
        if not isinstance(told, dict) or not told.keys() >= {"time", "level", "message", "logger"}:
            wrong.append(f"no event: {line!r:.200}")
        elif "could not be rendered" in told["message"]:
            wrong.append(f"lost: {line!r:.200}")
    return len(lines), wrong


_RAW = re.compile(rb"[\x00-\x1f\x7f]")

"""What is taken down at the moment of logging: plain values, for objects may change or end before the line is written."""

import traceback
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from types import TracebackType
from typing import NamedTuple
from uuid import UUID

from pydantic import Secret, SecretBytes, SecretStr

from src.shared.logging.redaction import REDACTED

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
ExceptionInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

UNSERIALISABLE = "<unserialisable>"
# Longer than any line may be, so what is cut here is cut again, and marked, when it is rendered.
LONGEST_TEXT = 8192
MAX_REPR = 1024
MAX_ITEMS = 64
MAX_NODES = 512
MAX_DEPTH = 6
MAX_FRAMES = 64
MAX_TRACEBACK = 32_768
_SMALLEST, _BIGGEST = -(2**63), 2**64


class Failure(NamedTuple):
    """An exception, without its frames: holding them would keep a request's objects alive, and end them in another
    thread than the one they belong to."""

    type: str
    message: str
    traceback: str


def plain(value: object) -> Plain:
    """The value in JSON's own types, bounded in every direction. Never raises."""
    # Subclasses may lie about everything, so only the types themselves are taken at their word.
    if type(value) is str:
        return value[:LONGEST_TEXT]
    if value is None or type(value) is bool or (type(value) is int and _SMALLEST <= value < _BIGGEST):
        return value
    try:
        return _Copy().of(value, 0)
    except Exception:  # noqa: BLE001 - a foreign __repr__, __iter__ or __str__ may raise anything
        return UNSERIALISABLE


class _Copy:
    __slots__ = ("nodes",)

    def __init__(self) -> None:
        self.nodes = MAX_NODES  # for the whole value: 64 items six levels deep would be 64⁶

    def of(self, value: object, depth: int) -> Plain:  # noqa: C901, PLR0911 - one case a type
        self.nodes -= 1
        match value:
            case Secret() | SecretStr() | SecretBytes():
                return REDACTED
            case Enum():
                return self.of(value.value, depth + 1)
            case None | bool():
                return value
            case str():
                return str.__str__(value[:LONGEST_TEXT])
            case int():
                number = int.__int__(value)
                return number if _SMALLEST <= number < _BIGGEST else hex(number)[:MAX_REPR]
            case float():
                return float.__float__(value) if isfinite(value) else float.__repr__(value)
            case bytes() | bytearray():
                return repr(bytes(value[:MAX_REPR]))
            case datetime() | date() | time():
                return value.isoformat()
            case UUID() | Decimal() | PurePath() | timedelta():
                return str(value)[:MAX_REPR]
            case Mapping() | list() | tuple() | AbstractSet():
                return self._of_many(value, depth)
            case _:
                return _short_repr(value)

    def _of_many(self, value: Collection[object], depth: int) -> Plain:
        if depth >= MAX_DEPTH or self.nodes <= 0:
            return "…"
        left = len(value) - MAX_ITEMS
        if isinstance(value, Mapping):
            found: dict[str, Plain] = {}
            for key, item in value.items():
                if len(found) >= MAX_ITEMS or self.nodes <= 0:
                    break
                found[(key if isinstance(key, str) else _short_repr(key))[:MAX_REPR]] = self.of(item, depth + 1)
            return {**found, "…": f"{left} more"} if left > 0 else found
        items: list[Plain] = []
        for item in value:
            if len(items) >= MAX_ITEMS or self.nodes <= 0:
                break
            items.append(self.of(item, depth + 1))
        return [*items, f"… {left} more"] if left > 0 else items


def _short_repr(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def failure(info: ExceptionInfo) -> Failure | None:
    """The exception with its innermost frames and its causes; never the values of variables. Never raises."""
    kind, error, trace = info
    if kind is None or error is None:
        return None
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        lines = traceback.TracebackException(kind, error, trace, limit=-MAX_FRAMES).format()
        return Failure(name, _text_of(error), middle_cut("".join(lines).rstrip("\n"), MAX_TRACEBACK))
    except Exception:  # noqa: BLE001 - __notes__, __suppress_context__ and source loaders are foreign code too
        return Failure(name, _text_of(error), UNSERIALISABLE)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:LONGEST_TEXT]
    except Exception:  # noqa: BLE001 - a foreign __str__
        return UNSERIALISABLE


def middle_cut(text: str, limit: int) -> str:
    """Keep the beginning and, three times as long, the end: that is where the failure is."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 4]}\n…\n{text[-(limit * 3 // 4) :]}"

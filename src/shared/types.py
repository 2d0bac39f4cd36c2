"""Field types that each schema, path and query uses: bounded, printable, and true on both databases."""

import os
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import lru_cache
from time import time_ns
from typing import Annotated
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from src.config import get_settings

MAX_INT32 = 2**31 - 1

# C0 but for tab and line breaks, DEL, C1. PostgreSQL refuses NUL; no text that a person types has the others.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_BREAK = re.compile(r"[\t\n\r\u2028\u2029]")


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise PydanticCustomError("control_characters", "Control characters are not allowed")
    return value


def _one_line(value: str) -> str:
    if _LINE_BREAK.search(value):
        raise PydanticCustomError("line_breaks", "One line, please")
    return _printable(value)


Text = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_printable)]
"""Free text with line breaks."""
Line = Annotated[str, StringConstraints(max_length=255), AfterValidator(_one_line)]
"""One line of text."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True), AfterValidator(_one_line)]


def _canonical_uuid(value: object) -> object:
    """RFC 9562 knows one text form; Python reads five (`urn:uuid:…`, braces, no hyphens, capitals)."""
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid_canonical", "Write the UUID as 8-4-4-4-12 lower-case hexadecimal digits")
    return value


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Id = Annotated[UUID, BeforeValidator(_canonical_uuid, json_schema_input_type=UUID)]


def _in_range(moment: datetime) -> datetime:
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise PydanticCustomError("moment_out_of_range", "Between 1970 and 2200")
    return moment


def _rfc_3339(value: object) -> object:
    """Not a number, which pydantic takes for seconds or for milliseconds, by its size."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        raise PydanticCustomError("moment_format", "Write the moment as RFC 3339 has it, as in 2026-01-31T12:00:00Z")
    return value


_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
Moment = Annotated[
    AwareDatetime, BeforeValidator(_rfc_3339, json_schema_input_type=datetime), AfterValidator(_in_range)
]
"""With its offset from UTC, and such that each database can hold it."""


def _full_date(value: object) -> object:
    """Not a number, nor a moment at midnight, which pydantic takes for a day."""
    if type(value) is not date and not (isinstance(value, str) and _FULL_DATE.fullmatch(value)):
        raise PydanticCustomError("day_format", "Write the day as RFC 3339 has it, as in 2026-01-31")
    return value


def _day_in_range(day: date) -> date:
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise PydanticCustomError("day_out_of_range", "Between 1970 and 2200")
    return day


_FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
Day = Annotated[date, BeforeValidator(_full_date, json_schema_input_type=date), AfterValidator(_day_in_range)]
"""A day of the calendar, in the presentation zone."""


@lru_cache(maxsize=8)
def _zone(hours: float) -> timezone:
    return timezone(timedelta(hours=hours))


def to_local(moment: datetime) -> datetime:
    """The same moment in the presentation zone of `settings.app.timezone`."""
    return moment.astimezone(_zone(get_settings().app.timezone))


def start_of_day(day: date) -> datetime:
    """When it begins in the presentation zone, in UTC."""
    return datetime.combine(day, time.min, _zone(get_settings().app.timezone)).astimezone(UTC)


LocalDatetime = Annotated[datetime, PlainSerializer(to_local, return_type=datetime, when_used="json-unless-none")]
"""Stored and computed in UTC, shown in the presentation zone: ISO 8601 with offset."""


class RequestModel(BaseModel):
    """A letter that comes in: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, str_max_length=10_000)


class QueryModel(BaseModel):
    """The filters of a list. What no parameter of the route knows is refused by the route, which knows them all."""

    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)


class ResponseModel(BaseModel):
    """A letter that goes out, made from a row or a value with the same names."""

    # A field with a default goes out like any other: clients need not ask whether it is there.
    model_config = ConfigDict(from_attributes=True, json_schema_serialization_defaults_required=True)


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562 §5.7): sorted by the millisecond it was made in."""
    random = random_bits()
    return UUID(
        int=(time_ns() // 1_000_000 & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random >> 64 & 0xFFF) << 64
        | 0b10 << 62
        | random & (1 << 62) - 1
    )


_POOLED = 256
_BYTES = 16
_pool: list[int] = []
# Two processes must not go on with the same bits.
os.register_at_fork(after_in_child=_pool.clear)


def random_bits() -> int:
    """128 bits of the system's, which it gives many at a time for little more than one."""
    try:
        return _pool.pop()  # one step, for threads
    except IndexError:
        fresh = os.urandom(_POOLED * _BYTES)
        _pool.extend(int.from_bytes(fresh[start : start + _BYTES]) for start in range(_BYTES, len(fresh), _BYTES))
        return int.from_bytes(fresh[:_BYTES])

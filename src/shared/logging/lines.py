"""How a line looks: one JSON object in production, one line for people elsewhere; always short, always harmless."""

import time
from collections.abc import Callable
from functools import lru_cache
from json import JSONEncoder
from typing import NamedTuple
from uuid import UUID

from src.shared.logging.capture import Failure, Plain, middle_cut
from src.shared.logging.redaction import REDACTED, is_secret_name, redact_text

MAX_LINE_BYTES = 8192  # with its line end
MAX_FIELDS = 64
MAX_NAME = 64
MAX_METHOD = 16
MAX_PATH = 512
MIN_SECRET = 4
# A bound field that has one of these names is written with an underscore behind it.
CORE_FIELDS = frozenset({"time", "level", "message", "logger", "request_id", "user_id", "exception", "truncated"})

# ASCII only: what is escaped cannot break the line (U+2028), turn it around (bidi) or hide in it.
_to_json = JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_to_readable = JSONEncoder(ensure_ascii=False, check_circular=False).encode


class Event(NamedTuple):
    time_ns: int
    level: str
    message: str
    logger: str
    request_id: str | None = None
    user_id: UUID | str | None = None
    fields: dict[str, Plain] | None = None
    failure: Failure | None = None


# time_ns, method, route, path, status, duration_ms, request_id, user_id, client, size. A plain tuple: each request
# makes one, and anything with names costs five times as much.
AccessLine = tuple[int, str, str | None, str, int, float, str, UUID | str | None, str | None, int | None]
Line = Event | AccessLine
Render = Callable[[Line], bytes]


def json_line(line: Line) -> bytes:
    return _json_access(line) if type(line) is tuple else _json_event(line).encode("ascii") + b"\n"  # type: ignore[arg-type] # an Event is no plain tuple


def text_line(line: Line, *, colour: bool = False) -> bytes:
    """One line, and behind it the traceback if there is one, indented so that it cannot pass for a line."""
    event = line if isinstance(line, Event) else _access_event(line, for_people=True)
    core, fields = _cleaned(event)
    level = f"{printable(event.level):<8}"
    if colour:
        level = f"{_LEVEL_COLOURS.get(event.level, '')}{level}\x1b[0m"
    tail = [f"{name}={_shown(value)}" for name, value in fields.items()]
    tail += [f"{name}={_shown(core[name])}" for name in ("request_id", "user_id") if name in core]
    rest = f"{printable(str(core['logger']))} {printable(str(core['message']))}  {' '.join(tail)}"
    text = f"{core['time']} {level} {_cut(rest.rstrip(), MAX_LINE_BYTES // 2)}\n"
    if event.failure is not None:
        lines = _tidy(event.failure.traceback, _secrets(event)).split("\n")
        text += "".join(f"    {printable(each)}\n" for each in lines)
    return text.encode("utf-8", "backslashreplace")


_LEVEL_COLOURS = {
    "TRACE": "\x1b[2m",
    "DEBUG": "\x1b[36m",
    "SUCCESS": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(value: Plain) -> str:
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(" \"'=\\"):
        return value
    return printable(_to_readable(value))


# --- JSON -----------------------------------------------------------------------------------------------------------


def _json_event(event: Event) -> str:
    core, fields = _cleaned(event)
    text = _to_json({**core, **fields})
    if len(text) < MAX_LINE_BYTES:
        return text
    for longest in (5000, 2000, 600, 200, 60):
        text = _to_json({**_shortened(core, longest), **_shortened(fields, longest), "truncated": True})
        if len(text) < MAX_LINE_BYTES:
            return text
    return _to_json({**_shortened(core, 64), "truncated": True})


def _json_access(line: AccessLine) -> bytes:
    time_ns, method, route, path, status, duration_ms, request_id, user_id, client, size = line
    if len(path) > MAX_PATH or len(method) > MAX_METHOD:
        return _json_access(_cut_access(line))
    if not (request_id.isalnum() and request_id.isascii()):
        request_id = _to_json(_no_surrogates(request_id))[1:-1]
    text = _access_format(method, route, status, user_id, client) % (
        _second(time_ns // 1_000_000_000),
        time_ns // 1000 % 1_000_000,
        request_id,
        _repeated(path),
        duration_ms,
        "" if size is None else f',"bytes":{size}',
    )
    return (
        text.encode("ascii")
        if len(text) <= MAX_LINE_BYTES
        else _json_event(_access_event(line)).encode("ascii") + b"\n"
    )


def _cut_access(line: AccessLine) -> AccessLine:
    return (line[0], line[1][:MAX_METHOD], line[2], line[3][:MAX_PATH], *line[4:])


@lru_cache(maxsize=1024)
def _access_format(method: str, route: str | None, status: int, user_id: UUID | str | None, client: str | None) -> str:
    """A whole line but for what no two have in common: a single operation makes that one of it."""
    user = "" if user_id is None else f',"user_id":{_repeated(user_id)}'
    who = "" if client is None else f',"client":{_repeated(client)}'
    head, user, who = (part.replace("%", "%%") for part in (_access_head(method, route, status), user, who))
    return f'{{"time":"%s.%06dZ",{head},"request_id":"%s"{user},"path":%s,"duration_ms":%.3f{who}%s}}\n'


@lru_cache(maxsize=1024)
def _access_head(method: str, route: str | None, status: int) -> str:
    fields: dict[str, Plain] = {
        "level": "INFO",
        "message": _access_message(method, route, status),
        "logger": "access",
        "method": method,
        "route": route,
        "status": status,
    }
    return _to_json(_clean(fields, ""))[1:-1]


@lru_cache(maxsize=1024)
def _repeated(value: UUID | str) -> str:
    """Paths, clients and users come again and again; making them harmless costs more than the rest of the line."""
    return _to_json(_tidy(str(value)))


def _access_message(method: str, place: str | None, status: int) -> str:
    return f"{method} {place} {status}" if place else f"{method} {status}"


def _access_event(line: AccessLine, *, for_people: bool = False) -> Event:
    """The same line in the general form, for a reader's eyes or when it is too long."""
    time_ns, method, route, path, status, duration_ms, request_id, user_id, client, size = _cut_access(line)
    fields: dict[str, Plain] = {"method": method, "route": route, "status": status, "path": path}
    message = _access_message(method, route, status)
    if for_people:
        fields = {"route": route}
        message = _access_message(method, path, status)
    fields |= {"duration_ms": round(duration_ms, 3), "client": client, "bytes": size}
    present: dict[str, Plain] = {name: value for name, value in fields.items() if value is not None}
    return Event(time_ns, "INFO", message, "access", request_id, user_id, present)


# --- both -----------------------------------------------------------------------------------------------------------


def _cleaned(event: Event) -> tuple[dict[str, Plain], dict[str, Plain]]:
    """What every line has, and what was bound to this one, free of secrets."""
    fields = event.fields or {}
    secrets = _secrets(event)
    core: dict[str, Plain] = {
        "time": _iso(event.time_ns),
        "level": _no_surrogates(event.level),
        "message": _tidy(event.message, secrets),
        "logger": _no_surrogates(event.logger),
    }
    if event.request_id is not None:
        core["request_id"] = _no_surrogates(event.request_id)
    if event.user_id is not None:
        core["user_id"] = _no_surrogates(str(event.user_id))
    if event.failure is not None:
        core["exception"] = {name: _tidy(text, secrets) for name, text in event.failure._asdict().items()}
    if len(fields) > MAX_FIELDS:
        core["truncated"] = True
    return core, _named(fields)


def _secrets(event: Event) -> list[str]:
    """Secrets that came under their name may stand in the message as well: `info("… {password}", password=…)`."""
    if not event.fields:
        return []
    found = [str(v) for k, v in event.fields.items() if isinstance(v, str | int) and _is_secret(k, v)]
    return [secret for secret in found if len(secret) >= MIN_SECRET]


def _named(fields: dict[str, Plain]) -> dict[str, Plain]:
    named: dict[str, Plain] = {}
    for key, value in list(fields.items())[:MAX_FIELDS]:
        name = printable(key[:MAX_NAME])
        while name in CORE_FIELDS or name in named:
            name += "_"
        named[name] = _clean(value, key)
    return named


def _clean(value: Plain, name: str) -> Plain:
    if _is_secret(name, value):
        return REDACTED
    if isinstance(value, str):
        return _tidy(value)
    if isinstance(value, dict):
        return {_no_surrogates(key): _clean(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, "") for item in value]
    return value


def _is_secret(name: str, value: Plain) -> bool:
    # `has_password=True` gives nothing away, and neither does `token=None`.
    return value is not None and not isinstance(value, bool) and is_secret_name(name)


def _tidy(text: str, secrets: list[str] | None = None) -> str:
    for secret in secrets or ():
        text = text.replace(secret, REDACTED)
    return redact_text(_no_surrogates(text))


def _no_surrogates(text: str) -> str:
    # `\ud800` alone is JSON by the letter, but the parsers of several log shippers refuse the line.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(value: dict[str, Plain], longest: int) -> dict[str, Plain]:
    items = list(value.items())[: max(longest // 20, 8)]
    return {_cut(name, longest): _short(item, longest, name) for name, item in items}


def _short(value: Plain, longest: int, name: str = "") -> Plain:
    if isinstance(value, str):
        return middle_cut(value, longest) if name == "traceback" else _cut(value, longest)
    if isinstance(value, dict):
        return _shortened(value, longest)
    if isinstance(value, list):
        return [_short(item, longest) for item in value[: longest // 20]]
    return value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


def _iso(time_ns: int) -> str:
    return f"{_second(time_ns // 1_000_000_000)}.{time_ns // 1000 % 1_000_000:06d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))

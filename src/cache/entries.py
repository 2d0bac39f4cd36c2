"""Entries as both caches keep them: how a name, a life and a value are written down."""

from hashlib import sha256
from typing import Any

from pydantic_core import from_json, to_json

MAX_NAME_BYTES = 256
MAX_TTL_SECONDS = 3650 * 86_400
MAX_INT64 = 2**63 - 1
NAME_KINDS = b"k:", b"h:"
NO_INT64 = "Not a 64-bit integer"


def entry_name(key: str) -> bytes:
    """Short keys as they are, long ones as their digest; the first letter keeps the two apart.

    Raises:
        ValueError: an empty key, or a lone surrogate in it.
    """
    if not key:
        raise ValueError("A cache key must not be empty")
    written = key.encode()
    as_it_is, digest = NAME_KINDS
    return as_it_is + written if len(written) <= MAX_NAME_BYTES else digest + sha256(written).hexdigest().encode()


def life_ms(ttl: float | None, default_seconds: float) -> int:
    """Milliseconds, at least one.

    Raises:
        ValueError: zero, negative, not a number, or more than ten years.
    """
    seconds = default_seconds if ttl is None else ttl
    if not 0 < seconds <= MAX_TTL_SECONDS:
        raise ValueError(f"A ttl is more than 0 and at most {MAX_TTL_SECONDS} seconds, not {seconds}")
    return max(1, round(seconds * 1000))


def encode(value: Any) -> bytes:  # Any: a JSON value, which is what this checks
    """JSON that reads back as the same value.

    Raises:
        TypeError: a value that JSON would change (tuple, set, bytes, datetime, Decimal, UUID, model, a key that is no
            text, NaN) or cannot write (a lone surrogate, 200 levels, a cycle).
    """
    try:
        written = to_json(value)
        # Comparing costs less than looking at each element in Python, and misses nothing that would come back changed.
        if decode(written) == value:
            return written
    except ValueError as error:
        raise TypeError(f"A {type(value).__name__} that JSON cannot write: {error}") from None
    raise TypeError(
        f"A {type(value).__name__} that JSON would change; store plain data, as model_dump(mode='json') gives it"
    )


def decode(written: bytes) -> Any:  # Any: a JSON value
    return from_json(written, allow_inf_nan=False)


def int64(value: Any) -> int:  # Any: whatever an entry holds
    """The same, if a server can count with it.

    Raises:
        ValueError: no integer, or one of more than 64 bits.
    """
    if type(value) is int and -MAX_INT64 - 1 <= value <= MAX_INT64:
        return value
    raise ValueError(NO_INT64)

"""Ids and order numbers as the service makes them, without its code."""

import os
import secrets
import time
from uuid import UUID

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id() -> UUID:
    """Version 7: sorted by the millisecond it was made in."""
    random = int.from_bytes(os.urandom(10))
    return UUID(
        int=(time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    )


def new_number() -> str:
    """50 random bits in base 32."""
    bits = secrets.randbits(50)
    digits = "".join([_PAIRS[bits >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
    return f"{digits[:5]}-{digits[5:]}"

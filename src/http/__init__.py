"""The front desk: letters in, letters out; no SQL, no rules."""

from src.http.envelope import unwrapped
from src.http.response import Response

__all__ = ["Response", "unwrapped"]

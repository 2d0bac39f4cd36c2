"""Where a call comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """To be recognised in the list of sessions, and throttled by its address."""

    address: str
    user_agent: str

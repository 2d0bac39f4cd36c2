"""How often a test does what it does: enough to bite in `make test`, as often as was promised in `make test-long`."""

import os


def in_full() -> bool:
    """For tests that are marked `long` or `rounds`, as the next."""
    return os.environ.get("TEST_LONG") == "1"


def rounds(usual: int, *, full: int) -> int:
    return full if in_full() else usual

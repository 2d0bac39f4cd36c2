"""How often a test does what it does: enough to bite in `make test`, as often as was promised in `make test-long`."""

import os


def rounds(usual: int, *, full: int) -> int:
    """For tests that are marked `long` or `rounds`."""
    return full if os.environ.get("TEST_LONG") == "1" else usual

"""What a proof comes to."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: so many of something, and what was wrong with some of them."""

    claim: str
    """As in "an outage of the database is a 503"."""
    unit: str
    """What was counted, as in "requests"."""
    count: int
    failures: Sequence[str] = ()
    """A sentence each."""
    notes: str = ""

    def check(self) -> None:
        """For tests: nothing was wrong, and something was looked at."""
        assert self.count > 0, f"{self.claim}: nothing was counted"
        assert not self.failures, f"{self.claim}: {len(self.failures)} of {self.count} {self.unit}\n" + "\n".join(
            self.failures[:SHOWN]
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """`run` plays it so many times, from that seed; both together say what is done, and in which order."""

    name: str
    run: Callable[[int, int], Iterable[Figure]]
    """(amount, seed)"""
    full: int
    """The amount that is published."""
    what: str = field(default="rounds")
    """Of which `full` is the number."""

"""kill -9 under a load of orders."""

from collections.abc import Iterator
from typing import Final

from tests.faults.kills import Victim, play
from tests.prove.figures import Figure, Proof
from tests.support.postgres import Kind

# Rounds of each, of a hundred.
_SHARES: Final[tuple[tuple[Kind, Victim, int], ...]] = (
    ("postgres", "service", 60),
    ("postgres", "database", 30),
    ("sqlite", "service", 10),
)


def prove_kills(amount: int, seed: int) -> Iterator[Figure]:
    for database, victim, share in _SHARES:
        outcome = play(
            database,
            victim,
            rounds=max(1, amount * share // 100),
            seed=seed,
            workers=1 if victim == "service" else None,
            minutes=600,
        )
        yield Figure(
            f"kill -9 of the {victim} on {database}: what was acknowledged is there, once, and nothing is oversold",
            "rounds",
            outcome.rounds,
            [f"{name}: {found}" for name, found in outcome.problems().items()],
            f"{len(outcome.told.receipts):,} orders acknowledged, {outcome.orders:,} there, {outcome.events:,} events, "
            f"{outcome.mails:,} mails",
        )


PROOFS: Final = (Proof("kills", prove_kills, 1_000),)

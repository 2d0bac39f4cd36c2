"""Whatever becomes of the database or of the cache, it costs coded refusals for as long as it lasts, and nothing else."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.faults.faults import FAULTS
from tests.faults.load import Verdict
from tests.faults.outages import DEADLINE_SECONDS, EXACT, Scene, open_scene
from tests.prove.figures import Figure, Proof


@dataclass
class _Sum:
    verdicts: list[Verdict] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unnoticed: int = 0
    """Requests while something was wrong that nobody should notice."""

    def all_of(self, name: str) -> list[str]:
        return [each for verdict in self.verdicts for each in getattr(verdict, name)]

    @property
    def crashes(self) -> int:
        return sum(": 500 after" in each for each in self.all_of("wrong"))

    @property
    def requests(self) -> int:
        return sum(verdict.requests for verdict in self.verdicts)


def play_faults(amount: int, seed: int) -> Iterable[Figure]:
    """Each kind so many times, in an order of its own each time, under one service."""
    order, total = random.Random(seed), _Sum()
    with open_scene() as scene:
        played = [fault for fault in FAULTS if scene.stage.room is not None or not fault.needs_room]
        for _ in range(amount):
            for fault in order.sample(played, len(played)):
                with scene.load() as load:
                    verdict = scene.play(load, fault, EXACT, answers=2)
                total.verdicts.append(verdict)
                total.unnoticed += verdict.requests * fault.unseen
                total.leaks += [f"{fault.name}: {each}" for each in scene.leaks()]
                total.lost += [f"{fault.name}: {each}" for each in scene.lost()]
        total.lost += _looked_at_from_outside(scene)
        placed = len(scene.account.placed)
    left_out = [fault.name for fault in FAULTS if fault not in played]
    latest = max(verdict.latest_seconds for verdict in total.verdicts)
    slowest = max(verdict.recovery_seconds for verdict in total.verdicts)
    return (
        Figure(
            "each kind of fault is felt",
            "kinds of fault",
            len(played),
            total.all_of("unfelt"),
            f"without {', '.join(left_out)}: nobody may mount here" if left_out else f"{amount} times each",
        ),
        Figure(
            "an answer is a success, or a coded refusal with Retry-After",
            "requests",
            total.requests,
            total.all_of("wrong"),
            f"{total.crashes} times 500",
        ),
        Figure(
            f"nobody waits longer than the deadline of {DEADLINE_SECONDS} s and {EXACT.deadline_seconds - DEADLINE_SECONDS} s",
            "requests",
            total.requests,
            total.all_of("late"),
            f"the latest answer after {latest:.2f} s",
        ),
        Figure(
            f"a cache in trouble costs at most {EXACT.unseen_seconds} s, and a slow network no refusal",
            "requests",
            total.unnoticed,
            total.all_of("seen"),
        ),
        Figure(
            f"all is well {EXACT.recovery_seconds:g} s after the repair",
            "repairs",
            len(total.verdicts),
            total.all_of("slow"),
            f"the slowest after {slowest:.2f} s",
        ),
        Figure("no connection, transaction or file is left behind", "repairs", len(total.verdicts), total.leaks),
        Figure("no acknowledged order is lost, and the books are true", "orders", placed, total.lost),
    )


def _looked_at_from_outside(scene: Scene) -> list[str]:
    code, said = scene.place.run("doctor")
    left = scene.undelivered(within_seconds=60)
    return [*([said] if code else []), *([f"{left} events were not delivered"] if left else [])]


PROOFS: Final[tuple[Proof, ...]] = (Proof("faults", play_faults, full=10, what="times each kind of fault"),)

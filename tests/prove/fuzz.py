"""Input of all kinds."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, get_args

from tests.fuzz.api import ACTORS, SETTINGS, fuzz
from tests.fuzz.corpora import Attack, blns, hostile_bodies, hostile_texts, hostile_values, json_test_suite
from tests.prove.figures import Figure, Proof
from tests.support.log import wrong_lines
from tests.support.oidc import running_providers
from tests.support.postgres import Kind, server_url
from tests.support.service import own_place

_EXAMPLES: Final = 40
"""Of each operation in one run."""


def prove_fuzz(amount: int, seed: int) -> Iterator[Figure]:
    """At least so many cases, in turn on both databases and with each caller's rights."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    done = dict.fromkeys(kinds, 0)
    failures: list[str] = []
    turn = 0
    while sum(done.values()) < amount:
        kind, actor = kinds[turn % len(kinds)], ACTORS[turn // len(kinds) % len(ACTORS)]
        with own_place(kind, **SETTINGS) as place, place.service() as service, TemporaryDirectory() as folder:
            found = fuzz(service, Path(folder), actor, examples=min(_EXAMPLES, 1 + amount // 1_000), seed=seed + turn)
            code, said = place.run("doctor")
        done[kind] += found.cases
        failures += found.failures
        if code:
            failures.append(f"{kind}, {actor}, seed {seed + turn}: the doctor finds something\n{said}")
        turn += 1
    yield Figure(
        "any request has a documented answer, and none is a 5xx",
        "Schemathesis cases",
        sum(done.values()),
        failures,
        ", ".join(f"{count:,} on {kind}" for kind, count in done.items()) + f", {turn} runs, three callers",
    )


_PLAYS: Final[dict[str, Callable[[Attack, int], None]]] = {
    "hostile values in each field are taken or refused": lambda attack, most: attack.fill_fields(
        hostile_values(), most
    ),
    "hostile texts in each parameter are taken or refused": lambda attack, most: attack.fill_parameters(
        hostile_texts(), most
    ),
    "BLNS in each field of text: what is taken comes back as it was": lambda attack, most: attack.fill_fields(
        blns(), most, texts_only=True
    ),
    "hostile bodies on each JSON route are taken or refused": lambda attack, most: attack.send_bodies(
        hostile_bodies(), most
    ),
    "JSONTestSuite on each JSON route: what is no JSON is refused": lambda attack, most: attack.send_bodies(
        json_test_suite(), most
    ),
}


def prove_corpora(amount: int, seed: int) -> Iterator[Figure]:
    """At most so many values of a corpus in one place; both databases at once."""
    server_url()  # started here: a server ends with the thread that started it
    kinds: tuple[Kind, ...] = get_args(Kind)
    with ThreadPoolExecutor(len(kinds)) as threads:
        for figures in threads.map(partial(_play_corpora, amount, seed), kinds):
            yield from figures


def _play_corpora(amount: int, seed: int, kind: Kind) -> list[Figure]:
    figures = []
    with (
        running_providers() as town,
        own_place(kind, **SETTINGS, **town.settings("acme")) as place,
        place.service() as service,
    ):
        attack = Attack(service, seed, provider=town.house("acme"))
        for claim, play in _PLAYS.items():
            sent, trips = attack.sent, attack.round_trips
            attack.begin()
            play(attack, amount)
            notes = f"{attack.round_trips - trips:,} round trips" if attack.round_trips > trips else ""
            figures.append(
                Figure(
                    f"{claim} ({kind})", "requests", attack.sent - sent, [*attack.failures, *attack.shut_out()], notes
                )
            )
        assert service.server.end() == 0
        lines, wrong = wrong_lines(service.server.log.read_bytes())
    claim = f"what is logged meanwhile is one line of JSON of at most 8 KiB an event ({kind})"
    return [*figures, Figure(claim, "lines", lines, wrong)]


PROOFS: Final = (
    Proof("fuzz", prove_fuzz, 100_000, "cases"),
    Proof("corpora", prove_corpora, 1_000, "values of a corpus in one place"),
)

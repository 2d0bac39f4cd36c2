"""`python -m tests.prove`: play proofs in full, or a part of them, and write docs/proofs.md.

    python -m tests.prove --share 0.1 --seed 26 fuzz corpora

Each proof's figures are kept below build/, with what they were measured on: a page tells of the last run of each.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from time import monotonic
from typing import Any, Final

from bench.machine import described
from tests.prove import edge, faults, fuzz, kills, lifecycle, suites
from tests.prove.figures import SHOWN, Figure, Proof
from tests.support.postgres import shared_run
from tests.support.server import PROJECT

PROOFS: Final[tuple[Proof, ...]] = (
    *(proof for area in (fuzz, suites, kills, faults, edge, lifecycle) for proof in area.PROOFS),
)
PAGE: Final = PROJECT / "docs" / "proofs.md"
STORE: Final = PROJECT / "build" / "prove"
_CHANGES: Final = "status", "--porcelain", "--", ".", ":!docs/proofs.md"  # which other proofs write
_MARKS: Final = "<!-- prove:figures -->", "<!-- /prove:figures -->"
_PACKAGES: Final = ("fastapi", "starlette", "pydantic", "sqlalchemy", "asyncpg", "redis", "uvicorn", "schemathesis")
Json = dict[str, Any]  # Any: JSON


def main(arguments: Sequence[str] | None = None) -> int:
    names = [proof.name for proof in PROOFS]
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--share", type=float, default=1, help="of what is published, as in 0.1")
    parser.add_argument("--seed", type=int, default=26)
    parser.add_argument("--rest", action="store_true", help="only what was not played so on this commit: a run goes on")
    parser.add_argument("--report", action="store_true", help="write the page from what is kept, and play nothing")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in names]:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(names)}")
    wrong = 0
    if not given.report:
        chosen = [
            (proof, max(1, round(proof.full * given.share))) for proof in PROOFS if proof.name in (given.names or names)
        ]
        with shared_run(several_processes=False):
            wrong = sum(
                _play(proof, amount, given.seed)
                for proof, amount in chosen
                if not (given.rest and _is_played(proof, amount, given.seed))
            )
    _write_page()
    return 1 if wrong else 0


def _play(proof: Proof, amount: int, seed: int) -> int:
    """How many failures there were."""
    _say(f"== {proof.name}: {amount:,} {proof.what}, seed {seed}")
    started, figures = monotonic(), []
    for figure in _to_the_end(proof, amount, seed):
        figures.append(figure)
        _say(f"   {figure.count:,} {figure.unit}, {len(figure.failures)} failures: {figure.claim}. {figure.notes}")
        for failure in figure.failures[:SHOWN]:
            _say(f"!! {failure}")
    STORE.mkdir(parents=True, exist_ok=True)
    kept: Json = {
        "amount": amount,
        "what": proof.what,
        "seed": seed,
        "commit": _commit(),
        "day": datetime.now(UTC).date().isoformat(),
        "minutes": (monotonic() - started) / 60,
        "figures": [asdict(figure) for figure in figures],
    }
    (STORE / f"{proof.name}.json").write_text(json.dumps(kept, indent=1))
    return sum(len(figure.failures) for figure in figures)


def _to_the_end(proof: Proof, amount: int, seed: int) -> Iterator[Figure]:
    """One that breaks down is a failure, and the others are still to be played."""
    try:
        yield from proof.run(amount, seed)
    except Exception as error:  # noqa: BLE001 - whatever it was
        yield Figure("it is played to its end", "times", 1, [repr(error)])


def _is_played(proof: Proof, amount: int, seed: int) -> bool:
    path = STORE / f"{proof.name}.json"
    kept: Json = json.loads(path.read_text()) if path.exists() else {}
    so = {"amount": amount, "seed": seed, "commit": _commit()}
    return kept.items() >= so.items() and not any(figure["failures"] for figure in kept["figures"])


def _commit() -> str:
    return _git("rev-parse", "--short", "HEAD") + (" with changes" if _git(*_CHANGES) else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _write_page() -> None:
    text = PAGE.read_text()
    head, _, rest = text.partition(_MARKS[0])
    _, _, tail = rest.partition(_MARKS[1])
    PAGE.write_text("\n".join([f"{head}{_MARKS[0]}", "", *_table(), "", f"{_MARKS[1]}{tail}"]))


def _table() -> Iterator[str]:
    yield f"{described()}. {', '.join(f'{package} {version(package)}' for package in _PACKAGES)}."
    yield ""
    yield "| claim | how many | failures | |"
    yield "| --- | ---: | ---: | --- |"
    for proof in PROOFS:
        path = STORE / f"{proof.name}.json"
        if not path.exists():
            continue
        kept: Json = json.loads(path.read_text())
        yield (
            f"| **{proof.name}**: {kept['amount']:,} {kept['what']} | | | {kept['day']}, commit {kept['commit']}, "
            f"seed {kept['seed']}, {kept['minutes']:.0f} min |"
        )
        for each in kept["figures"]:
            figure = Figure(**each)
            yield f"| {figure.claim} | {figure.count:,} {figure.unit} | {len(figure.failures)} | {figure.notes} |"


if __name__ == "__main__":
    sys.exit(main())

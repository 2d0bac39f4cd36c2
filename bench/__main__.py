"""`python -m bench …`: measure, or write the report from what was measured."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from operator import methodcaller
from typing import Any, Final

from bench import further, identity, store
from bench.jobs import JOBS
from bench.machine import MissingError
from bench.measure import Result, measure, say
from bench.report import quick_table, write_report
from bench.servers import CONTENDERS, ContenderError, Surroundings, running_all
from bench.stage import sqlite_stage, stage

Measurement = Callable[[Result, Surroundings], dict[str, Any]]  # Any: JSON
FURTHER: Final[dict[str, Measurement]] = {
    "startup": further.start_up,
    "routes": further.many_routes,
    "switches": further.switched_off,
    "keys": further.by_api_key,
    "identity": identity.measure_identity,
    "rows": further.many_rows,  # last: it leaves a million users behind
}
PARTS: Final = ("jobs", *FURTHER, "sqlite")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        options.run(options)
    except (MissingError, ContenderError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything = commands.add_parser("all", help="every measurement, and the report")
    everything.set_defaults(run=lambda options: _measure_parts(PARTS, options))
    for part in PARTS:
        one = commands.add_parser(part, help=f"only {part}, and the report")
        one.set_defaults(run=lambda options, part=part: _measure_parts([part], options))
        if part == "jobs":
            _add_measure_options(one, list(CONTENDERS), rounds=5, seconds=4)
    _add_measure_options(everything, list(CONTENDERS), rounds=5, seconds=4)
    report = commands.add_parser("report", help="write docs/benchmarks.md from what was measured")
    report.set_defaults(run=lambda _: write_report())
    quick = commands.add_parser("quick", help="a few jobs of a few contenders, ratios on the terminal")
    quick.set_defaults(run=_quick)
    _add_measure_options(quick, ["floor", "ours"], rounds=3, seconds=2)
    quick.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a setting of ours")
    quick.add_argument("--sqlite", action="store_true", help="on SQLite and memory: floor and ours only")
    return parser.parse_args(arguments)


def _add_measure_options(parser: argparse.ArgumentParser, contenders: list[str], *, rounds: int, seconds: int) -> None:
    parser.add_argument("--jobs", type=_names(JOBS), default=list(JOBS), help=",".join(JOBS))
    parser.add_argument("--contenders", type=_names(CONTENDERS), default=contenders, help=",".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=int, default=seconds, help="of each run")


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return names or list(known)

    return split


def _measure_parts(parts: Sequence[str], options: argparse.Namespace) -> None:
    started = time.monotonic()
    if parts != ["sqlite"]:
        with stage() as surroundings:
            for part in parts:
                say(f"== {part} ({time.monotonic() - started:.0f} s)")
                if part == "jobs":
                    _six_jobs(surroundings, options)
                elif part in FURTHER:
                    _keep(part, FURTHER[part], surroundings)
    if "sqlite" in parts:
        say(f"== sqlite ({time.monotonic() - started:.0f} s)")
        with sqlite_stage() as surroundings:
            _keep("sqlite", further.on_sqlite, surroundings)
    write_report()
    say(f"== docs/benchmarks.md is written ({time.monotonic() - started:.0f} s)")


def _keep(part: str, measurement: Measurement, surroundings: Surroundings) -> None:
    result = Result()
    facts = measurement(result, surroundings)
    store.keep(part, result, rounds=further.ROUNDS, seconds=further.SECONDS, **facts)


def _six_jobs(surroundings: Surroundings, options: argparse.Namespace) -> None:
    result = Result()
    with running_all([CONTENDERS[name] for name in options.contenders], surroundings, {}) as servers:
        for name in options.jobs:
            measure(result, servers, methodcaller("job", name), rounds=options.rounds, seconds=options.seconds)
    store.keep("jobs", result, rounds=options.rounds, seconds=options.seconds, routes=surroundings.filler_routes)


def _quick(options: argparse.Namespace) -> None:
    result = Result()
    env = dict(pair.split("=", 1) for pair in options.env)
    contenders = [CONTENDERS[name] for name in options.contenders]
    with (
        sqlite_stage() if options.sqlite else stage() as surroundings,
        running_all(contenders, surroundings, env) as servers,
    ):
        for name in options.jobs:
            measure(result, servers, methodcaller("job", name), rounds=options.rounds, seconds=options.seconds)
    sys.stdout.write(quick_table(result))


if __name__ == "__main__":
    sys.exit(main())

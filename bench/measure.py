"""Rounds over jobs and contenders, interleaved, and ratios of the same round."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from bench import checks, data
from bench.jobs import JOBS, Job, Request
from bench.load import CONNECTIONS, drive, finish
from bench.servers import Contender, Running

WARM_UP_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One contender at one job in one round."""

    per_second: float
    cpu_us: float
    """Time of the processor per request, all threads of the contender."""
    p50_ms: float
    p99_ms: float
    memory_mb: float


@dataclass(slots=True)
class Result:
    """job → contender → its rounds."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, job: str, contender: str, run: Run) -> None:
        self.runs.setdefault(job, {}).setdefault(contender, []).append(run)

    def value(self, job: str, contender: str, of: Callable[[Run], float] = lambda run: run.per_second) -> float | None:
        runs = self.runs.get(job, {}).get(contender)
        return median(of(run) for run in runs) if runs else None

    def ratios(self, job: str, contender: str, against: str) -> list[float]:
        """Of each round, so that what slows the machine down for a while slows both."""
        by_contender = self.runs.get(job, {})
        pairs = zip(by_contender.get(contender, []), by_contender.get(against, []), strict=False)
        return [mine.per_second / theirs.per_second for mine, theirs in pairs if theirs.per_second]

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        return asdict(self)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "Result":  # Any: JSON
        runs = {
            job: {contender: [Run(**run) for run in runs] for contender, runs in contenders.items()}
            for job, contenders in written["runs"].items()
        }
        return cls(runs, written["problems"])


def measure(  # noqa: PLR0913 - what a measurement is made of
    result: Result,
    servers: Sequence[Running],
    job_of: Callable[[Contender], Job],
    *,
    rounds: int,
    seconds: int,
    connections: int = CONNECTIONS,
) -> None:
    """Right answers first, then a warm-up, then the rounds. `job_of` tells what each contender is asked."""
    tasks = []
    for server in servers:
        job = job_of(server.contender)
        if job.name in JOBS and job.name not in server.contender.jobs:
            continue
        requests = job.make_requests(server.surroundings.database.admin_id)
        checks.require_right_answers(server, job, requests)
        finish(drive(server, job, requests, WARM_UP_SECONDS, connections))
        tasks.append((server, job, requests))
    for number in range(rounds):
        # Each is the first once: who comes first may find a cooler machine.
        turn = number % len(tasks)
        for server, job, requests in (*tasks[turn:], *tasks[:turn]):
            run, problems = _run(server, job, requests, seconds, connections)
            result.add(job.name, server.label, run)
            told = [f"{server.label}, {job.name}, round {number + 1}: {problem}" for problem in problems]
            result.problems += told
            for problem in told:
                say(f"!! {problem}")
    say(
        f"   {tasks[0][1].name}: "
        + ", ".join(f"{s.label} {result.value(j.name, s.label) or 0:,.0f}" for s, j, _ in tasks)
    )


def _run(server: Running, job: Job, requests: list[Request], seconds: int, connections: int) -> tuple[Run, list[str]]:
    problems: list[str] = []
    server.token()  # before the log is emptied: it may need a log-in
    if job.writes:
        data.forget_orders(server.surroundings.database)
    if server.contender.is_ours:
        checks.forget_log(server)
    before = server.cpu_seconds()
    wrk = drive(server, job, requests, seconds, connections)
    if server.contender.is_ours:
        time.sleep(seconds / 2)
        problems += checks.probe(server, job, requests[0])
    load = finish(wrk)
    cpu = server.cpu_seconds() - before
    if not load.requests:
        problems.append("no request was answered in time")
    if load.failures or load.socket_errors:
        problems.append(f"{load.failures} answers were no success, {load.socket_errors} socket errors")
    if server.contender.is_ours:
        problems += checks.log_problems(server, job, load.requests, requests[0].status)
    if job.writes and not data.orders_agree(server.surroundings.database):
        problems.append("orders and their lines do not agree")
    run = Run(load.per_second, cpu / max(load.requests, 1) * 1e6, load.p50_ms, load.p99_ms, server.memory_mb())
    return run, problems


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

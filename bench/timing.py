"""Whether the time of an answer tells what its body does not: kinds of requests in turn, in random order, one by one."""

import asyncio
import gc
import json
import math
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, pvariance
from typing import Any, Final

import asyncpg

from bench.chains import status_and_length, written
from bench.measure import say
from bench.servers import ContenderError, Running

WARM_UP_ROUNDS: Final = 10
RESAMPLES: Final = 2_000
CONFIDENCE: Final = 0.95
QUICKEST: Final = 0.9
"""The part of the answers that a clever attacker looks at: the others say more about the machine."""
EARLY: Final = 0.1
"""The quantile that noise, which only ever adds, moves least: what is compared by those who do it well (Crosby, 2009)."""
FOLLOWING: Final = 50
_PAUSE_SECONDS: Final = 0.002
_SETTLE_SECONDS: Final = 10
_WAITING: Final = "SELECT EXISTS (SELECT FROM outbox_events WHERE delivered_at IS NULL AND dead_at IS NULL)"
_LIVE: Final = "/health/live"


@dataclass(frozen=True, slots=True)
class Kind:
    title: str
    body: Callable[[int], dict[str, str]]
    """Of so many already asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """The first kind is what the others are compared with; an attacker can always ask that."""

    title: str
    path: str
    status: int
    kinds: tuple[Kind, ...]
    allowed: int
    window_seconds: int
    """The throttle as it is set by default."""
    seconds: float
    """How long it is asked."""
    most_rounds: int
    settles: bool = False
    """Whether it leaves work behind the answer, which must not disturb the next one."""
    times_what_follows: bool = False
    """Not the answer is timed, but small requests at once behind it."""


class _Line:
    """One connection, without an event loop between the clock and the socket."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, float]:
        """Status, and microseconds."""
        started = time.perf_counter_ns()
        self._socket.sendall(request)
        received = self._socket.recv(65_536)
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        status, length = status_and_length(head)
        while len(body) < length:
            body += self._more()
        return status, (time.perf_counter_ns() - started) / 1000

    def _more(self) -> bytes:
        part = self._socket.recv(65_536)
        if not part:
            raise ContenderError("The service closed a connection while its answers were timed")
        return part

    def close(self) -> None:
        self._socket.close()


def compare(server: Running, question: Question) -> dict[str, Any]:  # Any: JSON
    """Each kind against the first."""
    times = asyncio.run(_times(server, question))
    base, *others = question.kinds
    say(f"   {question.title}: {len(times[0])} rounds")
    return {
        "title": question.title,
        "base": base.title,
        "rounds": len(times[0]),
        "median_us": median(times[0]),
        "allowed": question.allowed,
        "window_seconds": question.window_seconds,
        "against": [
            {"title": kind.title, **_difference(times[0], mine)} for kind, mine in zip(others, times[1:], strict=True)
        ],
    }


async def _times(server: Running, question: Question) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in question.kinds]
    line = _Line(server.port)
    watcher = await asyncpg.connect(server.surroundings.database.url)
    gc.collect()
    gc.disable()
    try:
        number, end = 0, math.inf
        while number < question.most_rounds + WARM_UP_ROUNDS and time.monotonic() < end:
            for place in random.sample(range(len(question.kinds)), len(question.kinds)):
                passed = _ask(line, question, question.kinds[place].body(number))
                if number >= WARM_UP_ROUNDS:
                    times[place].append(passed)
                if question.settles:
                    await _settle(watcher)
                time.sleep(_PAUSE_SECONDS)
            number += 1
            if number == WARM_UP_ROUNDS:
                end = time.monotonic() + question.seconds
    finally:
        gc.enable()
        line.close()
        await watcher.close()
    return times


def _ask(line: _Line, question: Question, body: dict[str, str]) -> float:
    status, passed = line.ask(written(line.port, "POST", question.path, json.dumps(body).encode()))
    if status != question.status:
        raise ContenderError(f"{question.title}: {question.path} answered {status} instead of {question.status}")
    if question.times_what_follows:
        passed = sum(line.ask(written(line.port, "GET", _LIVE))[1] for _ in range(FOLLOWING))
    return passed


async def _settle(watcher: asyncpg.Connection) -> None:
    deadline = time.monotonic() + _SETTLE_SECONDS
    while await watcher.fetchval(_WAITING):
        if time.monotonic() > deadline:
            raise ContenderError("Events of the outbox are not delivered")
        time.sleep(_PAUSE_SECONDS)


def _difference(base: Sequence[float], mine: Sequence[float]) -> dict[str, float]:
    """In microseconds."""
    low, high = _interval(base, mine, median)
    early_low, early_high = _interval(base, mine, _early)
    quick_base, quick_mine = _quickest(base), _quickest(mine)
    return {
        "median": median(mine) - median(base),
        "low": low,
        "high": high,
        "early": _early(mine) - _early(base),
        "early_low": early_low,
        "early_high": early_high,
        "mean": fmean(mine) - fmean(base),
        "deviation": _pooled(base, mine),
        "quick_mean": fmean(quick_mine) - fmean(quick_base),
        "quick_deviation": _pooled(quick_base, quick_mine),
    }


def _interval(
    base: Sequence[float], mine: Sequence[float], of: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """By bootstrap. Rounds are drawn, not answers: what slowed a round down slowed all its kinds."""
    rounds = range(len(base))
    drawn = []
    for _ in range(RESAMPLES):
        picks = random.choices(rounds, k=len(base))
        drawn.append(of([mine[n] for n in picks]) - of([base[n] for n in picks]))
    drawn.sort()
    outside = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return drawn[outside], drawn[-outside - 1]


def _early(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * EARLY)]


def _quickest(times: Sequence[float]) -> list[float]:
    return sorted(times)[: math.ceil(len(times) * QUICKEST)]


def _pooled(one: Sequence[float], other: Sequence[float]) -> float:
    return math.sqrt((pvariance(one) + pvariance(other)) / 2)


def requests_to_tell(difference: float, deviation: float) -> float:
    """Of each of two kinds, until their means differ, with 95 % for each of the two errors."""
    if not difference:
        return math.inf
    both = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) + NormalDist().inv_cdf(CONFIDENCE)
    return max(1.0, 2 * (both * deviation / difference) ** 2)

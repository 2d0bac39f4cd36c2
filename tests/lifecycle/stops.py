"""SIGTERM again and again, to a service that takes orders, reads half a request and delivers mails at that moment."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import ClassVar
from uuid import uuid4

from tests.faults.kills import MortalService, Outcome, play
from tests.http.wire import Wire
from tests.support.postgres import Kind
from tests.support.resources import connect
from tests.support.server import STOP_SECONDS
from tests.support.waiting import wait_for

HALVES = 4
_BEGUN_BYTES = 10
_REFUSED = (401, 10002)
_STOPPING = "Shutting down"


@dataclass(frozen=True)
class Stop:
    code: int
    seconds: float
    answered: list[tuple[int, int]]
    """(status, code) of requests whose second half came after the service had begun to stop."""
    crashes: int
    """Stack traces that it wrote."""

    def problems(self) -> Iterator[str]:
        if self.code != 0:
            yield f"exit code {self.code}"
        if self.answered != [_REFUSED] * HALVES:
            yield f"requests under way were answered with {self.answered}"
        if self.crashes:
            yield f"{self.crashes} stack traces"


@dataclass
class GentleService(MortalService):
    """Its end is SIGTERM, and in the midst of requests."""

    stops: list[Stop] = field(default_factory=list)
    forked: ClassVar[bool] = False

    def kill(self) -> None:
        begins_at = len(self.server.output())
        with ExitStack() as stack:
            log_ins = [_log_in() for _ in range(HALVES)]
            halves = [self._half(stack, log_in) for log_in in log_ins]
            begun = monotonic()
            self.server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: _STOPPING in self.server.output()[begins_at:])
            answered = [self._rest(wire, log_in) for wire, log_in in zip(halves, log_ins, strict=True)]
        code = self.server.process.wait(STOP_SECONDS)
        seconds, said = monotonic() - begun, self.server.output()[begins_at:]
        self.stops.append(Stop(code, seconds, answered, said.count("Traceback")))

    def _half(self, stack: ExitStack, log_in: bytes) -> Wire:
        """A request that somebody reads already, since it was told to go on."""
        wire = Wire(stack.enter_context(connect(self.port)))
        wire.send(
            "POST /api/v1/auth/login HTTP/1.1",
            "Content-Type: application/json",
            f"Content-Length: {len(log_in)}",
            "Expect: 100-continue",
        )
        status, _ = wire.head()
        assert status == 100
        wire.write(log_in[:_BEGUN_BYTES])
        return wire

    def _rest(self, wire: Wire, log_in: bytes) -> tuple[int, int]:
        wire.write(log_in[_BEGUN_BYTES:])
        answer = wire.answer()
        return answer.status, answer.json()["code"]


def _log_in() -> bytes:
    """Of somebody else each time: one account is refused after some failures."""
    return json.dumps({"email": f"{uuid4().hex}@example.com", "password": "plum-lantern-quarry-81"}).encode()


@dataclass(frozen=True)
class Stopped:
    outcome: Outcome
    stops: list[Stop]

    def problems(self) -> list[str]:
        found = [f"stop {number}: {problem}" for number, stop in enumerate(self.stops) for problem in stop.problems()]
        found += [f"{name}: {wrong[:5]}" for name, wrong in self.outcome.problems().items()]
        answers = self.outcome.told.answers
        found += [f"{count} answers {answer}" for answer, count in answers.items() if answer.startswith("5")]
        return found


def play_stops(database: Kind, *, rounds: int, seed: int, workers: int) -> Stopped:
    stops: list[Stop] = []

    @dataclass
    class Counted(GentleService):
        stops: list[Stop] = field(default_factory=lambda: stops)

    outcome = play(database, "service", rounds=rounds, seed=seed, workers=workers, make_service=Counted)
    return Stopped(outcome, stops)

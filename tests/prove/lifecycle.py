"""Starts that are refused, stops under load, and restarts that nobody notices."""

from collections.abc import Iterator

from tests.lifecycle.nginx import find_nginx, running_nginx
from tests.lifecycle.proxy import running_proxy
from tests.lifecycle.refusals import REFUSALS, refuse_all
from tests.lifecycle.rolling import restart_under_load
from tests.lifecycle.stops import play_stops
from tests.prove.figures import Figure, Proof
from tests.support.postgres import Kind

REFUSAL_SECONDS = 2
STOP_SECONDS = 20


def _refusals(amount: int, _: int) -> Iterator[Figure]:
    # One at a time: each has the processor for itself, as where it is started.
    refusals = refuse_all(REFUSALS[:amount], at_once=1)
    wrong = [problem for refusal in refusals for problem in refusal.problems()]
    wrong += [f"{each.bad.what}: {each.seconds:.1f} s" for each in refusals if each.seconds > REFUSAL_SECONDS]
    longest = max((each.seconds for each in refusals), default=0)
    claim = f"bad settings stop the process within {REFUSAL_SECONDS} s, named and not shown"
    yield Figure(claim, "starts", len(refusals), wrong, f"the longest took {longest:.2f} s")


def _stops(amount: int, seed: int) -> Iterator[Figure]:
    """Half of them with one worker, half with two."""
    kinds: list[tuple[Kind, int]] = [("postgres", 1), ("postgres", 2)]
    for database, workers in kinds:
        stopped = play_stops(database, rounds=max(1, amount // len(kinds)), seed=seed, workers=workers)
        wrong = stopped.problems()
        wrong += [f"{stop.seconds:.1f} s" for stop in stopped.stops if stop.seconds > STOP_SECONDS]
        halves = sum(len(stop.answered) for stop in stopped.stops)
        notes = (
            f"{len(stopped.outcome.told.receipts)} orders acknowledged, {stopped.outcome.orders} there, "
            f"{stopped.outcome.mails} mails; "
            f"{halves} requests were half sent at SIGTERM, all answered; longest stop "
            f"{max((stop.seconds for stop in stopped.stops), default=0):.1f} s"
        )
        yield Figure(
            f"SIGTERM under load loses nothing, {workers} worker(s)", "stops", len(stopped.stops), wrong, notes
        )


def _restarts(amount: int, _: int) -> Iterator[Figure]:
    for name, proxy in (("nginx", running_nginx), ("a plain proxy", running_proxy)):
        if name == "nginx" and find_nginx() is None:
            continue
        restarted = restart_under_load(proxy, restarts=amount)
        notes = ", ".join(f"{count} times {answer}" for answer, count in restarted.seen.answers.items())
        claim = f"a rolling restart behind {name} is seen by no client"
        yield Figure(claim, "restarts", restarted.restarts, restarted.problems(), notes)


PROOFS: tuple[Proof, ...] = (
    Proof("start-up-refusals", _refusals, full=len(REFUSALS), what="bad configurations"),
    Proof("graceful-stops", _stops, full=200, what="stops"),
    Proof("rolling-restarts", _restarts, full=20, what="restarts"),
)

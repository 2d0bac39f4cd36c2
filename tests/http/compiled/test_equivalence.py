"""Compiled routes do what FastAPI's own path does: same bytes, same order of everything, same log.

Apps and requests are drawn by Hypothesis; `EQUIVALENCE_EXAMPLES=20000` makes a long run of it.
"""

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, assume, event, given, note, settings

from tests.http.compiled.grammar import Script, scripts
from tests.http.compiled.stage import NoAppError, Stage, Tally, Twins, listening, twins

EXAMPLES = int(os.environ.get("EQUIVALENCE_EXAMPLES", "150"))
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def run() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def listen() -> Iterator[Callable[[Stage], None]]:
    with listening() as stage:
        yield stage


def test_generated_apps_answer_generated_requests_alike(run: asyncio.Runner, listen: Callable[[Stage], None]) -> None:
    tally = Tally()

    @MANY
    @given(scripts())
    def check(script: Script) -> None:
        note(script.app.source)
        try:
            pair = twins(script.app.source, listen, tally, root_path=script.app.root_path)
        except NoAppError as refused:
            event(f"refused by FastAPI: {type(refused.__cause__).__name__}")
            assume(False)  # noqa: FBT003 - as Hypothesis has it
        try:
            run.run(play(pair, script))
        finally:
            pair.retire()

    check()
    print(tally)  # noqa: T201 - for a long run


async def play(pair: Twins, script: Script) -> None:
    for request in script.requests:
        compiled, ordinary = await pair.play(request)
        assert compiled == ordinary, request

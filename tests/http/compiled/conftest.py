"""One event loop and one log for all twins of a process."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from src import config
from src.shared.database import close_engine
from tests.http.compiled.stage import Stage, listening


@pytest.fixture(scope="session")
def run() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(autouse=True)
def closed_engine(own_engine: None, run: asyncio.Runner) -> Iterator[None]:
    """A refusal is written down, and opens what the settings of the stage name."""
    yield
    run.run(close_engine())


@pytest.fixture(scope="module")
def listen() -> Iterator[Callable[[Stage], None]]:
    before = config._current
    with listening() as stage:
        yield stage
    config._current = before

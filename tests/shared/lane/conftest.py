from collections.abc import AsyncIterator, Iterator

import pytest

from src.shared import watching
from tests.shared.lane.things import Doors, opened
from tests.support.postgres import Kind


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody watches the tables of these tests."""
    with monkeypatch.context() as patch:
        patch.setattr(watching, "_tables", ())
        watching._judged.cache_clear()
        yield
    watching._judged.cache_clear()


@pytest.fixture
async def doors(database_kind: Kind) -> AsyncIterator[Doors]:
    async with opened(database_kind) as both:
        yield both


@pytest.fixture
async def postgres() -> AsyncIterator[Doors]:
    async with opened(
        "postgres", statement_timeout_seconds=1, pool_size=2, max_overflow=0, pool_timeout_seconds=1
    ) as both:
        yield both

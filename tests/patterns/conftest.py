"""One service with all patterns in it, on each database."""

from collections.abc import Iterator

import pytest

from tests.patterns.far_side import FarSide, running_far_side
from tests.support.server import Server, running_server

QUARTER_PAST = 5.75
"""Nepal: hours and a fraction."""


@pytest.fixture(scope="session")
def far_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarSide]:
    """api.example.com, as far as the service can tell."""
    with running_far_side(tmp_path_factory.mktemp("far-side")) as running:
        yield running


@pytest.fixture(scope="session")
def server_env(server_env: dict[str, str], far_side: FarSide) -> dict[str, str]:
    return {
        **server_env,
        **far_side.env,
        "APP__TIMEZONE": str(QUARTER_PAST),
        "APP__MAX_RETRIES": "4",
        "LOG__FORMAT": "json",
        "RETRY__FIRST_DELAY_SECONDS": "0.001",
    }


@pytest.fixture(scope="session")
def server(server_env: dict[str, str]) -> Iterator[Server]:
    with running_server(server_env, "tests.patterns.apps.service:app") as running:
        yield running

"""The service with a team's routers in it, once for all tests of this folder that only ask."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.support.server import Server, running_server

TEAM = "tests.http.apps.service:app"


@pytest.fixture(scope="session")
def team_server() -> Iterator[Server]:
    with running_server({}, TEAM) as running:
        yield running


@pytest.fixture
def team(team_server: Server) -> Iterator[httpx2.Client]:
    with client_of(team_server) as client:
        yield client


def client_of(server: Server) -> httpx2.Client:
    return httpx2.Client(base_url=server.url, timeout=15, verify=False)

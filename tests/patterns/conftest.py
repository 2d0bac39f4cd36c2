"""One service with all patterns in it, on each database."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import PASSWORD, PATIENT
from tests.patterns.far_side import FarSide, running_far_side
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import Server, run_command, running_server

NEPAL = 5.75
"""Hours and a fraction."""
ADMIN_EMAIL = "admin@example.com"


@dataclass(frozen=True)
class Service:
    env: dict[str, str]
    server: Server


@pytest.fixture(scope="session")
def far_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarSide]:
    """api.example.com, as far as the service can tell."""
    with running_far_side(tmp_path_factory.mktemp("far-side")) as running:
        yield running


@pytest.fixture(scope="session")
def services(
    far_side: FarSide, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Service]]:
    """Each is started when it is first asked for, and runs for all chapters: most of them ask for both."""
    with ExitStack() as running:

        @cache
        def start(kind: Kind) -> Service:
            database_url = fresh_database(kind)
            running.callback(drop_database, database_url)
            env = {
                **PATIENT,
                **far_side.env,
                "DB__URL": database_url,
                "CACHE__URL": "memory://" if kind == "sqlite" else valkey_url,
                "CACHE__NAMESPACE": f"patterns-{uuid4().hex[:12]}",
                "APP__TIMEZONE": str(NEPAL),
                "APP__MAX_RETRIES": "4",
                "LOG__FORMAT": "json",
                "RETRY__FIRST_DELAY_SECONDS": "0.001",
            }
            _create_admin(env, tmp_path_factory.mktemp("admin"))
            return Service(env, running.enter_context(running_server(env, "tests.patterns.apps.service:app")))

        yield start


def _create_admin(env: dict[str, str], cwd: Path) -> None:
    made = run_command("create-admin", "--email", ADMIN_EMAIL, env=env, cwd=cwd, stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="session")
def server_env(services: Callable[[Kind], Service], database_kind: Kind) -> dict[str, str]:
    return services(database_kind).env


@pytest.fixture(scope="session")
def database_url(server_env: dict[str, str]) -> str:
    return server_env["DB__URL"]


@pytest.fixture(scope="session")
def server(services: Callable[[Kind], Service], database_kind: Kind) -> Server:
    return services(database_kind).server


@pytest.fixture(scope="session")
def admin_email() -> str:
    return ADMIN_EMAIL

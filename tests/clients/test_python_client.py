"""A client that a public generator makes from the OpenAPI of the running service, in the hands of a team."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.conftest import PASSWORD
from tests.support.server import Server

# The document is the same on each database.
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True, scope="session")

PROGRAM = Path(__file__).parent / "python" / "program.py"
GENERATOR_CONFIG = PROGRAM.with_name("generator.yml")
PACKAGE = "undercroft_client"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `python …` where the generated client can be imported, and fails with what it printed."""
    directory = tmp_path_factory.mktemp("client")

    def run_python(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(directory), "MYPYPATH": str(directory)} | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    (directory / "openapi.json").write_bytes(
        httpx2.get(f"{server.url}/openapi.json", verify=False).raise_for_status().content
    )
    generated = run_python(
        *("-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", GENERATOR_CONFIG),
        *("--meta", "none", "--output-path", PACKAGE, "--fail-on-warning"),
    )
    assert "warning" not in (generated.stdout + generated.stderr).lower()
    return run_python


def test_a_program_on_the_generated_client_type_checks(run: Run) -> None:
    run("-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-incremental", PROGRAM)


def test_a_program_on_the_generated_client_does_its_work(run: Run, server: Server, admin_email: str) -> None:
    done = run(PROGRAM, API_URL=server.url, API_EMAIL=admin_email, API_PASSWORD=PASSWORD)

    assert "users, order" in done.stdout

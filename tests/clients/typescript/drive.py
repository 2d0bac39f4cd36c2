"""Runs the npm scripts of this directory, in order, against a service of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.support.server import run_command, running_server

DIRECTORY = Path(__file__).parent
INSTALL = ("npm", "ci", "--loglevel=error")
SCRIPTS = ("generate", "check", "start")


def main() -> int:
    if not _passes(INSTALL, {}):
        print("0 passed, 1 failed")  # noqa: T201 - whoever runs all tests reads this line
        return 1
    passed = 0
    with _service() as env:
        for script in SCRIPTS:
            if not _passes(("npm", "run", "--silent", script), env):
                break
            passed += 1
    failed = int(passed < len(SCRIPTS))
    print(f"{passed} passed, {failed} failed")  # noqa: T201 - as above
    return failed


@contextmanager
def _service() -> Iterator[dict[str, str]]:
    """What a program must know of a running service: its address, and who administers it."""
    email, password = "admin@example.com", uuid4().hex
    with tempfile.TemporaryDirectory(prefix="undercroft-typescript-") as directory:
        place = Path(directory)
        settings = {"DB__URL": f"sqlite+aiosqlite:///{place / 'service.sqlite'}"}
        _done(run_command("migrate", env=settings, cwd=place))
        _done(run_command("create-admin", "--email", email, env=settings, cwd=place, stdin=f"{password}\n"))
        with running_server(settings) as server:
            yield {"API_URL": server.url, "API_EMAIL": email, "API_PASSWORD": password}


def _done(command: subprocess.CompletedProcess[str]) -> None:
    assert command.returncode == 0, command.stdout + command.stderr


def _passes(command: Sequence[str], env: dict[str, str]) -> bool:
    sys.stdout.flush()
    return subprocess.run(command, cwd=DIRECTORY, env=os.environ | env, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

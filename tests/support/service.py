"""A service of a test's own, on a database of its own: with settings that others must not have, or to be stopped."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx2

from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import STOP_SECONDS, Server, child_environment, run_command, running_server

ADMIN = "admin@example.com"


@dataclass(frozen=True)
class Place:
    """A migrated database with an administrator, and all that a process needs to work on it."""

    env: dict[str, str]
    folder: Path

    @property
    def database_url(self) -> str:
        return self.env["DB__URL"]

    def run(self, *arguments: str, stdin: str = "", **env: str) -> tuple[int, str]:
        """`python -m src …`: (exit code, all that it said)."""
        ended = run_command(*arguments, env=self.env | env, cwd=self.folder, stdin=stdin)
        return ended.returncode, ended.stdout + ended.stderr

    @contextmanager
    def service(self, *, workers: int = 1, **env: str) -> Iterator["Service"]:
        with (
            running_server(self.env | env, workers=workers, cwd=self.folder) as server,
            httpx2.Client(base_url=server.url, timeout=20, verify=False) as client,
        ):
            yield Service(server, client)

    @contextmanager
    def worker(self, **env: str) -> Iterator[None]:
        """`python -m src worker` until the block ends; it must then stop by itself."""
        with (self.folder / "worker.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "src", "worker"],
                cwd=self.folder,
                env=child_environment(self.env | env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0, (self.folder / "worker.log").read_text()
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Service:
    server: Server
    client: httpx2.Client

    def post(self, path: str, body: object = None, *, token: str = "") -> httpx2.Response:
        return self.client.post(f"/api/v1/{path}", json=body, headers=bearer(token) if token else {})

    def get(self, path: str, *, token: str = "", **query: str) -> httpx2.Response:
        return self.client.get(f"/api/v1/{path}", params=query, headers=bearer(token) if token else {})

    def register(self, email: str = "") -> str:
        """The address."""
        email = email or f"{uuid4().hex}@example.com"
        data_of(self.post("auth/register", {"email": email, "password": PASSWORD}), 201)
        return email

    def log_in(self, email: str = ADMIN, password: str = PASSWORD) -> dict[str, str]:
        letter: dict[str, str] = data_of(self.post("auth/login", {"email": email, "password": password}))
        return letter


@contextmanager
def own_place(kind: Kind, **env: str) -> Iterator[Place]:
    url = fresh_database(kind)
    with place_on(url, **env) as place:
        yield place
    drop_database(url)


@contextmanager
def place_on(database_url: str, **env: str) -> Iterator[Place]:
    """On a migrated database that is the caller's to drop."""
    with TemporaryDirectory(prefix="undercroft-place-") as folder:
        place = Place(
            {"DB__URL": database_url, "AUTH__SECRET": uuid4().hex + uuid4().hex, **PATIENT, **env}, Path(folder)
        )
        code, said = place.run("create-admin", "--email", ADMIN, stdin=f"{PASSWORD}\n")
        assert code == 0, said
        yield place

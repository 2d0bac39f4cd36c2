"""A service of a test's own, on a database of its own: with settings that others must not have, or to be stopped."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx2

from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of
from tests.support.postgres import RUN_VARIABLE, Kind, drop_database, prepared_database
from tests.support.server import STOP_SECONDS, Server, run_command, running_server, start_process

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
            process = start_process(
                ["src", "worker"],
                env=self.env | env,
                cwd=self.folder,
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
    url = prepared_database(kind, "with-admin", _create_admin)
    with _place(url, **({"AUTH__SECRET": _secret_of_run()} | env)) as place:
        yield place
    drop_database(url)


@contextmanager
def place_on(database_url: str, **env: str) -> Iterator[Place]:
    """On a migrated database that is the caller's to drop."""
    with _place(database_url, **({"AUTH__SECRET": uuid4().hex + uuid4().hex} | env)) as place:
        _create_admin(database_url, place.env["AUTH__SECRET"])
        yield place


@contextmanager
def _place(database_url: str, **env: str) -> Iterator[Place]:
    with TemporaryDirectory(prefix="undercroft-place-") as folder:
        yield Place({"DB__URL": database_url, **PATIENT, **env}, Path(folder))


def _create_admin(database_url: str, secret: str = "") -> None:
    env = {"DB__URL": database_url, "AUTH__SECRET": secret or _secret_of_run()}
    with TemporaryDirectory(prefix="undercroft-admin-") as folder:
        made = run_command("create-admin", "--email", ADMIN, env=env, cwd=Path(folder), stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stdout + made.stderr


def _secret_of_run() -> str:
    """The audit log of a copied database goes on with the key that it was begun with."""
    return sha256(os.environ[RUN_VARIABLE].encode()).hexdigest()

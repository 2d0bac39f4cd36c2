"""The contenders as processes: started on a core of their own, measured from /proc, stopped."""

import http.client
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jwt

from bench.contenders import given
from bench.data import ADMIN_EMAIL, ADMIN_PASSWORD, Database
from bench.jobs import JOBS, OUR_ORDER, Job
from tests.support.ports import reserved_port
from tests.support.server import child_environment

START_SECONDS: Final = 60
STOP_SECONDS: Final = 25
TOKEN_TTL_SECONDS: Final = 3600
_UVICORN: Final = (
    "-m", "uvicorn", "--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log",
    "--log-level", "warning", "--no-proxy-headers", "--no-server-header",
)  # fmt: skip


class ContenderError(Exception):
    """A contender that does not start, does not stop or does not answer as it must."""


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    title: str
    module: str
    is_ours: bool = False
    jobs: tuple[str, ...] = tuple(JOBS)

    def job(self, name: str) -> Job:
        return OUR_ORDER if self.is_ours and name == "order" else JOBS[name]


CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender("floor", "floor", "bench.contenders.floor"),
        Contender("ours", "Undercroft", "bench.contenders.ours", is_ours=True),
        Contender("blacksheep", "BlackSheep", "bench.contenders.blacksheep_app"),
        Contender("plain", "BlackSheep, static only", "bench.contenders.blacksheep_plain", jobs=("static",)),
        Contender("litestar", "Litestar", "bench.contenders.litestar_app"),
        Contender("bare", "bare FastAPI", "bench.contenders.bare_fastapi"),
        Contender("ninja", "Django Ninja", "bench.contenders.django_ninja_app"),
    )
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a contender runs with."""

    database: Database
    cache_url: str
    core: int
    place: Path
    filler_routes: int
    """As many as the service has of its own."""
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))


@dataclass
class Running:
    contender: Contender
    label: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    started_seconds: float
    """From its start to its first answer."""
    surroundings: Surroundings
    by_key: bool = False
    """Callers show an API key, and no access token."""
    _token: tuple[float, str] | None = None

    def token(self) -> str:
        """One that outlives the next measurement."""
        if self._token is None or self._token[0] < time.monotonic():
            self._token = time.monotonic() + TOKEN_TTL_SECONDS / 2, self._new_token()
        return self._token[1]

    def _new_token(self) -> str:
        if not self.contender.is_ours:
            claims = {
                "iss": given.ISSUER,
                "aud": given.AUDIENCE,
                "sub": str(self.surroundings.database.admin_id),
                "iat": int(time.time()),
                "exp": int(time.time()) + TOKEN_TTL_SECONDS,
                "scopes": [given.PERMISSION],
            }
            return jwt.encode(claims, self.surroundings.secret, given.ALGORITHM)
        body = json.dumps({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
        answer = self.ask("POST", "/api/v1/auth/login", body.encode(), {"Content-Type": "application/json"})
        if answer.status != http.HTTPStatus.OK:
            raise ContenderError(f"{self.label}: log-in answered {answer.status} {answer.body!r}")
        token: str = json.loads(answer.body)["data"]["access_token"]
        return self._new_key(token) if self.by_key else token

    def _new_key(self, token: str) -> str:
        letter = {"name": "bench", "permissions": ["*"], "current_password": ADMIN_PASSWORD}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        answer = self.ask("POST", "/api/v1/profile/security/api-keys", json.dumps(letter).encode(), headers)
        if answer.status != http.HTTPStatus.CREATED:
            raise ContenderError(f"{self.label}: a new key was answered {answer.status} {answer.body!r}")
        key: str = json.loads(answer.body)["data"]["key"]
        return key

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """User and system time of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Its proportional share of resident memory (PSS)."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        raise ContenderError("The kernel does not tell the memory of a process")

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@contextmanager
def running(  # noqa: PLR0913 - what a server is started with
    contender: Contender,
    surroundings: Surroundings,
    *,
    label: str | None = None,
    env: Mapping[str, str] | None = None,
    ready_path: str = "/bench/static",
    by_key: bool = False,
) -> Iterator[Running]:
    label = label or contender.name
    # In append mode, so that the log can be emptied between two runs.
    log = surroundings.place / f"{label.replace('/', '_').replace(' ', '_')}-{secrets.token_hex(4)}.log"
    with reserved_port() as port, log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(surroundings.core), sys.executable, *_command(contender, port)],
            cwd=surroundings.place,
            env=child_environment(_environment(contender, surroundings, port) | dict(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        server = Running(contender, label, port, process, log, 0.0, surroundings, by_key)
        try:
            server.started_seconds = _wait_until_ready(server, started, ready_path)
            yield server
        finally:
            _stop(server)
            log.unlink()


@contextmanager
def running_all(
    contenders: list[Contender], surroundings: Surroundings, env: Mapping[str, str]
) -> Iterator[list[Running]]:
    """Side by side; `env` is for ours."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(c, surroundings, env=env if c.is_ours else None)) for c in contenders]


def _command(contender: Contender, port: int) -> list[str]:
    if contender.is_ours:
        return ["-m", contender.module]
    return [*_UVICORN, "--port", str(port), f"{contender.module}:app"]


def _environment(contender: Contender, surroundings: Surroundings, port: int) -> dict[str, str]:
    env = {"DB__URL": surroundings.database.url, "CACHE__URL": surroundings.cache_url}
    if contender.is_ours:
        return env | {
            "APP__ENV": "production",
            "AUTH__SECRET": secrets.token_urlsafe(48),
            "AUTH__ACCESS_TOKEN_TTL_SECONDS": str(TOKEN_TTL_SECONDS),
            "DB__POOL_SIZE": str(given.POOL_SIZE),
            "DB__MAX_OVERFLOW": "0",
            "HTTP__ALLOWED_HOSTS": "127.0.0.1",
            "HTTP__PORT": str(port),
            "LOG__LEVEL": "INFO",
            # What is published is written; `python -m src worker` delivers it, on another core.
            "OUTBOX__DISPATCH": "false",
        }
    return env | {"BENCH_SECRET": surroundings.secret, "BENCH_FILLER_ROUTES": str(surroundings.filler_routes)}


def _wait_until_ready(server: Running, started: float, path: str) -> float:
    while True:
        try:
            if server.ask("GET", path).status == http.HTTPStatus.OK:
                return time.perf_counter() - started
        except (OSError, http.client.HTTPException):
            pass
        if server.process.poll() is not None or time.perf_counter() - started > START_SECONDS:
            raise ContenderError(f"{server.label} does not answer\n{server.output()}")
        time.sleep(0.005)


def _stop(server: Running) -> None:
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()

"""The service as its users meet it: a process of its own, a real socket, a clean environment."""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from tests.support.nursery import Forked, can_fork
from tests.support.ports import reserved_port

PROJECT = Path(__file__).resolve().parents[2]
SERVICE = "src.main:app"
START_SECONDS = 30
STOP_SECONDS = 25
COMMAND_SECONDS = 60
# What a process needs from its surroundings. Settings of the developer's shell (DB__URL, APP__ENV, …) stay outside.
INHERITED = (
    *("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "LANG", "LC_ALL"),
    *("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"),
)


class ServerError(AssertionError):
    """A server that did not start or did not stop as it must; its text ends with what the server printed."""


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        """Whatever it has written to standard output and standard error so far."""
        return self.log.read_text(errors="replace")

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait: the exit code, negative for a signal that it died of."""
        self.process.send_signal(with_signal)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise ServerError(f"still running {STOP_SECONDS} s after {with_signal.name}\n{self.output()}") from None

    def wait_until_ready(self) -> None:
        deadline = monotonic() + START_SECONDS
        while not self._answers():
            try:
                code = self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                if monotonic() > deadline:
                    raise ServerError(f"no answer within {START_SECONDS} s\n{self.output()}") from None
            else:
                raise ServerError(f"ended with {code} before it answered\n{self.output()}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/live")
            # Below 500, not 200: an app of a few routes made for one test has no health routes.
            return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def running_server(
    env: Mapping[str, str] | None = None,
    app: str = SERVICE,
    *,
    workers: int = 1,
    cwd: Path | None = None,
    args: Sequence[str] = (),
) -> Iterator[Server]:
    """Serve the app from a process of its own until the block ends; it must then stop by itself with exit code 0.

    A block that wants another end calls `end` itself. Without `cwd` the server runs in an empty directory, where no
    `.env` of the developer lies. With several workers it is ready when the first one is.
    """
    with tempfile.TemporaryDirectory(prefix="undercroft-server-") as directory, reserved_port() as port:
        server = start_server(
            port,
            Path(directory) / "output.log",
            env,
            app,
            workers=workers,
            cwd=cwd or Path(directory),
            args=args,
        )
        process = server.process
        try:
            server.wait_until_ready()
            yield server
        except BaseException:
            process.kill()
            process.wait()
            print(server.output())  # noqa: T201 - pytest shows it with the failed test
            raise
        _leave(server, stops_with={0} if app == SERVICE else {0, -signal.SIGTERM})


def start_server(  # noqa: PLR0913 - what a process is started with
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    app: str = SERVICE,
    *,
    workers: int = 1,
    cwd: Path,
    args: Sequence[str] = (),
    forked: bool = True,
) -> Server:
    """A process that is the caller's to wait for and to end; one before it may have begun the log.

    Where its start is what is looked at, it is not to be forked: see nursery.py.
    """
    with log.open("ab") as output:
        process = start_process(
            [*_command(app), "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), *args],
            env=env,
            cwd=cwd,
            forked=forked and workers == 1,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Server(port, process, log)


def start_process(
    arguments: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path, forked: bool = True, **streams: Any
) -> subprocess.Popen[bytes]:
    """`python -m …` in a clean environment; streams are as Popen has them."""
    whole = child_environment(env)
    if forked and can_fork(cwd, whole):
        return Forked(arguments, cwd=cwd, env=whole, **streams)
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=cwd, env=whole, **streams)


def run_command(
    *arguments: str, env: Mapping[str, str], cwd: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """`python -m src …` in a clean environment; its exit code is the caller's to judge."""
    process = start_process(
        ["src", *arguments],
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            said, complained = process.communicate(stdin.encode(), COMMAND_SECONDS)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, said.decode(), complained.decode())


def child_environment(env: Mapping[str, str] | None) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    ours = {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", "APP__ENV": "test"}
    return inherited | ours | shortcuts() | dict(env or {})


def shortcuts() -> dict[str, str]:
    """Settings of a run with TEST_SHORTCUTS=off: all that is there for speed alone is switched off, nothing may change."""
    return _SHORTCUTS_OFF if os.environ.get("TEST_SHORTCUTS") == "off" else {}


_SHORTCUTS_OFF = {
    "HTTP__COMPILED_ROUTES": "false",
    "DB__DATA_LANE": "false",
    "AUTH__PRINCIPAL_CACHE_SECONDS": "0",
    "CACHE__LOCAL_SECONDS": "0",
}


def _command(app: str) -> list[str]:
    if app == SERVICE:
        return ["src", "serve"]
    # As src/cli.py starts it.
    return ["uvicorn", app, "--no-proxy-headers", "--no-server-header"]


def _leave(server: Server, stops_with: set[int]) -> None:
    if server.process.returncode is not None:
        return  # the test ended it, or the test noticed
    code = server.end()
    if code not in stops_with:
        raise ServerError(f"ended with {code} after SIGTERM\n{server.output()}")

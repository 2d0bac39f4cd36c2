"""Schemathesis over the whole API: each operation with good and bad input, and with what others gave (stateful)."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx2

from tests.fuzz import hooks
from tests.support.server import PROJECT
from tests.support.service import ADMIN, Service

Actor = Literal["admin", "customer", "nobody"]
ACTORS: Final[tuple[Actor, ...]] = ("admin", "customer", "nobody")
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
_WITHOUT_END: Final = str(10**9)
SETTINGS: Final = {
    # One address asks for everything.
    "AUTH__LOGINS_PER_ADDRESS": _WITHOUT_END,
    "AUTH__LOGIN_FAILURES_PER_ACCOUNT": _WITHOUT_END,
    "AUTH__LOGIN_FAILURES_PER_ADDRESS": _WITHOUT_END,
    "AUTH__LOGIN_FAILURES_OVERALL": _WITHOUT_END,
    "AUTH__REGISTRATIONS_PER_ADDRESS": _WITHOUT_END,
    "AUTH__MAIL_REQUESTS_PER_ADDRESS": _WITHOUT_END,
    "LOG__FORMAT": "json",
}
_ENDED: Final = (0, 1)
"""Exit codes: nothing was found, or something was."""


@dataclass(frozen=True)
class Fuzzed:
    cases: int
    failures: Sequence[str]
    shut_out: Sequence[str]
    """Operations that answered with 401 and 403 only."""


def fuzz(  # noqa: PLR0913 - a run has these parts
    service: Service, folder: Path, actor: Actor, *, examples: int, seed: int, below: str = "/"
) -> Fuzzed:
    """`examples` are those of each operation whose path begins so; `folder` takes the report."""
    report = folder / f"{actor}.json"
    url = service.server.url
    who = {} if actor == "nobody" else {"SCHEMATHESIS_HOOKS": hooks.__name__, hooks.SERVICE: url}
    if actor == "admin":
        who[hooks.ACCOUNT] = ADMIN
    # The first one makes the document, which takes longer on a busy machine than Schemathesis waits.
    httpx2.get(f"{url}/openapi.json", timeout=120, verify=False)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", str(examples), "--seed", str(seed)),
            *("--generation-database", "none", "--no-shrink", "--suppress-health-check", "all"),
            *("--request-timeout", "30", "--include-path-regex", f"^{below}"),
            *("--report", "json", "--report-json-path", str(report), "--no-color"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **who},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in _ENDED, ended.stdout + ended.stderr
    told: dict[str, Any] = json.loads(report.read_text())  # Any: JSON
    said = [f"{each['title']}: {', '.join(each['operations'])}" for each in told["failures"]]
    said += [str(each) for each in told["errors"]]
    # The sentences alone do not tell what was asked and answered.
    failures = [f"{actor}, seed {seed}: {each}\n{ended.stdout}" for each in said]
    return Fuzzed(told["test_cases"]["generated"], failures, told["warnings"]["missing_auth"])

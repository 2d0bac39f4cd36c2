"""Claims that have tests which count: their files are played in full, and pytest's report tells what they tried."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from xml.etree import ElementTree as ET

from tests.prove.figures import Figure, Proof
from tests.support.server import PROJECT


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    claim: str
    unit: str
    """What a test tried once, or as often as it says with the fixture `tried`."""
    tests: Sequence[str]
    """As pytest selects them."""


SUITES: Final = (
    Suite(
        "signatures",
        "each scored vector of Wycheproof's JSON Web Signatures is judged as it is labelled",
        "vectors",
        ["tests/auth/test_wycheproof.py::test_every_scored_vector_is_judged_as_it_is_labelled"],
    ),
    Suite(
        "access-matrix",
        "each actor is answered on each route as the matrix says, and nothing comes of what is refused",
        "answers (routes by actors)",
        ["tests/attacks/test_access_matrix.py::test_each_actor_is_answered_as_the_matrix_says"],
    ),
    Suite(
        "foreign-ids",
        "somebody else's id tells what an id of nothing tells, on each route that takes one",
        "ids (parameters by strangers)",
        ["tests/attacks/test_foreign_ids.py"],
    ),
    Suite(
        "refresh-races",
        "of one refresh token presented by fifty at once there is one successor, and what ended its session ends it for good",
        "races",
        ["tests/attacks/test_refresh_races.py", "tests/attacks/test_refresh_interleavings.py"],
    ),
    Suite(
        "demotions",
        "after an acknowledged demotion no request is judged by what was before it",
        "requests",
        ["tests/attacks/test_demotion.py", "tests/auth/test_revocation.py"],
    ),
    Suite(
        "single-use",
        "of fifty who use one code, log-in, set-up, assertion or answer at once, one succeeds",
        "races",
        [
            f"tests/auth/test_second_factors.py::test_of_fifty_{which}"
            for which in (
                "who_use_one_code_one_gets_in",
                "who_complete_one_log_in_one_does",
                "who_use_one_recovery_code_one_gets_in",
                "confirmations_one_gives_recovery_codes",
            )
        ]
        + ["tests/auth/test_passkeys.py::test_of_fifty_who_use_one_assertion_one_gets_in"]
        + [
            f"tests/auth/test_providers.py::test_of_fifty_{which}"
            for which in ("answers_at_once_one_is_taken", "confirmations_at_once_one_links")
        ],
    ),
    Suite(
        "payments",
        "what the provider approved before kill -9 is paid after it, and nothing is paid twice",
        "kills between the approval and our COMMIT",
        ["tests/faults/test_killed_payments.py"],
    ),
    Suite(
        "secrets",
        "no password, token or code is in the log, the tables, the cache or a mail that does not bring it",
        "tests",
        ["tests/auth/test_secrets.py"],
    ),
    Suite(
        "logs",
        "whatever comes in at any place that is logged, an event is one line of JSON of at most 8 KiB",
        "values (by place) and tests",
        ["tests/http/test_hostile_logs.py", "tests/shared/test_logging_hostile.py"],
    ),
)


def play(suite: Suite, amount: int, _: int) -> Iterator[Figure]:
    """In full, `amount` times."""
    cases = [case for _ in range(amount) for case in _played(suite)]
    tried = sum(_tried(case) for case in cases)
    yield Figure(
        suite.claim, suite.unit, tried, [said for case in cases for said in _failures(case)], f"{len(cases)} tests"
    )


def _played(suite: Suite) -> list[ET.Element]:
    with TemporaryDirectory(prefix="undercroft-suite-") as folder:
        report = Path(folder) / "report.xml"
        ended = subprocess.run(
            [*_PYTEST, f"--junitxml={report}", *suite.tests],
            cwd=PROJECT,
            env=os.environ | {"TEST_LONG": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode not in _ENDED or not report.exists():
            raise RuntimeError(f"pytest ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return [*ET.parse(report).iter("testcase")]


# Of the older family of reports, which has what tests record.
_PYTEST: Final = (
    *(sys.executable, "-m", "pytest", "-q", "-c", str(PROJECT / "pyproject.toml"), "-p", "no:cacheprovider"),
    *("-o", "junit_family=xunit1"),
)
_ENDED: Final = (0, 1)
"""Exit codes: no test failed, or some did."""


def _tried(case: ET.Element) -> int:
    said = [int(each.get("value", "")) for each in case.iter("property") if each.get("name") == "tried"]
    return sum(said) if said else 1


def _failures(case: ET.Element) -> Iterator[str]:
    """What is skipped proves nothing."""
    for kind in ("failure", "error", "skipped"):
        for found in case.iter(kind):
            yield f"{case.get('name')}: {kind}, {found.get('message', ''):.300}"


PROOFS: tuple[Proof, ...] = tuple(
    Proof(suite.name, partial(play, suite), full=1, what="times, all rounds") for suite in SUITES
)

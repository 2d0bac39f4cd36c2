"""What was measured, kept between a measurement and the report."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.measure import Result
from tests.support.server import PROJECT

FOLDER: Final = PROJECT / "build" / "bench"
Facts = dict[str, Any]  # Any: JSON


def keep(name: str, result: Result, **facts: Any) -> None:  # Any: JSON
    """With how, when, where and of what it was measured."""
    facts |= {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": machine.described(),
        "versions": machine.versions(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = {"facts": facts, **result.to_json()}
    (FOLDER / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")


def find(name: str) -> tuple[Result, Facts] | None:
    file: Path = FOLDER / f"{name}.json"
    if not file.exists():
        return None
    written = json.loads(file.read_text())
    return Result.from_json(written), written["facts"]


def _commit() -> str:
    def git(*arguments: str) -> str:
        ended = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
        return ended.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{commit} with changes" if git("status", "--porcelain", "--", "src", "bench", "migrations") else commit

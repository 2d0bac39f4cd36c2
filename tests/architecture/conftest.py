"""A copy of the house, for faults to be planted in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import PROJECT

Plant = Callable[[str, str], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write something into a file of a copy of the house, or to its end; what comes back is where the copy stands."""
    copy = tmp_path / "house"
    for folder in ("src", "migrations", "docs"):
        shutil.copytree(PROJECT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "static"))

    def write(path: str, text: str) -> Path:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        with (copy / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")
        return copy

    return write

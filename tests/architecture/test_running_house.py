"""What only a house that runs can show: in processes of their own, on real databases."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_group

from src.cli import cli
from tests.architecture.conftest import Plant
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import PROJECT, child_environment

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import src
for module in pkgutil.walk_packages(src.__path__, "src."):
    if module.name != "src.main":
        importlib.import_module(module.name)
assert src.__path__[0] not in sys.path
"""
COMPARE_WITH_MODELS = """
from alembic import command
from src.shared import migrations
command.check(migrations.config())
"""
NEW_TABLE = """
from sqlmodel import Field, SQLModel
class Forgotten(SQLModel, table=True):
    __tablename__ = "forgotten"
    id: int = Field(primary_key=True)
"""


def run(script: str, house: Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """In a process of this house with these settings and no others: no APP__ENV, no AUTH__SECRET."""
    environment = child_environment(env) | {"PYTHONPATH": str(house)}
    del environment["APP__ENV"]
    if house != PROJECT:  # a copy that is gone when coverage is reported
        environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_module_but_the_door_reads_settings_when_it_is_imported(tmp_path: Path) -> None:
    # Whoever reads them trips over this one.
    imported = run(IMPORT_EVERYTHING, PROJECT, tmp_path, APP__TIMEZONE="not a number")

    assert imported.returncode == 0, imported.stderr


def test_the_tests_have_the_standard_library_in_front_of_src() -> None:
    assert PROJECT / "src" not in [Path(place).resolve() for place in sys.path]


def test_a_module_that_reads_settings_when_it_is_imported_is_named(plant: Plant, tmp_path: Path) -> None:
    house = plant("src/retry.py", "ATTEMPTS = get_settings().app.max_retries")

    imported = run(IMPORT_EVERYTHING, house, tmp_path, APP__TIMEZONE="not a number")

    assert imported.returncode != 0
    assert "src/retry.py" in imported.stderr
    assert "APP__TIMEZONE" in imported.stderr


@pytest.fixture
def database(database_kind: Kind) -> Iterator[str]:
    url = fresh_database(database_kind)
    yield url
    drop_database(url)


def test_the_migrations_make_what_the_models_say(database: str, tmp_path: Path) -> None:
    compared = run(COMPARE_WITH_MODELS, PROJECT, tmp_path, DB__URL=database)

    assert compared.returncode == 0, compared.stderr


def test_a_table_without_a_migration_is_named(plant: Plant, database: str, tmp_path: Path) -> None:
    house = plant("src/core/forgotten/__init__.py", "")
    plant("src/core/forgotten/models.py", NEW_TABLE)

    compared = run(COMPARE_WITH_MODELS, house, tmp_path, DB__URL=database)

    assert compared.returncode != 0
    assert "'forgotten'" in compared.stderr


def unexplained(commands: typer.Typer) -> list[str]:
    """The commands, and those of their arguments, that say nothing."""
    found = []
    for name, command in get_group(commands).commands.items():
        found += [] if command.help else [name]
        found += [f"{name} {given.name}" for given in command.params if not getattr(given, "help", None)]
    return found


def test_each_command_explains_itself_and_its_options() -> None:
    assert unexplained(cli) == []


def test_a_command_that_does_not_explain_itself_is_named() -> None:
    mute = typer.Typer()

    @mute.command()
    def silent(port: int) -> int:
        return port

    assert unexplained(mute) == ["silent", "silent port"]

"""Each revision goes up and down on both databases, and what it makes is what the models say."""

from pathlib import Path

from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import run_command


def test_every_revision_goes_down_and_up_again(database_kind: Kind, tmp_path: Path) -> None:
    url = fresh_database(database_kind)
    try:
        for direction in (["--down-to", "base"], [], ["--down-to", "base"], []):
            moved = run_command("migrate", *direction, env={"DB__URL": url}, cwd=tmp_path)
            assert moved.returncode == 0, moved.stdout + moved.stderr
    finally:
        drop_database(url)

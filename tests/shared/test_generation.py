"""The number that processes share: found by who may, and by nobody else's leave."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from src.shared.generation import open_generation
from tests.support.server import child_environment

POSTGRES = make_url("postgresql+asyncpg://somebody:secret@localhost/shop")
ADVANCE = """
import sys
from sqlalchemy import make_url
from src.shared.generation import open_generation
generation = open_generation(make_url(sys.argv[1]))
generation.advance()
print(generation.domain)
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "undercroft"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, runtime: Path, tmp_path: Path) -> URL:
    return POSTGRES if request.param == "postgres" else make_url(f"sqlite+aiosqlite:///{tmp_path}/shop.db")


def test_another_process_changes_it(url: URL, tmp_path: Path) -> None:
    generation = open_generation(url)
    before = generation.cell[0]

    told = subprocess.run(
        [sys.executable, "-c", ADVANCE, url.render_as_string(hide_password=False)],
        env=child_environment({"XDG_RUNTIME_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert generation.reaches_all
    assert told.stdout.strip() == str(generation.domain)
    assert generation.cell[0] != before


def test_an_advance_is_seen_by_all_who_opened_it_and_never_repeats(url: URL) -> None:
    first, second = open_generation(url), open_generation(url)
    seen = set()
    for generation in [first, second] * 50:
        generation.advance()
        assert first.cell[0] == second.cell[0]
        seen.add(first.cell[0])

    assert len(seen) == 100


def test_databases_have_one_each(runtime: Path, tmp_path: Path) -> None:
    urls = [POSTGRES, POSTGRES.set(database="other"), make_url(f"sqlite:///{tmp_path}/a.db")]
    urls += [make_url(f"sqlite:///{tmp_path}/b.db"), make_url("sqlite://"), make_url("sqlite://")]

    assert len({open_generation(url).domain for url in urls}) == len(urls)


def test_a_database_in_memory_is_of_one_process(runtime: Path) -> None:
    assert open_generation(make_url("sqlite+aiosqlite://")).reaches_all


def test_a_sqlite_file_is_one_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.db").touch(mode=0o640)
    (tmp_path / "link.db").symlink_to(tmp_path / "shop.db")
    monkeypatch.chdir(tmp_path)
    urls = ["sqlite:///shop.db", f"sqlite:///{tmp_path}/shop.db", "sqlite:///link.db"]

    assert len({open_generation(make_url(url)).domain for url in urls}) == 1
    assert (tmp_path / "shop.db-generation").stat().st_mode & 0o777 == 0o640


def test_a_copy_of_the_memory_is_another_domain(runtime: Path, tmp_path: Path) -> None:
    """As an image of a machine holds one."""
    domain = open_generation(POSTGRES).domain
    (file,) = runtime.iterdir()
    content = file.read_bytes()
    kept_open = file.open("rb")  # or the new file might get the number of the old one
    file.unlink()
    file.write_bytes(content)
    file.chmod(0o600)

    assert open_generation(POSTGRES).domain != domain
    kept_open.close()


def _truncate(file: Path) -> None:
    os.truncate(file, 8)


def _open_to_all(file: Path) -> None:
    file.chmod(0o666)


def _link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def _open_directory(file: Path) -> None:
    file.parent.chmod(0o777)


def _linked_directory(file: Path) -> None:
    directory = file.parent
    directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to(directory.with_name("elsewhere"))


def _give_away(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, 12345)


def _give_directory_away(file: Path) -> None:
    _give_away(file.parent)


@pytest.mark.parametrize(
    "spoil",
    [_truncate, _open_to_all, _link, _pipe, _open_directory, _linked_directory, _give_away, _give_directory_away],
)
def test_what_others_could_change_is_not_believed(runtime: Path, spoil: Callable[[Path], None]) -> None:
    domain = open_generation(POSTGRES).domain
    (file,) = runtime.iterdir()
    spoil(file)

    alone = open_generation(POSTGRES)

    assert alone.domain != domain
    assert not alone.reaches_all
    alone.advance()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_shares_even_what_is_private(runtime: Path) -> None:
    generation = open_generation(make_url("sqlite://"))
    before = generation.cell[0]
    advanced = subprocess.run([sys.executable, "-c", "pass"], check=False).returncode
    child = os.fork()
    if child == 0:
        generation.advance()
        os._exit(0)
    os.waitpid(child, 0)

    assert advanced == 0
    assert generation.cell[0] != before

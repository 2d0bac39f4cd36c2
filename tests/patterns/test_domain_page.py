"""docs/domains.md is true: its excerpts are in their files, and the domain that it writes works as it says."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.architecture.test_contracts import keeps
from tests.architecture.test_walls import CHECKS
from tests.support.answers import bearer, data_of
from tests.support.postgres import Kind
from tests.support.server import PROJECT, run_command
from tests.support.service import Place, own_place
from tests.support.transcript import Reader
from tests.support.waiting import eventually

PAGE = (PROJECT / "docs" / "domains.md").read_text(encoding="utf-8")
_BLOCK = re.compile(
    r"(?:^(?P<new>New: )?`(?P<path>[\w./]+)`\n\n)?^```(?P<language>\w+)(?P<soon> soon)?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_ONE_LINE = re.compile(r'`(?P<path>[\w/]+/__init__\.py)` with one line, `(?P<text>""".*?""")`')


class Block(NamedTuple):
    language: str
    text: str
    path: str = ""
    is_new: bool = False
    soon: bool = False


BLOCKS = [
    Block(found["language"], found["text"], found["path"] or "", bool(found["new"]), bool(found["soon"]))
    for found in _BLOCK.finditer(PAGE)
]
EXCERPTS = [block for block in BLOCKS if block.language == "python" and not block.is_new]
NEW = [block for block in BLOCKS if block.is_new]
TOUCHED = [block for block in BLOCKS if block.language == "diff"]
REQUESTS = [block for block in BLOCKS if block.language == "http"]
COMMANDS = [shlex.split(line) for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
TOLD = [line for block in BLOCKS if block.language == "text" for line in block.text.splitlines()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project with the page's domain in it, its migration and the pages that the code writes."""
    house = tmp_path_factory.mktemp("reviews") / "house"
    for folder in ("src", "migrations", "docs"):
        shutil.copytree(PROJECT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", ".env.example"):
        shutil.copy(PROJECT / file, house / file)
    (package,) = _ONE_LINE.finditer(PAGE)
    for path, text in [(package["path"], f"{package['text']}\n"), *((block.path, block.text) for block in NEW)]:
        (house / path).parent.mkdir(exist_ok=True)
        (house / path).write_text(text, encoding="utf-8")
    for block in TOUCHED:
        touch(house / block.path, block.text)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            patch.delenv(name, raising=False)  # the copy is gone when coverage is reported
        env = {"PYTHONPATH": str(house), "DB__URL": f"sqlite:///{house / 'page.sqlite'}"}
        for python, option, package_name, *arguments in COMMANDS:
            assert (python, option, package_name) == ("python", "-m", "src")
            ended = run_command(*arguments, env=env, cwd=house)
            assert ended.returncode == 0, ended.stdout + ended.stderr
        yield house


def touch(file: Path, diff: str) -> None:
    """Change the one place that the lines without a plus are in."""
    before = "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[:1] != "+")
    after = "".join(f"{line[1:]}\n" for line in diff.splitlines() if line[:1] != "-")
    text = file.read_text(encoding="utf-8")
    assert f"\n{text}".count(f"\n{before}") == 1, f"{file.name} has no such lines, or several:\n{before}"
    file.write_text(f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:], encoding="utf-8")


@pytest.fixture(scope="module")
def place(copy: Path, database_kind: Kind) -> Iterator[Place]:
    """A database at the migration of the page."""
    with own_place(database_kind, PYTHONPATH=str(copy)) as place:
        code, said = place.run("migrate")
        assert code == 0, said
        yield place


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda excerpt: excerpt.path)
def test_an_excerpt_stands_in_its_file(excerpt: Block) -> None:
    assert excerpt.text in (PROJECT / excerpt.path).read_text(encoding="utf-8")


def test_each_piece_of_code_has_its_place() -> None:
    assert all(block.path for block in (*EXCERPTS, *NEW, *TOUCHED))
    assert len(BLOCKS) == PAGE.count("\n```") // 2
    assert (len(EXCERPTS), len(NEW), len(COMMANDS)) == (9, 4, 3)


def test_each_file_that_the_page_names_is_there(copy: Path) -> None:
    named = set(re.findall(r"`((?:src|docs|tests)/[\w/]+\.\w+)`", PAGE))

    assert named
    assert [path for path in named if not ((copy if path.startswith("src/") else PROJECT) / path).is_file()] == []


def test_the_new_domain_stands_within_the_walls(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keeps(copy), capsys.readouterr().out
    assert [broken for check in CHECKS for broken in check(copy)] == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_the_new_domain_is_written_as_the_house_writes(copy: Path, command: list[str]) -> None:
    touched = sorted({block.path for block in (*NEW, *TOUCHED)})

    ended = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *touched],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


async def test_the_new_domain_does_what_the_page_says(place: Place) -> None:
    with place.service(OUTBOX__POLL_SECONDS="0.05") as service:
        admin = service.log_in()["access_token"]
        buyer = service.log_in(service.register())["access_token"]
        lamp = {"sku": "LAMP", "name": "Storm lamp", "price_minor": 3490, "currency": "EUR"}
        product = data_of(service.client.post("/api/v1/products", json=lamp, headers=bearer(admin)), 201)
        reader = Reader(service.client, {"admin": admin, "buyer": buyer, "product": product["id"]})
        for request in REQUESTS:
            if request.soon:
                await eventually(partial(happens, reader, request.text))
            else:
                reader.send(request.text)

    code, said = place.run("doctor")
    assert code == 0, said
    assert set(TOLD) <= set(said.splitlines())


async def happens(reader: Reader, text: str) -> bool:
    try:
        reader.send(text)
    except AssertionError:
        return False
    return True


def test_the_migration_goes_down_and_up_again(place: Place) -> None:
    for direction in (["--down-to=-1"], []):
        code, said = place.run("migrate", *direction)
        assert code == 0, said

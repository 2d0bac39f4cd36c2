"""The pages that the code writes are those that are committed."""

import shutil
from pathlib import Path

import pytest

from src.cli.docs import env_example, error_catalogue, pages, published_codes
from src.config import Settings, all_settings, setting_name
from src.shared.errors import ErrorCode
from tests.support.server import PROJECT, run_command


@pytest.mark.parametrize("page", pages())
def test_the_committed_page_is_what_the_code_writes(page: Path) -> None:
    assert (PROJECT / page).read_text(encoding="utf-8") == pages()[page], "run `python -m src docs`"


def test_the_command_writes_the_pages_and_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)  # the copy is gone when coverage is reported
    shutil.copytree(PROJECT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "static"))

    told = run_command("docs", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)

    assert told.stdout.split() == [str(page) for page in pages()], told.stderr
    assert {page: (tmp_path / page).read_text(encoding="utf-8") for page in pages()} == pages(tmp_path)


def test_the_catalogue_has_a_row_for_each_code() -> None:
    rows = [line for line in error_catalogue().splitlines() if line.startswith("| ") and "`" in line.split("|")[2]]

    assert [int(row.split("|")[1]) for row in rows] == sorted(ErrorCode)
    assert "| 50101 | `PRODUCT_OUT_OF_STOCK` | 409 |" in error_catalogue()


def test_a_published_code_is_never_written_anew(tmp_path: Path) -> None:
    published = tmp_path / "codes.json"
    published.write_text('{"10001": "AS_IT_WAS", "99999": "GONE_SINCE"}')

    text = published_codes(published)

    assert '"10001": "AS_IT_WAS"' in text
    assert '"99999": "GONE_SINCE"' in text
    assert '"10002": "INVALID_CREDENTIALS"' in text


def test_each_setting_is_in_the_example_and_none_is_set() -> None:
    lines = env_example().splitlines()

    named = [line[1:].partition("=")[0] for line in lines if "=" in line and not line.startswith("# ")]
    assert named == [setting_name(*place) for place in all_settings()]
    assert all(line.startswith("#") for line in lines if line)


def test_the_example_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = [line[1:] for line in env_example().splitlines() if line[:1] == "#" and line[1:2].isupper()]
    (tmp_path / ".env").write_text("\n".join(line for line in example if not line.endswith("=")))
    monkeypatch.chdir(tmp_path)
    for name in (setting_name(*place) for place in all_settings()):
        monkeypatch.delenv(name, raising=False)
    as_in_the_example = Settings()
    (tmp_path / ".env").unlink()

    assert as_in_the_example == Settings()


def test_the_example_shows_no_secret() -> None:
    assert "#AUTH__SECRET=\n" in env_example()

"""With libraries that the lane does not know, it is off, and says so once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import DatabaseSettings, Settings
from src.shared import database
from src.shared.endings import EndingSession
from src.shared.lane import LaneSession, versions


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    versions.libraries_known.cache_clear()
    sink = logger.add(lines.append, level="WARNING", format="{message} {extra}")
    yield lines
    logger.remove(sink)
    versions.libraries_known.cache_clear()


def kind_of_session(folder: Path, **settings: bool) -> type[AsyncSession]:
    with_settings = Settings(db=DatabaseSettings(url=f"sqlite:///{folder}/a.db", **settings))
    return type(database._session_maker(database.create_engine(with_settings), with_settings)())


def test_known_libraries_are_silent(tmp_path: Path, said: list[str]) -> None:
    assert kind_of_session(tmp_path) is LaneSession
    assert said == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_KNOWN", {"sqlalchemy": ("1.4.",)}),
        ("_USED", ((AsyncSession, ("_no_such_method",)),)),
        ("PAGINATION_OPTIONS", {"another": None}),
    ],
)
def test_strange_libraries_turn_it_off_with_one_warning(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(versions, name, value)
    assert [kind_of_session(tmp_path) for _ in range(3)] == [EndingSession] * 3
    assert len(said) == 1
    assert "data lane is off" in said[0]


@pytest.mark.parametrize("setting", ["data_lane", "prepared_statements"])
def test_settings_turn_it_off(tmp_path: Path, said: list[str], setting: str) -> None:
    assert kind_of_session(tmp_path, **{setting: False}) is EndingSession
    assert said == []

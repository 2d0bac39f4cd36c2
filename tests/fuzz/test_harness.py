"""The positive controls: what is broken is found."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fuzz.api import SETTINGS, fuzz
from tests.fuzz.corpora import Attack
from tests.support.server import running_server
from tests.support.service import Service, own_place

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def broken() -> Iterator[Service]:
    with (
        own_place("sqlite", **SETTINGS) as place,
        running_server(place.env, "tests.fuzz.broken:app", cwd=place.folder) as server,
        httpx2.Client(base_url=server.url, timeout=20, verify=False) as client,
    ):
        yield Service(server, client)


def test_fuzzing_finds_crashes_and_surprises(broken: Service, tmp_path: Path) -> None:
    fuzzed = fuzz(broken, tmp_path, "nobody", examples=60, seed=8, below="/broken")

    said = [failure.partition("\n")[0] for failure in fuzzed.failures]
    assert any("Server error: POST /broken/crashes" in each for each in said), said
    assert any("Undocumented status code: GET /broken/surprises/{number}" in each for each in said), said


def test_attacking_finds_crashes_surprises_and_changes(broken: Service) -> None:
    attack = Attack(broken, 8, below="/broken")
    attack.fill_fields(["Ünïcode", "日本"], 2)
    attack.fill_parameters(["x"], 1)

    crash, change, surprise = (
        [each for each in attack.failures if part in each] for part in ("/crashes", "/changes", "/surprises")
    )
    assert [": 500 " in each for each in crash] == [True]
    assert ["came back as" in each for each in change] == [True]
    assert ["is not documented" in each for each in surprise] == [True]
    assert attack.shut_out() == ["GET /broken/closed/{number}: nobody was let in"]

"""The control of what is proved by playing tests: each kind of end is told, and counted."""

from pathlib import Path

from tests.prove.suites import Suite, play

SOME = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError("a broken fixture")

def test_good(record_property):
    record_property("tried", 40)

def test_once():
    pass

def test_bad():
    assert 1 == 2

def test_skipped():
    pytest.skip("not here")

def test_errs(broken):
    pass
"""


def test_what_fails_errs_or_is_skipped_is_a_failure(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(SOME)

    (figure,) = play(Suite("some", "a claim", "things", [str(tests)]), 2, 0)

    assert figure.count == 2 * (40 + 4)
    assert [each.partition(",")[0] for each in figure.failures] == [
        "test_bad: failure",
        "test_skipped: skipped",
        "test_errs: error",
    ] * 2

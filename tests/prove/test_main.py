"""A run of hours that meets something broken, or is cut short."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.prove import __main__ as prove
from tests.prove.figures import Figure, Proof


def breaks_down(amount: int, seed: int) -> Iterable[Figure]:
    yield Figure("a claim", "things", amount)
    raise OSError("no such file")


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prove, "STORE", tmp_path)
    monkeypatch.setattr(prove, "_commit", lambda: "0000000")


def test_what_breaks_down_is_a_failure_of_that_proof_alone() -> None:
    assert prove._play(Proof("odd", breaks_down, full=3), 3, 26) == 1

    kept = json.loads((prove.STORE / "odd.json").read_text())
    assert [(figure["count"], len(figure["failures"])) for figure in kept["figures"]] == [(3, 0), (1, 1)]


def test_a_run_goes_on_with_what_was_not_played_so(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Proof("good", lambda amount, seed: [Figure("a claim", "things", amount)], full=3)
    odd = Proof("odd", breaks_down, full=3)
    for proof in (good, odd):
        prove._play(proof, 3, 26)

    assert prove._is_played(good, 3, 26)
    assert not prove._is_played(good, 4, 26)
    assert not prove._is_played(good, 3, 27)
    assert not prove._is_played(odd, 3, 26)
    assert not prove._is_played(Proof("new", good.run, full=3), 3, 26)
    monkeypatch.setattr(prove, "_commit", lambda: "1111111")
    assert not prove._is_played(good, 3, 26)

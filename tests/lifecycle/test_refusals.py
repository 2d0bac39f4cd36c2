"""A process with settings that nobody means does not start, and says which."""

import pytest

from tests.lifecycle.refusals import REFUSALS, Bad, refuse_all

pytestmark = pytest.mark.long

# Two of a kind are for the proof.
SLICE = [bad for number, bad in enumerate(REFUSALS) if number % 3 != 1]


def test_bad_settings_stop_the_process_and_are_named_without_their_values() -> None:
    assert len(SLICE) >= 25

    refusals = refuse_all(SLICE)

    assert [problem for refusal in refusals for problem in refusal.problems()] == []


def test_a_refusal_that_is_none_is_noticed() -> None:
    """The control: a name that is not told, and a value that is."""
    quiet = Bad("an innocent", ["LOG__LEVEL"], {"APP__DEBUG": "true", "APP__NO_CANARY": "1"})

    found = "\n".join(problem for refusal in refuse_all([quiet]) for problem in refusal.problems())

    assert "LOG__LEVEL is not named" in found
    assert "a value is shown" in found

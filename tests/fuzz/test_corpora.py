"""Collected hostile input in each field, parameter and body: a slice of `python -m tests.prove corpora`."""

from collections.abc import Iterator

import pytest

from tests.fuzz.api import SETTINGS
from tests.fuzz.corpora import Attack, blns, hostile_bodies, hostile_texts, hostile_values, json_test_suite
from tests.support.hostile import CORPORA
from tests.support.oidc import Town
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import own_place

pytestmark = [
    pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not here"),
    pytest.mark.long,
]
SEED = 8
ALL = 10**6


@pytest.fixture(scope="module")
def attack(database_kind: Kind, providers: Town) -> Iterator[Attack]:
    settings = SETTINGS | providers.settings("acme")
    with own_place(database_kind, **settings) as place, place.service() as service:
        yield Attack(service, SEED, provider=providers.house("acme"))


@pytest.fixture(autouse=True)
def nothing_is_wrong(attack: Attack) -> Iterator[None]:
    attack.begin()
    yield
    wrong = [*attack.failures, *attack.shut_out()]
    assert not wrong, "\n".join(wrong[:20])


def test_any_value_in_any_field_is_taken_or_refused(attack: Attack) -> None:
    attack.fill_fields(hostile_values(), rounds(3, full=ALL))


def test_any_text_that_is_taken_comes_back_as_it_was(attack: Attack) -> None:
    attack.fill_fields(blns(), rounds(3, full=ALL), texts_only=True)

    assert attack.round_trips > 10


def test_any_text_in_any_parameter_is_taken_or_refused(attack: Attack) -> None:
    attack.fill_parameters(hostile_texts(), rounds(3, full=ALL))


def test_any_body_is_taken_or_refused(attack: Attack) -> None:
    attack.send_bodies(hostile_bodies(), rounds(5, full=ALL))
    attack.send_bodies(json_test_suite(), rounds(10, full=ALL))

"""Each bug that the races are there for makes one of them fail; without it, the same one passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.races.scenarios import Shop, cancel_and_fulfil, doom, lose_a_step, lose_an_order, open_shop, sell_out
from tests.support.postgres import Kind
from tests.support.server import SERVICE, running_server
from tests.support.service import own_place

Scenario = Callable[[Shop], object]
BROKEN = "tests.races.broken:app"

# bug of broken.py → the scenarios that find it, and with which words
FOUND: dict[str, list[tuple[Scenario, str]]] = {
    "move_without_a_lock": [(partial(cancel_and_fulfil, rounds=5), "not refused because of the other")],
    "select_then_write": [(partial(sell_out, buyers=40, units=10), "not one order a unit")],
    "publish_outside": [(lose_an_order, "something is left"), (lose_a_step, "something is left")],
    "commit_after_the_answer": [
        (lose_an_order, "told 201 of what was not committed"),
        (lose_a_step, "told 200 of what was not committed"),
    ],
}
ON_SQLITE = {"commit_after_the_answer"}


@pytest.fixture(autouse=True)
def books() -> None:
    """Whoever breaks them has a database of their own."""


@contextmanager
def opened(kind: Kind, app: str = SERVICE, **env: str) -> Iterator[Shop]:
    with (
        own_place(kind, OUTBOX__DISPATCH="false", **env) as place,
        running_server(place.env, app, cwd=place.folder) as server,
    ):
        yield open_shop([server.url], place.database_url, buyers=2)


@pytest.mark.parametrize("bug", FOUND)
def test_a_bug_is_found(database_kind: Kind, bug: str) -> None:
    if database_kind == "sqlite" and bug not in ON_SQLITE:
        pytest.skip("SQLite's one writer hides it")
    with opened(database_kind, BROKEN, PLANTED_BUG=bug) as shop:
        doom(shop.database_url)
        for scenario, words in FOUND[bug]:
            with pytest.raises(AssertionError, match=words):
                scenario(shop)


def test_without_a_bug_nothing_is_found(database_kind: Kind) -> None:
    with opened(database_kind) as shop:
        doom(shop.database_url)
        for found in FOUND.values():
            for scenario, _ in found:
                scenario(shop)

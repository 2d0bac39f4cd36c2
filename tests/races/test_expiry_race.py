"""An order is paid in the moment in which it expires: it is one of both, and its stock is where that says."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.races.scenarios import Shop, open_shop, pay_and_expire
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import Place, own_place

AT_A_TIME = 20
MOST = 50


@pytest.fixture(scope="module")
def home(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, ORDERS__EXPIRY_CHECK_SECONDS="0.01") as place:
        yield place


@pytest.fixture(scope="module")
def database_url(home: Place) -> str:
    return home.database_url


@pytest.fixture(scope="module")
def shop(home: Place, database_kind: Kind) -> Iterator[Shop]:
    """Each process sweeps: two of them on one PostgreSQL."""
    with ExitStack() as services:
        processes = range(2 if database_kind == "postgres" else 1)
        urls = [services.enter_context(home.service()).server.url for _ in processes]
        yield open_shop(urls, home.database_url)


@pytest.mark.long
def test_an_order_is_paid_or_expires_and_never_both(shop: Shop) -> None:
    ended: Counter[str] = Counter()
    wanted = rounds(AT_A_TIME, full=100)

    # How the sweep and those who pay share a round is chance; over some of them each has won.
    for _ in range(MOST):
        ended += pay_and_expire(shop, rounds=AT_A_TIME)
        if ended.total() >= wanted and len(ended) == 2:
            break

    assert ended.keys() == {"paid", "expired"}, "one of them never won: this was no race"

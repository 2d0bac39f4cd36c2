"""Many buyers at once: nothing is oversold, nothing deadlocks, nothing is lost, and each order is told of once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle

import pytest

from src.shared.errors import ErrorCode
from tests.races.scenarios import (
    Shop,
    at_once,
    cancel_and_fulfil,
    cancel_and_place,
    check_traces,
    cross_baskets,
    make_product,
    open_shop,
    outcomes,
    pay_and_cancel,
    place,
    placed,
    retry_one_order,
    retry_one_step,
    sell_out,
    step,
    stock_of,
)
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import own_place


def test_two_hundred_buyers_of_fifty_units_get_fifty(shop: Shop) -> None:
    sell_out(shop, buyers=200, units=50)


def test_crossed_baskets_queue_up_instead_of_deadlocking(shop: Shop) -> None:
    first, second = make_product(shop, stock=1000), make_product(shop, stock=1000)
    one_way, who = ((first, 1), (second, 1)), cycle(shop.buyers)

    answers = at_once(shop, [place(next(who), *(one_way if n % 2 else one_way[::-1])) for n in range(100)])

    assert Counter(answer.status_code for answer in answers) == {201: 100}
    assert stock_of(shop, first, second) == [900, 900]


@pytest.mark.long
@pytest.mark.parametrize("part", range(rounds(1, full=4)))  # half a minute each
def test_thousands_of_crossed_baskets_are_sold_or_refused(shop: Shop, database_kind: Kind, part: int) -> None:
    # 10,000 on PostgreSQL; where there is one writer there is less to find.
    cross_baskets(shop, rounds=rounds(300, full=2_500 if database_kind == "postgres" else 500), seed=part)


def test_baskets_of_several_scarce_goods_are_had_whole_or_not_at_all(shop: Shop) -> None:
    plenty, scarce = make_product(shop, stock=40), make_product(shop, stock=20)
    basket, who = ((plenty, 1), (scarce, 2)), cycle(shop.buyers)

    answers = at_once(shop, [place(next(who), *(basket if n % 2 else basket[::-1])) for n in range(100)])

    assert outcomes(answers) == {201: 10, ErrorCode.PRODUCT_OUT_OF_STOCK: 90}
    assert stock_of(shop, plenty, scarce) == [30, 0]


def test_of_three_cancels_of_each_order_at_once_one_counts(shop: Shop) -> None:
    product, buyer = make_product(shop, stock=50), shop.buyers[0]
    orders = placed(shop, [place(buyer, (product, 2)) for _ in range(20)])

    answers = at_once(shop, [step(buyer, order, "cancel") for _ in range(3) for order in orders])

    assert outcomes(answers) == {200: 20, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED: 40}
    assert stock_of(shop, product) == [50]
    check_traces(shop, {order: ["placed", "cancelled"] for order in orders})


@pytest.mark.rounds
def test_an_order_is_cancelled_or_fulfilled_and_never_both(shop: Shop) -> None:
    ended = cancel_and_fulfil(shop, rounds=rounds(20, full=100))

    assert ended.keys() == {"cancelled", "fulfilled"}, "one of them never won: this was no race"


@pytest.mark.rounds
def test_a_payment_comes_before_the_cancel_or_not_at_all(shop: Shop) -> None:
    pay_and_cancel(shop, rounds=rounds(20, full=100))


@pytest.mark.rounds
def test_what_a_cancel_gives_back_is_sold_once(shop: Shop) -> None:
    cancel_and_place(shop, rounds=rounds(20, full=100))


def test_fifty_retries_of_one_order_are_one_order(shop: Shop) -> None:
    retry_one_order(shop)


def test_fifty_retries_of_one_step_are_one_step(shop: Shop) -> None:
    retry_one_step(shop)


@pytest.fixture(scope="module")
def two_services(database_kind: Kind) -> Iterator[Shop]:
    """Two processes on one PostgreSQL."""
    if database_kind == "sqlite":
        pytest.skip("one process at a time")
    with own_place(database_kind) as home, ExitStack() as services:
        urls = [services.enter_context(home.service()).server.url for _ in range(2)]
        yield open_shop(urls, home.database_url)


def test_two_services_sell_no_more_than_one(two_services: Shop) -> None:
    sell_out(two_services)
    cross_baskets(two_services, rounds=100)
    retry_one_order(two_services)
    cancel_and_fulfil(two_services, rounds=20)
    cancel_and_place(two_services, rounds=20)

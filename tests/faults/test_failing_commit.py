"""A COMMIT that fails: the client is told, and there is no order, no reservation, no event and no mail."""

from collections.abc import Iterator

import pytest

from tests.races.scenarios import Shop, at_once, check_traces, doom, lift_doom, lose_a_step, lose_an_order, open_shop
from tests.support.answers import data_of
from tests.support.invariants import check_books
from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.service import Place, own_place
from tests.support.waiting import eventually


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with running_mail_server() as box:
        yield box


@pytest.fixture
def home(database_kind: Kind, box: Mailbox) -> Iterator[Place]:
    with own_place(database_kind, MAIL__URL=box.url) as place:
        yield place


@pytest.fixture
def shop(home: Place) -> Iterator[Shop]:
    """It delivers nothing, so that all rows can be counted."""
    with home.service(OUTBOX__DISPATCH="false") as service:
        yield open_shop([service.server.url], home.database_url, buyers=1)


async def test_an_order_whose_commit_fails_was_never_there(shop: Shop, home: Place, box: Mailbox) -> None:
    doom(shop.database_url)

    call = lose_an_order(shop)

    # Its key is free: the retry is the order.
    lift_doom(shop.database_url)
    first, second = (at_once(shop, [call])[0] for _ in range(2))
    order = data_of(first, 201)
    assert second.content == first.content
    check_traces(shop, {order["id"]: ["placed"]})
    check_books(shop.database_url)

    async def is_told() -> bool:
        return any(order["number"] in mail.subject for _, mail in box.arrived)

    with home.worker():
        await eventually(is_told, within_seconds=20)
    assert len([mail for _, mail in box.arrived if "order" in mail.subject]) == 1


def test_a_step_whose_commit_fails_was_never_taken(shop: Shop) -> None:
    doom(shop.database_url)

    call = lose_a_step(shop)

    lift_doom(shop.database_url)
    order = data_of(at_once(shop, [call])[0])
    check_traces(shop, {order["id"]: ["placed", "cancelled"]})
    check_books(shop.database_url)


def test_commits_that_fail_do_no_harm_to_those_that_do_not(shop: Shop) -> None:
    """Connections are as good as new, and no row of a lost order is made up for by the next COMMIT."""
    doom(shop.database_url)

    for _ in range(12):
        lose_an_order(shop)
        lose_a_step(shop)

"""What was paid goes back when the order is over, once."""

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.core.conftest import move
from tests.core.payments.conftest import PRICE, Basket
from tests.support.answers import at_once, data_of, refused


def test_a_paid_order_that_is_cancelled_is_paid_back(order: Basket) -> None:
    data_of(order.pay(), 201)
    assert order.kept_minor == PRICE

    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))

    order.payment_becomes("refunded")
    assert (order.status, order.kept_minor) == ("cancelled", 0)
    assert order.payments[0]["refunded_at"] is not None


def test_what_comes_back_is_paid_back(order: Basket, admin: httpx2.Client) -> None:
    data_of(order.pay(), 201)
    data_of(move(admin, order.id, "fulfil"))
    assert order.kept_minor == PRICE

    data_of(move(admin, order.id, "return"))

    order.payment_becomes("refunded")
    assert order.kept_minor == 0


def test_what_was_declined_before_it_was_cancelled_gives_nothing_back(order: Basket) -> None:
    refused(order.pay("tok_decline"), ErrorCode.PAYMENT_DECLINED)

    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))

    assert [payment["status"] for payment in order.payments] == ["declined"]


@pytest.mark.parametrize("source", ["tok_approve", "tok_early", "tok_lost", "tok_timeout"])
def test_paying_and_cancelling_at_once_end_with_an_order_and_money_that_agree(order: Basket, source: str) -> None:
    paid, cancelled = at_once(
        [lambda: order.pay(source), lambda: order.client.post(f"/api/v1/orders/{order.id}/cancel")]
    )

    data_of(cancelled)
    assert order.status == "cancelled"
    if order.payments:
        order.payment_becomes("refunded")
    else:
        refused(paid, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
    assert order.kept_minor == 0

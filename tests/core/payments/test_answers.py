"""What a provider answers is foreign: what cannot be read, or is of something else, is no answer."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from sqlmodel import col

from src.core.payments.gateway import ChargeStatus
from src.core.payments.models import Payment
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from tests.core.payments.conftest import PRICE, Basket
from tests.support.answers import data_of, refused
from tests.support.payments import Bank
from tests.support.tables import execute

NO_ANSWERS: dict[str, object] = {
    "another sum": {"amount_minor": 1},
    "another currency": {"currency": "USD"},
    "another payment": {"reference": str(uuid4())},
    "a status of its own": {"status": "maybe"},
    "less than nothing": {"amount_minor": -PRICE},
    "a sum in words": {"amount_minor": "much"},
    "a sum that no column has": {"amount_minor": 2**63},
    "no status": {"status": None},
    "too much": {"more": "x" * 100_000},
    "nothing of it": None,
}


@pytest.mark.parametrize("what", NO_ANSWERS)
def test_an_answer_that_is_none_leaves_the_payment_pending(order: Basket, bank: Bank, what: str) -> None:
    key, says = uuid4().hex, NO_ANSWERS[what]
    pending = data_of(order.pay("tok_late", key=key), 202)
    booked = bank.books[pending["id"]]
    booked.status = ChargeStatus.SUCCEEDED
    truth = booked.told()
    lie: Any = truth | says if isinstance(says, dict) else says  # Any: JSON
    booked.told = lambda: lie  # type: ignore[method-assign] # a provider that lies

    again = data_of(order.pay("tok_late", key=key), 202)

    assert (again, order.status) == (pending, "placed")
    booked.told = lambda: truth  # type: ignore[method-assign] # as above
    assert data_of(order.pay("tok_late", key=key), 201)["status"] == "succeeded"
    assert (order.status, order.kept_minor) == ("paid", PRICE)


def test_a_reason_that_is_no_word_is_not_passed_on(order: Basket, bank: Bank) -> None:
    key = uuid4().hex
    booked = bank.books[data_of(order.pay("tok_late", key=key), 202)["id"]]
    booked.status, booked.decline_code = ChargeStatus.DECLINED, "<script>alert(1)</script>"

    facts = refused(order.pay("tok_late", key=key), ErrorCode.PAYMENT_DECLINED)

    assert facts["decline_code"] == "declined"


def test_a_key_whose_money_went_back_is_told_so(order: Basket) -> None:
    key = uuid4().hex
    data_of(order.pay("tok_late", key=key), 202)
    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))
    order.release()
    order.payment_becomes("refunded")

    facts: Any = refused(order.pay("tok_late", key=key), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)  # Any: JSON

    assert facts["status"] == "cancelled"
    assert len(order.payments) == 1


def test_a_source_that_is_spent_by_a_lost_request_has_paid(order: Basket) -> None:
    """The retry is refused, and that says nothing of what came before it."""
    data_of(order.pay("tok_spent"), 201)

    assert (order.status, order.kept_minor) == ("paid", PRICE)


def test_what_the_provider_has_not_heard_of_is_given_up_a_day_after_its_order(order: Basket, database_url: str) -> None:
    key = uuid4().hex
    data_of(order.pay("tok_down", key=key), 202)
    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))
    assert data_of(order.pay("tok_down", key=key), 202)["status"] == "pending"

    long_ago = update(Payment).where(col(Payment.order_id) == UUID(order.id))
    execute(database_url, long_ago.values(created_at=utc_now() - timedelta(days=1, minutes=1)))

    refused(order.pay("tok_down", key=key), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
    assert (order.payments[0]["status"], order.kept_minor) == ("abandoned", 0)


def test_a_request_that_reaches_the_provider_after_the_order_was_cancelled_is_paid_back(
    order: Basket, bank: Bank
) -> None:
    booked = bank.books[data_of(order.pay("tok_down"), 202)["id"]]
    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))

    booked.source, booked.status = "tok_no_callback", ChargeStatus.SUCCEEDED

    order.payment_becomes("refunded")
    assert (order.status, order.kept_minor) == ("cancelled", 0)


def test_for_an_order_that_is_gone_nobody_is_charged_by_a_retry(order: Basket, bank: Bank) -> None:
    key = uuid4().hex
    booked = bank.books[data_of(order.pay("tok_down", key=key), 202)["id"]]
    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))
    asked = booked.asked

    assert data_of(order.pay("tok_down", key=key), 202)["status"] == "pending"

    assert booked.asked == asked


def test_what_was_given_back_by_hand_is_given_back(order: Basket, bank: Bank) -> None:
    """The provider refuses to do it twice."""
    bank.books[data_of(order.pay(), 201)["id"]].refunded_minor = PRICE

    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))

    order.payment_becomes("refunded")
    assert order.kept_minor == 0


def test_what_was_given_back_before_it_was_heard_of_pays_nothing(order: Basket, bank: Bank) -> None:
    key = uuid4().hex
    pending = data_of(order.pay("tok_late", key=key), 202)
    booked = bank.books[pending["id"]]
    booked.status, booked.refunded_minor = ChargeStatus.SUCCEEDED, PRICE

    order.payment_becomes("refunded")

    assert (order.status, order.kept_minor) == ("placed", 0)
    again = order.pay("tok_late", key=key)
    assert refused(again, ErrorCode.PAYMENT_GIVEN_BACK) == {"payment_id": pending["id"]}
    data_of(order.pay(), 201)

"""Paying an order through a provider: each way that it can go ends in the one right order, and the money moves once."""

from collections.abc import Callable
from uuid import uuid4

import httpx2
import pytest

from src.core.payments.gateway import ChargeStatus
from src.shared.errors import ErrorCode
from tests.core.conftest import ORDERS, Buyer, MakeProduct, move
from tests.core.payments.conftest import PRICE, Basket
from tests.support.answers import at_once, data_of, refused, refused_fields
from tests.support.payments import Bank

PAYMENTS = "/api/v1/payments"


def test_what_is_approved_is_paid(order: Basket) -> None:
    paid = data_of(order.pay(), 201)

    assert {name: paid[name] for name in paid.keys() - {"id", "created_at", "settled_at"}} == {
        "order_id": order.id,
        "status": "succeeded",
        "amount_minor": PRICE,
        "currency": "EUR",
        "decline_code": "",
        "refunded_at": None,
    }
    assert (order.status, order.timeline) == ("paid", ["placed", "paid"])
    assert order.kept_minor == PRICE
    assert order.payments == [paid]
    assert data_of(order.client.get(f"{PAYMENTS}/{paid['id']}")) == paid


def test_what_is_declined_is_not_paid_and_can_be_paid_otherwise(order: Basket) -> None:
    facts = refused(order.pay("tok_decline"), ErrorCode.PAYMENT_DECLINED)

    assert facts == {"payment_id": order.payment_id, "decline_code": "insufficient_funds"}
    assert (order.status, order.payments[0]["status"], order.kept_minor) == ("placed", "declined", 0)

    data_of(order.pay(), 201)
    assert (order.status, order.kept_minor) == ("paid", PRICE)


def test_a_source_that_the_provider_does_not_know_is_declined(order: Basket) -> None:
    facts = refused(order.pay("tok_of_nobody"), ErrorCode.PAYMENT_DECLINED)

    assert facts["decline_code"] == "source_refused"
    assert order.status == "placed"


@pytest.mark.parametrize("source", ["tok_timeout", "tok_lost", "tok_outage"])
def test_what_is_not_answered_at_first_is_asked_for_again_and_charged_once(order: Basket, source: str) -> None:
    data_of(order.pay(source), 201)

    assert (order.status, order.timeline, order.kept_minor) == ("paid", ["placed", "paid"], PRICE)
    assert order.bank.books[order.payment_id].asked > 1


def test_a_provider_that_never_answers_leaves_a_payment_that_goes_on_by_itself(order: Basket) -> None:
    """It answers to none of the requests; what it calls back is all that is heard."""
    answer = order.pay("tok_silent")

    assert answer.status_code in {201, 202}
    order.becomes("paid")
    assert (order.payments[0]["status"], order.kept_minor) == ("succeeded", PRICE)


def test_a_payment_that_nobody_calls_back_about_is_asked_about(bank: Bank, order: Basket) -> None:
    pending = data_of(order.pay("tok_late"), 202)
    assert (pending["status"], pending["settled_at"], order.status) == ("pending", None, "placed")

    bank.books[pending["id"]].status = ChargeStatus.SUCCEEDED

    order.becomes("paid")
    assert order.kept_minor == PRICE


def test_the_same_key_is_the_same_payment(order: Basket) -> None:
    key = uuid4().hex
    first = order.pay(key=key)

    again = order.pay(key=key)

    assert (again.status_code, again.content) == (first.status_code, first.content) == (201, first.content)
    assert len(order.payments) == 1
    refused(order.pay("tok_decline", key=key), ErrorCode.IDEMPOTENCY_KEY_REUSED)


def test_the_same_key_of_a_declined_one_is_declined_again(order: Basket) -> None:
    key = uuid4().hex
    first = refused(order.pay("tok_decline", key=key), ErrorCode.PAYMENT_DECLINED)

    assert refused(order.pay("tok_decline", key=key), ErrorCode.PAYMENT_DECLINED) == first
    assert len(order.payments) == 1


def test_without_a_key_nothing_is_paid(order: Basket) -> None:
    answer = order.client.post(f"{ORDERS}/{order.id}/payments", json={"source": "tok_approve"})

    refused(answer, ErrorCode.IDEMPOTENCY_KEY_REQUIRED)
    assert order.payments == []


def test_while_one_payment_is_under_way_there_is_no_second(order: Basket) -> None:
    pending = data_of(order.pay("tok_late"), 202)

    answer = order.pay()

    assert refused(answer, ErrorCode.PAYMENT_IN_PROGRESS)["payment_id"] == pending["id"]
    assert answer.headers["Retry-After"] == "1"
    order.release()
    order.becomes("paid")
    assert refused(order.pay(), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)["status"] == "paid"
    assert order.kept_minor == PRICE


@pytest.mark.parametrize("source", ["tok_approve", "tok_early", "tok_twice", "tok_lost"])
def test_of_many_payments_at_once_one_is_charged(order: Basket, source: str) -> None:
    answers = at_once([lambda: order.pay(source) for _ in range(8)])

    codes = sorted(answer.json()["code"] for answer in answers)
    lost = {ErrorCode.PAYMENT_IN_PROGRESS, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED}
    assert codes[0] == 201
    assert set(codes[1:]) <= lost
    assert (order.status, order.kept_minor, len(order.payments)) == ("paid", PRICE, 1)


def test_of_the_same_payment_many_times_at_once_one_is_charged(order: Basket) -> None:
    key = uuid4().hex

    answers = at_once([lambda: order.pay("tok_lost", key=key) for _ in range(8)])

    assert {answer.status_code for answer in answers} <= {201, 202}
    order.becomes("paid")
    assert (order.kept_minor, len(order.payments)) == (PRICE, 1)


def test_an_order_of_nothing_needs_no_provider(bank: Bank, buyer: Buyer, make_product: MakeProduct) -> None:
    order = Basket(buyer.placed((make_product(price_minor=0)["id"], 1)), buyer.client, bank)

    paid = data_of(order.pay(), 201)

    assert (paid["amount_minor"], order.status) == (0, "paid")
    assert paid["id"] not in bank.books
    data_of(buyer.cancel(order.id))
    order.payment_becomes("refunded")


def test_whoever_tries_many_cards_is_stopped(order: Basket, bank: Bank) -> None:
    for _ in range(20):
        refused(order.pay("tok_decline"), ErrorCode.PAYMENT_DECLINED)
    asked = len(bank.books)

    assert refused(order.pay(), ErrorCode.TOO_MANY_PAYMENTS) == {"limit": 20}
    assert len(bank.books) == asked


@pytest.mark.parametrize("source", ["", "a b", "x" * 256, "tok\x00", "tök", 7, None])
def test_a_source_is_one_word(order: Basket, source: object) -> None:
    answer = order.client.post(
        f"{ORDERS}/{order.id}/payments", json={"source": source}, headers={"Idempotency-Key": uuid4().hex}
    )

    assert refused_fields(answer) == {"source"}


def test_somebody_elses_order_is_not_paid_and_its_payments_are_not_seen(order: Basket, other_buyer: Buyer) -> None:
    paid = data_of(order.pay(), 201)
    stranger = Basket(order.id, other_buyer.client, order.bank)

    refused(stranger.pay(), ErrorCode.ORDER_NOT_FOUND)
    refused(stranger.client.get(f"{ORDERS}/{order.id}/payments"), ErrorCode.ORDER_NOT_FOUND)
    refused(stranger.client.get(f"{PAYMENTS}/{paid['id']}"), ErrorCode.PAYMENT_NOT_FOUND)
    refused(stranger.client.get(f"{PAYMENTS}/{uuid4()}"), ErrorCode.PAYMENT_NOT_FOUND)


def test_whoever_may_move_orders_may_pay_them_too(order: Basket, clerk: Callable[[str], Buyer]) -> None:
    data_of(Basket(order.id, clerk("order:update").client, order.bank).pay(), 201)

    assert order.status == "paid"


def test_the_card_is_nowhere_in_the_answers(order: Basket) -> None:
    assert "tok_approve" not in order.pay().text
    assert "tok_approve" not in order.client.get(f"{ORDERS}/{order.id}/payments").text
    event = [each["actor"] for each in data_of(order.client.get(f"{ORDERS}/{order.id}/timeline"))]
    assert event == ["customer", "customer"]


def test_what_staff_have_marked_as_paid_takes_no_money(order: Basket, admin: httpx2.Client) -> None:
    data_of(move(admin, order.id, "pay"))

    refused(order.pay(), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
    assert order.payments == []

"""What the provider says by itself: twice, late, early, forged and out of order."""

import json
from time import time
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlmodel import select

from src.core.payments.gateway import ChargeStatus
from src.outbox.models import OutboxEvent
from src.shared import signatures
from src.shared.errors import ErrorCode
from tests.core.conftest import move
from tests.core.payments.conftest import PRICE, Basket
from tests.support.answers import data_of, refused
from tests.support.payments import Bank
from tests.support.tables import execute
from tests.support.waiting import wait_for

CALLBACK = "/api/v1/callbacks/payments"


def call_back(
    client: httpx2.Client, body: bytes, *, secret: str, age_seconds: int = 0, **instead: str
) -> httpx2.Response:
    keys = [signatures.read_secret(secret)]
    headers = signatures.signed_headers(keys, f"evt_{uuid4().hex}", int(time()) - age_seconds, body) | instead
    return client.post(CALLBACK, content=body, headers=headers)


def succeeded(payment_id: str) -> bytes:
    return json.dumps({"type": "charge.succeeded", "data": {"reference": payment_id}}).encode()


@pytest.mark.parametrize(
    ("source", "times"), [("tok_approve", 1), ("tok_twice", 2), ("tok_early", 1), ("tok_disorder", 2)]
)
def test_however_it_is_called_back_it_is_paid_once(order: Basket, source: str, times: int) -> None:
    data_of(order.pay(source), 201)

    order.is_called_back(times)
    assert (order.status, order.timeline, order.kept_minor) == ("paid", ["placed", "paid"], PRICE)
    assert [payment["status"] for payment in order.payments] == ["succeeded"]


def test_what_is_called_back_late_is_paid_then(order: Basket) -> None:
    data_of(order.pay("tok_late"), 202)
    assert order.status == "placed"

    order.release()

    order.becomes("paid")
    assert (order.payments[0]["status"], order.kept_minor) == ("succeeded", PRICE)


def test_what_is_declined_late_can_be_paid_otherwise(order: Basket) -> None:
    data_of(order.pay("tok_late_decline"), 202)

    order.release()

    order.payment_becomes("declined")
    assert order.status == "placed"
    data_of(order.pay(), 201)
    assert order.kept_minor == PRICE


def test_what_somebody_else_calls_back_changes_nothing(order: Basket, bank: Bank) -> None:
    pending = data_of(order.pay("tok_forged"), 202)

    wait_for(lambda: (pending["id"], 401) in bank.provider.called_back)
    assert order.status == "placed"
    order.release()
    order.payment_becomes("declined")
    assert (order.status, order.kept_minor) == ("placed", 0)


def test_what_the_provider_signs_and_does_not_have_in_its_books_changes_nothing(
    client: httpx2.Client, order: Basket, bank: Bank
) -> None:
    """Whoever has the secret of the callbacks still has not the provider's books."""
    pending = data_of(order.pay("tok_late_decline"), 202)

    answer = call_back(client, succeeded(pending["id"]), secret=bank.provider.callback_secret)

    assert (answer.status_code, answer.content) == (204, b"")
    order.release()
    order.payment_becomes("declined")
    assert order.status == "placed"


FORGED: dict[str, dict[str, Any]] = {  # Any: arguments of call_back
    "by another secret": {"secret": signatures.make_secret()},
    "with a moment of its own": {"webhook-timestamp": str(int(time()) - 1)},
    "with an id of its own": {"webhook-id": "evt_other"},
    "too long ago": {"age_seconds": 301},
    "too far ahead": {"age_seconds": -302},
    "with no moment": {"webhook-timestamp": ""},
    "with a moment that is none": {"webhook-timestamp": "soon"},
    "without a signature": {"webhook-signature": ""},
    "with a signature of another kind": {"webhook-signature": "v1a,AAAA"},
    "with too many signatures": {"webhook-signature": " ".join(["v1,AAAA"] * 500)},
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_callback_is_refused(client: httpx2.Client, order: Basket, bank: Bank, how: str) -> None:
    pending = data_of(order.pay("tok_late_decline"), 202)
    arguments = {"secret": bank.provider.callback_secret} | FORGED[how]

    answer = call_back(client, succeeded(pending["id"]), **arguments)

    refused(answer, ErrorCode.INVALID_CALLBACK_SIGNATURE)
    order.release()
    order.payment_becomes("declined")


def test_a_body_that_was_changed_is_refused(client: httpx2.Client, bank: Bank) -> None:
    keys = [signatures.read_secret(bank.provider.callback_secret)]
    headers = signatures.signed_headers(keys, "evt_1", int(time()), succeeded(str(uuid4())))

    refused(
        client.post(CALLBACK, content=succeeded(str(uuid4())), headers=headers), ErrorCode.INVALID_CALLBACK_SIGNATURE
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\xff", b'{"data": {"reference": "x"}}', b"[" * 5000])
def test_a_signed_callback_that_cannot_be_read_is_refused(client: httpx2.Client, bank: Bank, body: bytes) -> None:
    refused(call_back(client, body, secret=bank.provider.callback_secret), ErrorCode.INVALID_REQUEST)


def test_a_callback_about_nothing_of_ours_is_taken_and_changes_nothing(client: httpx2.Client, bank: Bank) -> None:
    answer = call_back(client, succeeded(str(uuid4())), secret=bank.provider.callback_secret)

    assert answer.status_code == 204


def test_a_callback_that_is_sent_again_and_again_is_asked_about_now_and_then(
    client: httpx2.Client, order: Basket, bank: Bank, database_url: str
) -> None:
    pending = data_of(order.pay("tok_late_decline"), 202)

    for _ in range(30):
        call_back(client, succeeded(pending["id"]), secret=bank.provider.callback_secret)

    events = select(OutboxEvent.position).where(OutboxEvent.aggregate == f"payment-callback:{pending['id']}")
    assert len(execute(database_url, events)) == 20


def test_money_that_comes_after_the_order_was_cancelled_goes_back(order: Basket) -> None:
    data_of(order.pay("tok_late"), 202)
    data_of(order.client.post(f"/api/v1/orders/{order.id}/cancel"))

    order.release()

    order.payment_becomes("refunded")
    assert (order.status, order.kept_minor) == ("cancelled", 0)


def test_money_for_what_was_paid_by_another_way_meanwhile_goes_back(order: Basket, admin: httpx2.Client) -> None:
    data_of(order.pay("tok_late"), 202)
    data_of(move(admin, order.id, "pay"))

    order.release()

    order.payment_becomes("refunded")
    assert (order.status, order.timeline, order.kept_minor) == ("paid", ["placed", "paid"], 0)


def test_a_provider_that_thinks_better_of_what_it_declined_is_believed(
    client: httpx2.Client, order: Basket, bank: Bank
) -> None:
    refused(order.pay("tok_decline"), ErrorCode.PAYMENT_DECLINED)
    booked = bank.books[order.payment_id]
    booked.status = ChargeStatus.SUCCEEDED

    call_back(client, succeeded(booked.reference), secret=bank.provider.callback_secret)

    order.becomes("paid")
    assert (order.payments[0]["status"], order.kept_minor) == ("succeeded", PRICE)


def test_of_two_payments_that_both_succeed_in_the_end_one_goes_back(
    client: httpx2.Client, order: Basket, bank: Bank
) -> None:
    refused(order.pay("tok_decline"), ErrorCode.PAYMENT_DECLINED)
    first = bank.books[order.payment_id]
    data_of(order.pay("tok_late"), 202)
    first.status = ChargeStatus.SUCCEEDED

    call_back(client, succeeded(first.reference), secret=bank.provider.callback_secret)

    def is_back() -> bool:
        return any(each["id"] == first.reference and each["status"] == "refunded" for each in order.payments)

    # While the other one is still under way.
    wait_for(is_back)
    order.release()
    order.becomes("paid")
    assert (order.kept_minor, sorted(each["status"] for each in order.payments)) == (PRICE, ["refunded", "succeeded"])

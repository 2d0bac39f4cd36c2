"""What the buyer reads of their order: a mail for each step, in order, and nobody's when the account is gone."""

from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import func, select
from sqlmodel import col

from src.outbox.models import OutboxEvent
from tests.core.conftest import Buyer, MakeProduct, move
from tests.support import orders
from tests.support.answers import bearer, data_of
from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.service import own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

# (currency, price in minor units, quantity, what the mail says)
MONEY = [
    ("EUR", 3490, 2, "69.80 EUR"),
    ("EUR", 5, 1, "0.05 EUR"),
    ("EUR", 0, 1, "0.00 EUR"),
    ("USD", 100_000_000_000, 1, "1000000000.00 USD"),
    ("JPY", 1250, 2, "2500 JPY"),
    ("KWD", 1234, 1, "1.234 KWD"),
    ("KWD", 7, 2, "0.014 KWD"),
]


def test_each_step_is_told_to_the_buyer_in_order(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, mailbox: Mailbox
) -> None:
    product = make_product(name="Storm lamp & wick", price_minor=3490)
    order = data_of(buyer.place((product["id"], 2)), 201)

    for step in ("pay", "fulfil", "return"):
        data_of(move(admin, order["id"], step))

    mailbox.wait_for(buyer.account.email, about=order["number"], number=4)
    mails = mailbox.mails_to(buyer.account.email, about=order["number"])
    for mail, status in zip(mails, ("placed", "paid", "fulfilled", "returned"), strict=True):
        assert mail.subject.endswith(f" is {status}")
        assert f"Your order {order['number']} is {status}." in mail.text
        assert f"2 x Storm lamp & wick ({product['sku']}): 69.80 EUR" in mail.text
        assert "Total: 69.80 EUR" in mail.text
        assert "Storm lamp &amp; wick" in mail.html


def test_a_cancelled_order_is_told_too(buyer: Buyer, make_product: MakeProduct, mailbox: Mailbox) -> None:
    order = data_of(buyer.place((make_product()["id"], 1)), 201)

    data_of(buyer.cancel(order["id"]))

    last = mailbox.wait_for(buyer.account.email, about=order["number"], number=2)
    assert last.subject.endswith(" is cancelled")


def test_what_was_refused_is_told_to_nobody(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, mailbox: Mailbox
) -> None:
    product = make_product(stock=1)["id"]
    assert buyer.place((product, 2)).status_code == 409
    order = data_of(buyer.place((product, 1)), 201)
    assert move(admin, order["id"], "return").status_code == 409
    data_of(buyer.cancel(order["id"]))

    mailbox.wait_for(buyer.account.email, about="order", number=2)

    told = [mail.subject.split()[-1] for mail in mailbox.mails_to(buyer.account.email, about="order")]
    assert told == ["placed", "cancelled"]


def test_a_buyer_is_told_of_each_order_and_a_stranger_of_few(database_kind: Kind) -> None:
    with (
        running_mail_server() as box,
        own_place(database_kind, MAIL__URL=box.url, MAIL__PER_MAILBOX="3") as place,
        place.service() as service,
    ):
        proven, claimed = service.register(), service.register()
        data_of(service.post("auth/verify", {"token": box.wait_for(proven).code}))
        product = orders.make_product(service, service.log_in()["access_token"])

        for email in (claimed, proven):
            buyer = service.log_in(email)["access_token"]
            for _ in range(5):
                orders.place_order(service, buyer, product)

        # The later one's are all there: so are the earlier one's, as many as there will be.
        box.wait_for(proven, about="order", number=5)
        assert len(box.mails_to(claimed, about="order")) == 3
        # What was told of orders leaves room for what is asked for otherwise.
        data_of(service.post("auth/password/forgot", {"email": proven}), 202)
        box.wait_for(proven, about="new password")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # how money is written is no database's business
def test_money_is_written_as_its_currency_has_it(buyer: Buyer, make_product: MakeProduct, mailbox: Mailbox) -> None:
    for currency, price_minor, quantity, total in MONEY:
        product = make_product(currency=currency, price_minor=price_minor, name="Lamp")
        order = data_of(buyer.place((product["id"], quantity)), 201)

        text = mailbox.wait_for(buyer.account.email, about=order["number"]).text

        assert f"{quantity} x Lamp ({product['sku']}): {total}\n" in text
        assert f"Total: {total}\n" in text


def test_each_line_is_told(buyer: Buyer, make_product: MakeProduct, mailbox: Mailbox) -> None:
    lamp, rope = (make_product(name=name, price_minor=price) for name, price in (("Lamp", 350), ("Rope", 5)))
    order = data_of(buyer.place((lamp["id"], 2), (rope["id"], 3)), 201)

    text = mailbox.wait_for(buyer.account.email, about=order["number"]).text

    assert f"2 x Lamp ({lamp['sku']}): 7.00 EUR\n" in text
    assert f"3 x Rope ({rope['sku']}): 0.15 EUR\n" in text
    assert "Total: 7.15 EUR\n" in text


async def test_nothing_is_told_to_an_account_that_was_deleted(  # noqa: PLR0913, PLR0917 - fixtures
    admin: httpx2.Client,
    buyer: Buyer,
    other_buyer: Buyer,
    make_product: MakeProduct,
    mailbox: Mailbox,
    database_url: str,
) -> None:
    product = make_product()["id"]
    order = data_of(buyer.place((product, 1)), 201)
    mailbox.wait_for(buyer.account.email, about=order["number"])
    data_of(admin.delete(f"/api/v1/users/{buyer.account.id}"))

    data_of(move(admin, order["id"], "cancel"))

    async def is_delivered() -> bool:
        delivered = select(func.count()).where(
            col(OutboxEvent.aggregate) == f"order:{order['id']}", col(OutboxEvent.delivered_at).is_not(None)
        )
        return bool(execute(database_url, delivered)[0][0] == 2)

    await eventually(is_delivered)
    # What was written to anybody by then is on its way before this.
    theirs = data_of(other_buyer.place((product, 1)), 201)
    mailbox.wait_for(other_buyer.account.email, about=theirs["number"])
    # Neither where it lived nor to whatever stands in the place of its address now.
    assert [to for to, mail in mailbox.arrived if order["number"] in mail.subject] == [buyer.account.email]


@pytest.fixture
def slow_box() -> Iterator[Mailbox]:
    with running_mail_server() as box:
        yield box


def test_mails_about_an_order_keep_their_order_though_the_first_are_sent_again(
    database_kind: Kind, slow_box: Mailbox
) -> None:
    quick = {"OUTBOX__FIRST_DELAY_SECONDS": "0.02", "OUTBOX__POLL_SECONDS": "0.05"}
    with own_place(database_kind, MAIL__URL=slow_box.url, **quick) as place, place.service() as service:
        email = service.register()
        slow_box.wait_for(email)
        staff, token = service.log_in()["access_token"], service.log_in(email)["access_token"]
        letter = {"sku": "LAMP", "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": 10}
        product = data_of(service.post("products", letter, token=staff), 201)["id"]
        slow_box.refusals += ["451 later"] * 3
        headers = {**bearer(token), "Idempotency-Key": uuid4().hex}
        basket = {"items": [{"product_id": product, "quantity": 1}]}
        order = data_of(service.client.post("/api/v1/orders", json=basket, headers=headers), 201)

        for step in ("pay", "fulfil", "return"):
            data_of(service.post(f"orders/{order['id']}/{step}", token=staff))

        slow_box.wait_for(email, about=order["number"], number=4)

    told = [mail.subject.split()[-1] for mail in slow_box.mails_to(email, about=order["number"])]
    assert told == ["placed", "paid", "fulfilled", "returned"]

"""docs/payments.md is what happens: its requests are sent, and its answers are those of the service."""

import re

import httpx2

from tests.core.conftest import Buyer, MakeProduct
from tests.support.answers import data_of
from tests.support.payments import Bank
from tests.support.server import PROJECT
from tests.support.transcript import Reader
from tests.support.waiting import wait_for

PAGE = PROJECT / "docs" / "payments.md"
BLOCK = re.compile(r"```(http|provider)\n(.*?)```", re.DOTALL)


def test_the_page_is_what_happens(buyer: Buyer, make_product: MakeProduct, bank: Bank) -> None:
    product, token = make_product(price_minor=3490)["id"], buyer.client.headers.pop("Authorization").partition(" ")[2]
    reader = Reader(buyer.client, {"product_id": product, "access_token": token})
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))

    for kind, text in blocks:
        if kind == "http":
            reader.send(text)
            continue
        verb, payment_id = reader.filled(text).split()
        if verb == "release":
            httpx2.post(f"{bank.url}/charges/{payment_id}/release", verify=False).raise_for_status()
        becomes = {"release": "succeeded", "refunded": "refunded"}[verb]

        def is_so(payment_id: str = payment_id, becomes: str = becomes) -> bool:
            answer = buyer.client.get(f"/api/v1/payments/{payment_id}", headers={"Authorization": f"Bearer {token}"})
            return bool(data_of(answer)["status"] == becomes)

        wait_for(is_so)

    assert len(blocks) == 9

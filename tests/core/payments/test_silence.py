"""While the provider says nothing, nobody else waits: no connection and no lock is held for it."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx2

from tests.core.conftest import ORDERS, PRODUCTS
from tests.support.answers import bearer, data_of
from tests.support.payments import running_bank
from tests.support.postgres import Kind
from tests.support.service import Service, own_place
from tests.support.waiting import wait_for

SILENT = 6


def test_others_are_served_while_a_provider_is_silent(database_kind: Kind) -> None:
    # Fewer connections than there are payments under way.
    pool = {"DB__POOL_SIZE": "2", "DB__MAX_OVERFLOW": "1", "DB__POOL_TIMEOUT_SECONDS": "1"}
    with (
        running_bank() as bank,
        own_place(
            database_kind, **pool, **bank.settings(PAYMENTS__TIMEOUT_SECONDS="9", PAYMENTS__UNSETTLED_SECONDS="60")
        ) as place,
        place.service() as service,
        ThreadPoolExecutor(SILENT) as threads,
    ):
        shop = _Shop(service)
        orders = [shop.place() for _ in range(SILENT)]

        paying = [threads.submit(shop.pay, order, "tok_silent") for order in orders]
        wait_for(lambda: len(bank.books) == SILENT)
        another = shop.place()
        paid = data_of(shop.pay(another, "tok_approve"), 201)

        assert not any(one.done() for one in paying)
        assert (paid["status"], shop.status(another)) == ("succeeded", "paid")
        assert {one.result().status_code for one in paying} == {202}


class _Shop:
    def __init__(self, service: Service) -> None:
        self.url, self.headers = service.server.url, bearer(service.log_in()["access_token"])
        letter = {"sku": "CASK", "name": "Cask", "price_minor": 100, "currency": "EUR", "stock": 100}
        self.product = data_of(self._post(PRODUCTS, letter), 201)["id"]

    def place(self) -> str:
        items = [{"product_id": self.product, "quantity": 1}]
        return str(data_of(self._post(ORDERS, {"items": items}), 201)["id"])

    def pay(self, order_id: str, source: str) -> httpx2.Response:
        return self._post(f"{ORDERS}/{order_id}/payments", {"source": source})

    def status(self, order_id: str) -> str:
        answer = httpx2.get(f"{self.url}{ORDERS}/{order_id}", headers=self.headers, verify=False, timeout=20)
        return str(data_of(answer)["status"])

    def _post(self, path: str, letter: object) -> httpx2.Response:
        headers = self.headers | {"Idempotency-Key": uuid4().hex}
        return httpx2.post(self.url + path, json=letter, headers=headers, verify=False, timeout=20)

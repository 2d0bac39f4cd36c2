"""While the provider says nothing, nobody else waits: no connection and no lock is held for it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import uuid4

import httpx2

from src.core.payments.gateway import ChargeStatus
from tests.core.conftest import ORDERS, PRODUCTS
from tests.support.answers import bearer, data_of
from tests.support.payments import running_bank
from tests.support.postgres import Kind
from tests.support.service import Service, own_place
from tests.support.waiting import wait_for

SILENT = 6
PRICE = 100


def test_others_are_served_while_a_provider_is_silent(database_kind: Kind) -> None:
    # Fewer connections than there are payments under way.
    pool = {"DB__POOL_SIZE": "2", "DB__MAX_OVERFLOW": "1", "DB__POOL_TIMEOUT_SECONDS": "1"}
    with (
        running_bank() as bank,
        own_place(
            database_kind, **pool, **bank.settings(PAYMENTS__TIMEOUT_SECONDS="7", PAYMENTS__UNSETTLED_SECONDS="60")
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


def test_what_comes_by_itself_does_not_wait_for_the_moment_at_which_it_is_asked_about(database_kind: Kind) -> None:
    """A refund, and a callback that found the provider down."""
    with (
        running_bank() as bank,
        own_place(database_kind, **bank.settings(PAYMENTS__UNSETTLED_SECONDS="3600")) as place,
        place.service() as service,
    ):
        bank.calls_back(service.server.url)
        shop = _Shop(service)
        paid, late = shop.place(), shop.place()
        refunded = data_of(shop.pay(paid, "tok_no_callback"), 201)["id"]
        booked = bank.books[data_of(shop.pay(late, "tok_late"), 202)["id"]]

        data_of(shop.cancel(paid))
        wait_for(lambda: bank.books[refunded].refunded_minor == PRICE)
        truth, asked = booked.told, Event()

        def out_of_order() -> dict[str, object]:
            asked.set()
            return {}

        booked.told = out_of_order  # type: ignore[method-assign] # for a while
        httpx2.post(f"{bank.url}/charges/{booked.reference}/release", verify=False)
        assert asked.wait(10)
        booked.told = truth  # type: ignore[method-assign] # as above

        wait_for(lambda: shop.status(late) == "paid")


def test_a_provider_that_is_switched_off_is_asked_when_it_is_there_again(database_kind: Kind) -> None:
    """PAYMENTS__URL taken away while something was pending: not even a dead event later."""
    quick = {"OUTBOX__POLL_SECONDS": "0.05", "OUTBOX__MAX_ATTEMPTS": "1"}
    with running_bank() as bank, own_place(database_kind, **quick, **bank.settings()) as place:
        with place.service() as service:
            shop = _Shop(service)
            order = shop.place()
            booked = bank.books[data_of(shop.pay(order, "tok_late"), 202)["id"]]
        booked.status = ChargeStatus.SUCCEEDED
        with place.service(PAYMENTS__URL="") as service:
            wait_for(lambda: service.server.output().count("The payment provider does not answer") >= 2)
            assert shop.status(order, service) == "placed"
        with place.service() as service:
            wait_for(lambda: shop.status(order, service) == "paid")


class _Shop:
    def __init__(self, service: Service) -> None:
        self.url, self.headers = service.server.url, bearer(service.log_in()["access_token"])
        letter = {"sku": "CASK", "name": "Cask", "price_minor": PRICE, "currency": "EUR", "stock": 100}
        self.product = data_of(self._post(PRODUCTS, letter), 201)["id"]

    def place(self) -> str:
        items = [{"product_id": self.product, "quantity": 1}]
        return str(data_of(self._post(ORDERS, {"items": items}), 201)["id"])

    def pay(self, order_id: str, source: str) -> httpx2.Response:
        return self._post(f"{ORDERS}/{order_id}/payments", {"source": source})

    def cancel(self, order_id: str) -> httpx2.Response:
        return self._post(f"{ORDERS}/{order_id}/cancel", None)

    def status(self, order_id: str, service: Service | None = None) -> str:
        url = service.server.url if service is not None else self.url
        answer = httpx2.get(f"{url}{ORDERS}/{order_id}", headers=self.headers, verify=False, timeout=20)
        return str(data_of(answer)["status"])

    def _post(self, path: str, letter: object) -> httpx2.Response:
        headers = self.headers | {"Idempotency-Key": uuid4().hex}
        return httpx2.post(self.url + path, json=letter, headers=headers, verify=False, timeout=20)

"""Orders that are there: who sees them, and who calls them off."""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import httpx2

from src.shared.errors import ErrorCode
from tests.core.conftest import ORDERS, Buyer, MakeProduct, Product
from tests.support.answers import at_once, data_of, refused, refused_fields

StockOf = Callable[[Product], int]


def placed(buyer: Buyer, product: Product, quantity: int = 1) -> str:
    order_id: str = data_of(buyer.place((product["id"], quantity)), 201)["id"]
    return order_id


def listed(buyer: Buyer, **filters: str | int) -> list[str]:
    page = data_of(buyer.client.get(ORDERS, params={"size": 100, **filters}))
    assert page.keys() == {"items", "total", "page", "size", "pages"}
    return [order["id"] for order in page["items"]]


def test_somebody_elses_order_does_not_exist(buyer: Buyer, other_buyer: Buyer, make_product: MakeProduct) -> None:
    theirs = placed(other_buyer, make_product())

    answers = [
        method(f"{ORDERS}/{order}{action}")
        for method, action in ((buyer.client.get, ""), (buyer.client.post, "/cancel"))
        for order in (theirs, uuid4())
    ]

    for answer in answers:
        refused(answer, ErrorCode.ORDER_NOT_FOUND)
    assert answers[0].content == answers[1].content
    assert answers[2].content == answers[3].content
    assert listed(buyer) == []
    assert listed(buyer, customer_id=other_buyer.account.id) == []
    assert data_of(other_buyer.client.get(f"{ORDERS}/{theirs}"))["status"] == "placed"


def test_orders_are_for_those_who_are_logged_in(client: httpx2.Client) -> None:
    for answer in (
        client.get(ORDERS),
        client.get(f"{ORDERS}/{uuid4()}"),
        client.post(f"{ORDERS}/{uuid4()}/cancel"),
    ):
        refused(answer, ErrorCode.NOT_AUTHENTICATED)


def test_who_may_read_all_orders_reads_them_and_cancels_none(
    buyer: Buyer, clerk: Callable[[str], Buyer], make_product: MakeProduct
) -> None:
    order, reader = placed(buyer, make_product()), clerk("order:read")

    assert data_of(reader.client.get(f"{ORDERS}/{order}")) == data_of(buyer.client.get(f"{ORDERS}/{order}"))
    assert listed(reader, customer_id=buyer.account.id) == [order]
    assert order in listed(reader)
    refused(reader.cancel(order), ErrorCode.ORDER_NOT_FOUND)


def test_who_may_update_all_orders_cancels_them(
    buyer: Buyer, clerk: Callable[[str], Buyer], make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(stock=10)
    order = placed(buyer, product, 4)

    assert data_of(clerk("order:update").cancel(order))["status"] == "cancelled"

    assert data_of(buyer.client.get(f"{ORDERS}/{order}"))["status"] == "cancelled"
    assert stock_of(product) == 10


def test_a_cancelled_order_gives_its_stock_back_once(
    buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(stock=10)
    order = data_of(buyer.place((product["id"], 4)), 201)

    cancelled = data_of(buyer.cancel(order["id"]))

    assert cancelled == order | {"status": "cancelled", "version": 2}
    assert stock_of(product) == 10
    assert refused(buyer.cancel(order["id"]), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED) == {
        "status": "cancelled",
        "allowed": [],
    }
    assert stock_of(product) == 10


def test_of_twenty_cancels_at_once_one_counts(buyer: Buyer, make_product: MakeProduct, stock_of: StockOf) -> None:
    product = make_product(stock=10)
    placed(buyer, product, 3)
    order = placed(buyer, product, 4)

    answers = at_once([lambda: buyer.cancel(order)] * 20)

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    for answer in answers:
        if answer.status_code == 409:
            refused(answer, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
    assert stock_of(product) == 7


def test_cancels_and_new_orders_at_once_leave_the_books_straight(
    buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    one, two = make_product(stock=6), make_product(stock=6)
    both = ((two["id"], 1), (one["id"], 1))
    orders = [data_of(buyer.place(*both), 201)["id"] for _ in range(6)]

    answers = at_once([*(partial(buyer.cancel, order) for order in orders), *[partial(buyer.place, *both)] * 6])

    assert [answer.status_code for answer in answers[:6]] == [200] * 6
    sold = [answer.status_code for answer in answers[6:]].count(201)
    assert (stock_of(one), stock_of(two)) == (6 - sold, 6 - sold)


def test_a_cancel_is_repeated_with_its_key(buyer: Buyer, make_product: MakeProduct) -> None:
    order, key = placed(buyer, make_product()), {"Idempotency-Key": uuid4().hex}

    first, second = (buyer.client.post(f"{ORDERS}/{order}/cancel", headers=key) for _ in range(2))

    data_of(first)
    assert (second.status_code, second.content) == (200, first.content)
    assert second.headers["Idempotency-Replayed"] == "true"


def test_ones_orders_are_listed_filtered_and_sorted(buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(price_minor=100)
    first, second, third = (placed(buyer, product, quantity) for quantity in (2, 1, 3))
    data_of(buyer.cancel(second))

    assert listed(buyer) == [third, second, first]
    assert listed(buyer, sort="created_at") == [first, second, third]
    assert listed(buyer, sort="total_minor") == [second, first, third]
    assert listed(buyer, sort="-total_minor") == [third, first, second]
    assert listed(buyer, status="cancelled") == [second]
    assert listed(buyer, status="placed") == [third, first]
    for wrong in ({"sort": "number"}, {"status": "lost"}, {"customer_id": "me"}, {"total": "1"}, {"size": "101"}):
        assert refused_fields(buyer.client.get(ORDERS, params=wrong)) == {f"query.{next(iter(wrong))}"}


def test_the_list_comes_in_pages_of_summaries(buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product()
    made = [placed(buyer, product) for _ in range(3)]

    pages = [data_of(buyer.client.get(ORDERS, params={"size": 2, "page": page})) for page in (1, 2, 3)]

    orders = [order for page in pages for order in page["items"]]
    assert [order["id"] for order in orders] == made[::-1]
    assert [(page["total"], page["pages"], page["page"], page["size"]) for page in pages] == [
        (3, 2, number, 2) for number in (1, 2, 3)
    ]
    assert {"id", "number", "status", "total_minor", "currency", "version", "created_at"} == orders[0].keys()


def test_the_orders_of_a_deleted_account_stay_in_the_books(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    order = placed(buyer, make_product())

    data_of(admin.delete(f"/api/v1/users/{buyer.account.id}"))

    assert data_of(admin.get(f"{ORDERS}/{order}"))["status"] == "placed"
    assert data_of(admin.post(f"{ORDERS}/{order}/cancel"))["status"] == "cancelled"

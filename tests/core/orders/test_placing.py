"""Placing orders: what is bought, at which price, and what is refused."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

import httpx2

from src.shared.errors import ErrorCode
from tests.core.conftest import ORDERS, PRODUCTS, Buyer, MakeProduct, Product
from tests.support.answers import at_once, data_of, refused, refused_fields

StockOf = Callable[[Product], int]


def test_an_order_is_answered_with_all_that_was_agreed(
    buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    lamp, rope = make_product(price_minor=3490, stock=10), make_product(name="Rope", price_minor=1890, stock=3)

    order = data_of(buyer.place((lamp["id"], 2), (rope["id"], 3), expected_total_minor=12_650), 201)

    assert order.keys() == {"id", "number", "status", "items", "total_minor", "currency", "version", "created_at"}
    assert UUID(order["id"]).version == 7
    assert datetime.fromisoformat(order["created_at"]).utcoffset() is not None
    assert (order["status"], order["total_minor"], order["currency"], order["version"]) == ("placed", 12_650, "EUR", 1)
    assert sorted(order["items"], key=lambda item: item["quantity"]) == [
        {
            "product_id": product["id"],
            "sku": product["sku"],
            "name": product["name"],
            "unit_price_minor": product["price_minor"],
            "quantity": quantity,
        }
        for product, quantity in ((lamp, 2), (rope, 3))
    ]
    assert (stock_of(lamp), stock_of(rope)) == (8, 0)
    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == order


def test_order_numbers_do_not_tell_how_much_is_sold(buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(stock=5)["id"]

    numbers = [data_of(buyer.place((product, 1)), 201)["number"] for _ in range(5)]

    assert len({number[:5] for number in numbers}) == 5


def test_the_same_product_twice_is_one_line(buyer: Buyer, make_product: MakeProduct, stock_of: StockOf) -> None:
    product = make_product(price_minor=100, stock=10)

    order = data_of(buyer.place((product["id"], 2), (product["id"], 3)), 201)

    assert [(item["product_id"], item["quantity"]) for item in order["items"]] == [(product["id"], 5)]
    assert order["total_minor"] == 500
    assert stock_of(product) == 5


def test_an_order_keeps_the_name_and_the_price_of_its_day(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(name="Old name", price_minor=100)
    order = data_of(buyer.place((product["id"], 2)), 201)

    changes = {"name": "New name", "price_minor": 999, "currency": "USD", "status": "archived"}
    data_of(admin.patch(f"{PRODUCTS}/{product['id']}", json=changes))

    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == order


def test_a_price_that_the_buyer_was_not_shown_is_refused(
    buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(price_minor=100, stock=10)

    for shown in (199, 201, 0):
        answer = buyer.place((product["id"], 2), expected_total_minor=shown)
        assert refused(answer, ErrorCode.ORDER_TOTAL_CHANGED) == {"total_minor": 200}

    assert stock_of(product) == 10
    data_of(buyer.place((product["id"], 2), expected_total_minor=200), 201)


def test_what_costs_nothing_can_be_ordered(buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(price_minor=0)["id"]

    assert data_of(buyer.place((product, 1), expected_total_minor=0), 201)["total_minor"] == 0


def test_the_largest_order_still_adds_up(buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(price_minor=100_000_000_000, stock=1_000_000_000)["id"]

    order = data_of(buyer.place(*[(product, 10_000)] * 100), 201)

    assert order["total_minor"] == 100_000_000_000 * 1_000_000


def test_one_order_has_one_currency(buyer: Buyer, make_product: MakeProduct, stock_of: StockOf) -> None:
    euros, dollars = make_product(), make_product(currency="USD")

    answer = buyer.place((euros["id"], 1), (dollars["id"], 1))

    assert refused(answer, ErrorCode.ORDER_MIXED_CURRENCIES) == {"currencies": ["EUR", "USD"]}
    assert (stock_of(euros), stock_of(dollars)) == (10, 10)


def test_every_line_that_is_short_is_listed_with_what_there_is(
    buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    enough, short, empty = make_product(stock=5), make_product(stock=2), make_product(stock=0)

    answer = buyer.place((enough["id"], 5), (short["id"], 2), (empty["id"], 4), (short["id"], 1))

    items = refused(answer, ErrorCode.PRODUCT_OUT_OF_STOCK)["items"]
    assert sorted(items, key=lambda item: item["requested"]) == [
        {"product_id": short["id"], "sku": short["sku"], "requested": 3, "available": 2},
        {"product_id": empty["id"], "sku": empty["sku"], "requested": 4, "available": 0},
    ]
    assert [stock_of(product) for product in (enough, short, empty)] == [5, 2, 0]


def test_what_does_not_exist_or_is_not_for_sale_takes_the_whole_order_back(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    there, archived, nowhere = make_product(), make_product(), str(uuid4())
    data_of(admin.delete(f"{PRODUCTS}/{archived['id']}"))

    unknown = buyer.place((there["id"], 1), (nowhere, 1))
    not_for_sale = buyer.place((there["id"], 1), (archived["id"], 1))

    assert refused(unknown, ErrorCode.PRODUCT_NOT_FOUND) == {"product_id": nowhere}
    assert refused(not_for_sale, ErrorCode.PRODUCT_NOT_FOR_SALE) == {"product_id": archived["id"]}
    assert stock_of(there) == 10


def test_an_order_needs_somebody_and_a_key(client: httpx2.Client, buyer: Buyer, make_product: MakeProduct) -> None:
    letter = {"items": [{"product_id": make_product()["id"], "quantity": 1}]}

    refused(client.post(ORDERS, json=letter, headers={"Idempotency-Key": "k"}), ErrorCode.NOT_AUTHENTICATED)
    refused(buyer.client.post(ORDERS, json=letter), ErrorCode.IDEMPOTENCY_KEY_REQUIRED)


def line(product_id: object = str(UUID(int=0)), quantity: object = 1, **more: object) -> dict[str, object]:
    return {"product_id": product_id, "quantity": quantity, **more}


NO_ORDERS: list[tuple[object, str]] = [
    ({}, "items"),
    ({"items": None}, "items"),
    ({"items": []}, "items"),
    ({"items": [line()] * 101}, "items"),
    ({"items": ["x"]}, "items.0"),
    *(
        ({"items": [line(quantity=quantity)]}, "items.0.quantity")
        for quantity in (0, -1, 1.5, 1.0, "1", True, None, 10_001, 2**31, 2**63, 10**400)
    ),
    *(
        ({"items": [line(product_id=product_id)]}, "items.0.product_id")
        for product_id in ("", "1", 7, None, str(UUID(int=10**30)).upper(), UUID(int=0).hex)
    ),
    ({"items": [line(unit_price_minor=1)]}, "items.0.unit_price_minor"),
    ({"items": [line()], "total_minor": 1}, "total_minor"),
    ({"items": [line()], "customer_id": str(UUID(int=0))}, "customer_id"),
    *(
        ({"items": [line()], "expected_total_minor": total}, "expected_total_minor")
        for total in (-1, 1.5, "1", True, 2**63)
    ),
]


def test_what_is_no_order_is_refused(buyer: Buyer) -> None:
    for letter, field in NO_ORDERS:
        answer = buyer.client.post(ORDERS, json=letter, headers={"Idempotency-Key": uuid4().hex})
        assert refused_fields(answer) == {field}


def test_buyers_at_once_get_what_there_is_and_no_more(
    buyer: Buyer, other_buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    """Baskets with the same goods in different orders queue up; they neither deadlock nor oversell."""
    one, two = make_product(stock=6), make_product(stock=6)
    baskets = [
        partial(who.place, *lines)
        for who in (buyer, other_buyer)
        for lines in [((one["id"], 1), (two["id"], 1)), ((two["id"], 1), (one["id"], 1))] * 5
    ]

    answers = at_once(baskets)

    for answer in answers:
        if answer.status_code != 201:
            refused(answer, ErrorCode.PRODUCT_OUT_OF_STOCK)
    assert [answer.status_code for answer in answers].count(201) == 6
    assert (stock_of(one), stock_of(two)) == (0, 0)

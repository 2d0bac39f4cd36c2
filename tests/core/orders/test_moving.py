"""Moving an order along: what may follow what, and what each step does to stock, history and books."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.core.conftest import ORDERS, PRODUCTS, Buyer, MakeProduct, Product, move
from tests.support.answers import at_once, data_of, refused

StockOf = Callable[[Product], int]
Clerk = Callable[[str], Buyer]
Rows = list[dict[str, Any]]  # Any: JSON

STEPS = {"pay": "paid", "fulfil": "fulfilled", "return": "returned", "cancel": "cancelled"}
WAYS = {
    "placed": (),
    "paid": ("pay",),
    "fulfilled": ("pay", "fulfil"),
    "cancelled": ("cancel",),
    "returned": ("pay", "fulfil", "return"),
}
"""How an order gets into a status. That of `expired`, and what is refused then, is in test_expiry.py."""
ALLOWED = {
    "placed": ["cancelled", "expired", "paid"],
    "paid": ["cancelled", "fulfilled"],
    "fulfilled": ["returned"],
    "cancelled": [],
    "returned": [],
}
PAIRS = [(status, step) for status in WAYS for step in STEPS]


def timeline(client: httpx2.Client, order_id: str) -> Rows:
    events: Rows = data_of(client.get(f"{ORDERS}/{order_id}/timeline"))
    return events


def movements(admin: httpx2.Client, product: Product) -> Rows:
    """Newest first."""
    page: Rows = data_of(admin.get(f"{PRODUCTS}/{product['id']}/stock/movements"))["items"]
    return page


def audited(admin: httpx2.Client, order_id: str) -> Rows:
    """Oldest first."""
    page: Rows = data_of(admin.get("/api/v1/audit", params={"target_type": "order", "target_id": order_id}))["items"]
    return page[::-1]


def go(client: httpx2.Client, order_id: str, *steps: str) -> None:
    for step in steps:
        data_of(move(client, order_id, step))


# Available of ten when four were ordered; (kind, on hand, reserved) that the step adds to the ledger.
EFFECTS = [
    ("placed", "pay", 6, []),
    ("placed", "cancel", 10, [("release", 0, -4)]),
    ("paid", "cancel", 10, [("release", 0, -4)]),
    ("paid", "fulfil", 6, [("fulfilment", -4, -4)]),
    ("fulfilled", "return", 10, [("return", 4, 0)]),
]


@pytest.mark.parametrize(("status", "step", "available", "entries"), EFFECTS)
def test_a_step_does_to_the_stock_what_its_name_says(  # noqa: PLR0913, PLR0917 - fixtures and the row of a table
    admin: httpx2.Client,
    buyer: Buyer,
    make_product: MakeProduct,
    stock_of: StockOf,
    status: str,
    step: str,
    available: int,
    entries: list[tuple[str, int, int]],
) -> None:
    product = make_product(stock=10)
    order = data_of(buyer.place((product["id"], 4)), 201)
    go(admin, order["id"], *WAYS[status])
    before = movements(admin, product)

    moved = data_of(move(admin, order["id"], step))

    assert moved == order | {"status": STEPS[step], "version": len(WAYS[status]) + 2}
    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == moved
    assert stock_of(product) == available
    after = movements(admin, product)
    added = after[: len(after) - len(before)]
    assert after[len(added) :] == before
    assert [(one["kind"], one["quantity"], one["reserved"]) for one in added] == entries
    staff = data_of(admin.get("/api/v1/profile"))["id"]
    assert {(one["reference"], one["actor_id"]) for one in added} <= {(f"order:{order['id']}", staff)}


def test_an_order_is_in_the_ledger_from_its_placing_on(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(stock=10)

    order = buyer.placed((product["id"], 4))

    newest = movements(admin, product)[0]
    told = {name: newest[name] for name in newest.keys() - {"id", "created_at"}}
    assert told == {
        "kind": "reservation",
        "quantity": 0,
        "reserved": 4,
        "reason": "",
        "reference": f"order:{order}",
        "actor_id": buyer.account.id,
    }


def test_a_step_moves_all_lines_of_its_order_and_of_no_other(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    one, two = make_product(stock=10), make_product(stock=10)
    order, other = buyer.placed((one["id"], 1), (two["id"], 2)), buyer.placed((two["id"], 3), (one["id"], 4))
    go(admin, other, "pay")

    go(admin, order, "pay", "fulfil")

    assert (stock_of(one), stock_of(two)) == (5, 5)
    go(admin, order, "return")
    assert (stock_of(one), stock_of(two)) == (6, 7)
    assert data_of(buyer.client.get(f"{ORDERS}/{other}"))["status"] == "paid"


@pytest.mark.parametrize("status", WAYS)
def test_a_step_that_may_not_follow_is_refused_and_changes_nothing(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, status: str
) -> None:
    product = make_product(stock=10)
    order = buyer.placed((product["id"], 4))
    go(admin, order, *WAYS[status])

    def all_that_is_known() -> tuple[object, ...]:
        shown = (data_of(admin.get(path)) for path in (f"{ORDERS}/{order}", f"{PRODUCTS}/{product['id']}"))
        return *shown, timeline(admin, order), audited(admin, order), movements(admin, product)

    before = all_that_is_known()

    for step in [step for step in STEPS if STEPS[step] not in ALLOWED[status]]:
        answer = move(admin, order, step)
        assert refused(answer, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED) == {"status": status, "allowed": ALLOWED[status]}
    assert all_that_is_known() == before


def test_every_pair_is_either_allowed_or_refused() -> None:
    """The tables above leave no pair out."""
    allowed = [(status, step) for status, step in PAIRS if STEPS[step] in ALLOWED[status]]
    assert sorted(allowed) == sorted((status, step) for status, step, *_ in EFFECTS)


def test_the_history_tells_who_did_what_in_which_order(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product()["id"]
    order, other = buyer.placed((product, 1)), buyer.placed((product, 1))
    go(admin, order, "pay", "fulfil", "return")
    data_of(buyer.cancel(other))

    events = timeline(buyer.client, order)

    assert all(event.keys() == {"version", "status", "actor", "created_at"} for event in events)
    assert [(event["version"], event["status"], event["actor"]) for event in events] == [
        (1, "placed", "customer"),
        (2, "paid", "staff"),
        (3, "fulfilled", "staff"),
        (4, "returned", "staff"),
    ]
    moments = [event["created_at"] for event in events]
    assert moments == sorted(moments)
    assert moments[0] == data_of(buyer.client.get(f"{ORDERS}/{order}"))["created_at"]
    assert [(event["status"], event["actor"]) for event in timeline(buyer.client, other)] == [
        ("placed", "customer"),
        ("cancelled", "customer"),
    ]
    assert timeline(admin, order) == events


def test_what_staff_did_is_audited(admin: httpx2.Client, buyer: Buyer, clerk: Clerk, make_product: MakeProduct) -> None:
    order, staff = buyer.placed((make_product()["id"], 1)), clerk("order:update")

    go(staff.client, order, "pay", "cancel")

    assert [
        (entry["action"], entry["actor_id"], entry["before"], entry["after"]) for entry in audited(admin, order)
    ] == [
        ("order.paid", staff.account.id, {"status": "placed"}, {"status": "paid"}),
        ("order.cancelled", staff.account.id, {"status": "paid"}, {"status": "cancelled"}),
    ]


def test_what_a_buyer_does_with_their_own_order_is_nobody_elses_business(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    order = buyer.placed((make_product()["id"], 1))

    data_of(buyer.cancel(order))

    assert audited(admin, order) == []


def test_staff_who_move_their_own_order_along_are_audited(
    admin: httpx2.Client, clerk: Clerk, make_product: MakeProduct
) -> None:
    """That it was paid is a right of staff, all the more when they say it of what they bought."""
    staff = clerk("order:update")
    order = staff.placed((make_product()["id"], 1))

    go(staff.client, order, "pay", "fulfil", "return")

    assert [entry["action"] for entry in audited(admin, order)] == ["order.paid", "order.fulfilled", "order.returned"]
    assert {event["actor"] for event in timeline(staff.client, order)} == {"customer"}


def test_a_step_is_repeated_with_its_key(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    for status, step, *_ in EFFECTS:
        product, key = make_product(stock=10), uuid4().hex
        order = buyer.placed((product["id"], 4))
        go(admin, order, *WAYS[status])

        first = move(admin, order, step, key=key)
        left, ledger, log = stock_of(product), movements(admin, product), audited(admin, order)
        second = move(admin, order, step, key=key)

        data_of(first)
        assert (second.status_code, second.content) == (200, first.content)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert (stock_of(product), movements(admin, product), audited(admin, order)) == (left, ledger, log)
        # Without the key it is another one.
        refused(move(admin, order, step), ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)


def test_of_one_step_taken_by_many_at_once_one_counts(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(stock=10)
    order = buyer.placed((product["id"], 4))

    for step in ("pay", "fulfil", "return"):
        answers = at_once([partial(move, admin, order, step)] * 10)

        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    assert stock_of(product) == 10
    assert [one["kind"] for one in movements(admin, product)] == ["return", "fulfilment", "reservation", "initial"]


def test_moving_orders_along_is_for_those_who_may(
    client: httpx2.Client, buyer: Buyer, clerk: Clerk, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(stock=10)
    order, reader = buyer.placed((product["id"], 1)), clerk("order:read")

    for step in ("pay", "fulfil", "return"):
        refused(move(client, order, step), ErrorCode.NOT_AUTHENTICATED)
        for somebody in (buyer, reader):
            for which in (order, str(uuid4())):
                answer = move(somebody.client, which, step)
                assert refused(answer, ErrorCode.PERMISSION_DENIED)["required"] == ["order:update"]

    assert timeline(buyer.client, order)[1:] == []
    assert stock_of(product) == 9


def test_an_order_that_is_not_there_goes_nowhere(admin: httpx2.Client) -> None:
    for step in STEPS:
        refused(move(admin, str(uuid4()), step), ErrorCode.ORDER_NOT_FOUND)
    refused(admin.get(f"{ORDERS}/{uuid4()}/timeline"), ErrorCode.ORDER_NOT_FOUND)


def test_somebody_elses_history_does_not_exist(
    client: httpx2.Client, buyer: Buyer, other_buyer: Buyer, clerk: Clerk, make_product: MakeProduct
) -> None:
    theirs = other_buyer.placed((make_product()["id"], 1))

    there, nowhere = (buyer.client.get(f"{ORDERS}/{order}/timeline") for order in (theirs, uuid4()))

    refused(there, ErrorCode.ORDER_NOT_FOUND)
    assert there.content == nowhere.content
    refused(client.get(f"{ORDERS}/{theirs}/timeline"), ErrorCode.NOT_AUTHENTICATED)
    assert timeline(clerk("order:read").client, theirs) == timeline(other_buyer.client, theirs)


def test_an_order_outlives_its_product(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(stock=10)
    order = data_of(buyer.place((product["id"], 4)), 201)

    data_of(admin.delete(f"{PRODUCTS}/{product['id']}"))

    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == order
    go(admin, order["id"], "pay", "fulfil", "return")
    last = order | {"status": "returned", "version": 4}
    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == last
    assert stock_of(product) == 10


def test_a_price_that_changed_since_it_was_read_is_refused_or_taken_as_it_is_now(
    client: httpx2.Client, admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct, stock_of: StockOf
) -> None:
    product = make_product(price_minor=100, stock=10)
    path = f"{PRODUCTS}/{product['id']}"
    shown = data_of(client.get(path))["price_minor"] * 2
    data_of(admin.patch(path, json={"price_minor": 150}))

    careful = buyer.place((product["id"], 2), expected_total_minor=shown)

    assert refused(careful, ErrorCode.ORDER_TOTAL_CHANGED) == {"total_minor": 300}
    assert stock_of(product) == 10
    order = data_of(buyer.place((product["id"], 2)), 201)
    assert (order["items"][0]["unit_price_minor"], order["total_minor"]) == (150, 300)
    data_of(admin.patch(path, json={"price_minor": 999}))
    assert data_of(buyer.client.get(f"{ORDERS}/{order['id']}")) == order


def test_orders_are_found_by_what_became_of_them(admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product()["id"]
    orders = {status: buyer.placed((product, 1)) for status in WAYS}
    for status, order in orders.items():
        go(admin, order, *WAYS[status])

    for status, order in orders.items():
        page = data_of(buyer.client.get(ORDERS, params={"status": status}))
        assert [(one["id"], one["status"]) for one in page["items"]] == [(order, status)]

"""Stock: what adjusts it, and the ledger that explains it."""

from functools import partial
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from src.shared.errors import ErrorCode
from tests.core.conftest import PRODUCTS, Buyer, MakeProduct, Product, move
from tests.support.answers import at_once, data_of, refused, refused_fields
from tests.support.postgres import Kind
from tests.support.tables import execute

HIGHEST = 1_000_000_000
KINDS = ("initial", "adjustment", "reservation", "release", "fulfilment", "return")


def adjust(
    admin: httpx2.Client, product: Product, delta: object, reason: object = "counted", key: str | None = None
) -> httpx2.Response:
    return admin.post(
        f"{PRODUCTS}/{product['id']}/stock",
        json={"delta": delta, "reason": reason},
        headers={"Idempotency-Key": key or uuid4().hex},
    )


def test_an_adjustment_moves_the_stock_and_is_written_down(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product(stock=10)

    assert data_of(adjust(admin, product, 5, "found"))["stock"] == 15
    adjusted = data_of(adjust(admin, product, -3, "broken"))

    assert (adjusted["stock"], adjusted["version"]) == (12, product["version"])
    page = data_of(admin.get(f"{PRODUCTS}/{product['id']}/stock/movements"))
    assert page.keys() == {"items", "total", "page", "size", "pages"}
    fields = {"id", "kind", "quantity", "reserved", "reason", "reference", "actor_id", "created_at"}
    assert all(one.keys() == fields for one in page["items"])
    me = data_of(admin.get("/api/v1/profile"))["id"]
    assert [(one["kind"], one["quantity"], one["reason"], one["actor_id"]) for one in page["items"]] == [
        ("adjustment", -3, "broken", me),
        ("adjustment", 5, "found", me),
        ("initial", 10, "initial stock", me),
    ]


def test_a_product_without_stock_has_no_movements(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product(stock=0)

    assert data_of(admin.get(f"{PRODUCTS}/{product['id']}/stock/movements"))["items"] == []


def test_the_ledger_is_filtered_by_kind(admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(stock=10)
    data_of(adjust(admin, product, 2))
    data_of(adjust(admin, product, -1))
    kept, cancelled = buyer.placed((product["id"], 4)), buyer.placed((product["id"], 1))
    data_of(buyer.cancel(cancelled))
    for step in ("pay", "fulfil", "return"):
        data_of(move(admin, kept, step))
    path = f"{PRODUCTS}/{product['id']}/stock/movements"

    found = {kind: data_of(admin.get(path, params={"kind": kind})) for kind in KINDS}

    assert {kind: [(one["quantity"], one["reserved"]) for one in page["items"]] for kind, page in found.items()} == {
        "initial": [(10, 0)],
        "adjustment": [(-1, 0), (2, 0)],
        "reservation": [(0, 1), (0, 4)],
        "release": [(0, -1)],
        "fulfilment": [(-4, -4)],
        "return": [(4, 0)],
    }
    assert all(one["kind"] == kind for kind, page in found.items() for one in page["items"])
    assert [page["total"] for page in found.values()] == [1, 2, 2, 1, 1, 1]
    assert data_of(admin.get(path))["total"] == 8
    for kind in ("sold", "", "INITIAL", "initial,return"):
        assert refused_fields(admin.get(path, params={"kind": kind})) == {"query.kind"}


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE stock_movements SET quantity = quantity + 1",
        "UPDATE stock_movements SET reason = 'because'",
        "DELETE FROM stock_movements",
        "TRUNCATE stock_movements",
    ],
)
def test_nobody_rewrites_the_ledger(
    admin: httpx2.Client, make_product: MakeProduct, database_url: str, database_kind: Kind, deed: str
) -> None:
    if database_kind == "sqlite" and deed.startswith("TRUNCATE"):
        pytest.skip("SQLite has no TRUNCATE")
    path = f"{PRODUCTS}/{make_product()['id']}/stock/movements"
    before = data_of(admin.get(path))

    with pytest.raises(DBAPIError, match="append-only"):
        execute(database_url, text(deed))

    assert data_of(admin.get(path)) == before


def test_an_adjustment_needs_a_key(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product()

    answer = admin.post(f"{PRODUCTS}/{product['id']}/stock", json={"delta": 1, "reason": "found"})

    refused(answer, ErrorCode.IDEMPOTENCY_KEY_REQUIRED)


def test_an_adjustment_is_made_once_for_one_key(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product, key = make_product(stock=10), uuid4().hex

    first, second = (adjust(admin, product, 5, key=key) for _ in range(2))

    assert data_of(first)["stock"] == 15
    assert second.content == first.content
    assert second.headers["Idempotency-Replayed"] == "true"
    assert data_of(admin.get(f"{PRODUCTS}/{product['id']}"))["stock"] == 15


def test_what_is_promised_cannot_be_taken_out(admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct) -> None:
    product = make_product(stock=10)
    data_of(buyer.place((product["id"], 4)), 201)

    assert refused(adjust(admin, product, -7), ErrorCode.STOCK_OUT_OF_RANGE) == {"available": 6, "highest": HIGHEST}

    assert data_of(adjust(admin, product, -6))["stock"] == 0


def test_what_came_back_beyond_the_bound_can_be_taken_out(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(stock=HIGHEST)
    order = data_of(buyer.place((product["id"], 5)), 201)
    for step in ("pay", "fulfil"):
        data_of(move(admin, order["id"], step))
    data_of(adjust(admin, product, 5))
    data_of(move(admin, order["id"], "return"))

    assert data_of(adjust(admin, product, -1))["stock"] == HIGHEST + 4
    refused(adjust(admin, product, 1), ErrorCode.STOCK_OUT_OF_RANGE)


def test_stock_has_an_upper_bound(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product(stock=1)

    refused(adjust(admin, product, HIGHEST), ErrorCode.STOCK_OUT_OF_RANGE)

    assert data_of(adjust(admin, product, HIGHEST - 1))["stock"] == HIGHEST
    data_of(adjust(admin, product, -HIGHEST))


def test_what_is_no_adjustment_is_refused(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product()

    for delta in (0.5, "1", True, None, HIGHEST + 1, -HIGHEST - 1, 2**63, 10**400):
        assert refused_fields(adjust(admin, product, delta)) == {"delta"}
    for reason in ("", "  ", "x" * 256, "two\nlines", "a\x00b", None):
        assert refused_fields(adjust(admin, product, 1, reason)) == {"reason"}


def test_adjustments_at_once_all_count(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product(stock=0)

    answers = at_once([partial(adjust, admin, product, 1) for _ in range(12)])

    assert sorted(data_of(answer)["stock"] for answer in answers) == list(range(1, 13))


def test_adjustments_and_orders_at_once_never_oversell(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(stock=5)

    takes = [partial(adjust, admin, product, -1) for _ in range(8)]
    orders = [partial(buyer.place, (product["id"], 1)) for _ in range(8)]
    answers = at_once([*takes, *orders])

    assert sum(answer.status_code in (200, 201) for answer in answers) == 5
    for answer in answers:
        if answer.status_code not in (200, 201):
            assert answer.json()["code"] in (ErrorCode.STOCK_OUT_OF_RANGE, ErrorCode.PRODUCT_OUT_OF_STOCK)
    assert data_of(admin.get(f"{PRODUCTS}/{product['id']}"))["stock"] == 0

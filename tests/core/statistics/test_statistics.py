"""Numbers for administrators, counted over a shop of their own."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.conftest import Account
from tests.core.conftest import PRODUCTS, Buyer, MakeProduct, move
from tests.support.answers import data_of, refused, refused_fields
from tests.support.postgres import Kind
from tests.support.service import own_place

STATS = "/api/v1/admin/stats"


def test_each_account_and_each_order_is_counted(
    admin: httpx2.Client, buyer: Buyer, register: Callable[[], Account], make_product: MakeProduct
) -> None:
    """The shop is shared with other tests: what counts is the difference."""
    product = make_product()["id"]
    before: dict[str, Any] = data_of(admin.get(STATS))  # Any: JSON

    verified, disabled, deleted = register(), register(), register()
    data_of(admin.patch(f"/api/v1/users/{verified.id}", json={"is_verified": True}))
    data_of(admin.patch(f"/api/v1/users/{disabled.id}", json={"is_active": False}))
    data_of(admin.delete(f"/api/v1/users/{deleted.id}"))
    orders = [data_of(buyer.place((product, 1)), 201)["id"] for _ in range(3)]
    data_of(buyer.cancel(orders[0]))

    after = data_of(admin.get(STATS))
    assert {name: after["users"][name] - before["users"][name] for name in after["users"]} == {
        "total": 2,
        "active": 1,
        "verified": 1,
    }
    assert after["orders"]["total"] - before["orders"]["total"] == 3
    by_status: Counter[str] = Counter(after["orders"]["by_status"])
    by_status.subtract(before["orders"]["by_status"])
    assert by_status == Counter(placed=2, cancelled=1)


def revenue_in(admin: httpx2.Client, currency: str) -> list[dict[str, Any]]:  # Any: JSON
    """The tests of this shop have a currency each."""
    return [each for each in data_of(admin.get(STATS))["revenue"] if each["currency"] == currency]


def test_money_comes_with_the_payment_and_goes_with_what_is_given_back(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(currency="ISK", price_minor=700)["id"]
    before_payment, after_it, returned, kept, unpaid = (buyer.placed((product, count)) for count in (1, 2, 3, 1, 1))
    assert revenue_in(admin, "ISK") == []

    data_of(buyer.cancel(before_payment))
    for order_id in (after_it, returned, kept):
        data_of(move(admin, order_id, "pay"))
    data_of(move(admin, after_it, "cancel"))
    for step in ("fulfil", "return"):
        data_of(move(admin, returned, step))

    (today,) = revenue_in(admin, "ISK")
    del today["day"]
    assert today == {
        "currency": "ISK",
        "orders": 3,
        "paid_minor": 6 * 700,
        "refunded_minor": 5 * 700,
        "net_minor": 700,
    }
    data_of(buyer.cancel(unpaid))
    assert revenue_in(admin, "ISK")[0]["refunded_minor"] == 5 * 700


def test_a_best_seller_is_named_as_it_is_now_and_keeps_the_money_it_was_paid_in(
    admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = make_product(name="Lantern", price_minor=2, currency="EUR", stock=10_000_000)
    path = f"{PRODUCTS}/{product['id']}"

    def sell() -> str:
        order_id = buyer.placed(*[(product["id"], 10_000)] * 100)
        data_of(move(admin, order_id, "pay"))
        return order_id

    def found() -> dict[str, Any]:  # Any: JSON
        (best,) = (each for each in data_of(admin.get(STATS))["best_sellers"] if each["product_id"] == product["id"])
        return dict(best)

    sell()
    data_of(admin.patch(path, json={"currency": "USD", "price_minor": 3}))
    sell()
    given_back = sell()
    data_of(move(admin, given_back, "cancel"))
    data_of(admin.patch(path, json={"name": "Old lantern", "status": "archived"}))

    assert found() == {
        "product_id": product["id"],
        "sku": product["sku"],
        "name": "Old lantern",
        "quantity": 2_000_000,
        "revenue_minor": {"EUR": 2_000_000, "USD": 3_000_000},
    }


def test_thirty_days_up_to_today_are_told_unless_others_are_asked_for(admin: httpx2.Client) -> None:
    before = datetime.now(UTC).date()
    usual = data_of(admin.get(STATS))
    assert before <= date.fromisoformat(usual["until"]) <= datetime.now(UTC).date()
    assert date.fromisoformat(usual["until"]) - date.fromisoformat(usual["since"]) == timedelta(days=29)

    asked = data_of(admin.get(STATS, params={"until": "2026-03-01"}))
    assert (asked["since"], asked["until"]) == ("2026-01-31", "2026-03-01")


@pytest.mark.parametrize(
    "query",
    [
        "since=2024-01-01&until=2024-12-31",  # 366 days
        "since=2026-03-29&until=2026-03-29",
        "since=1970-01-01&until=1970-01-01",
        "until=1970-01-01",
        "since=2200-12-31&until=2200-12-31",
    ],
)
def test_a_period_may_be_a_day_or_a_leap_year_and_lie_at_either_end(admin: httpx2.Client, query: str) -> None:
    data_of(admin.get(f"{STATS}?{query}"))


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("since=2026-03-02&until=2026-03-01", {"query.since"}),
        ("since=2025-01-01&until=2026-01-02", {"query.since"}),
        ("since=9999-12-31", {"query.since"}),
        ("since=2200-12-31", {"query.since"}),
        ("since=1969-12-31&until=1970-01-01", {"query.since"}),
        ("until=0001-01-01", {"query.until"}),
        ("until=2201-01-01", {"query.until"}),
        ("until=2026-02-30", {"query.until"}),
        ("until=2026-03-01T00:00:00", {"query.until"}),
        ("until=1772323200", {"query.until"}),
        ("until=20260301", {"query.until"}),
        ("until=%D9%A2%D9%A0%D9%A2%D9%A6-03-01", {"query.until"}),  # digits, but not of ASCII
        ("until=", {"query.until"}),
        ("since=&until=x", {"query.since", "query.until"}),
        ("until=2026-03-01&until=2026-03-02", {"query.until"}),
        ("day=2026-03-01", {"query.day"}),
    ],
)
def test_other_periods_are_refused(admin: httpx2.Client, query: str, fields: set[str]) -> None:
    assert refused_fields(admin.get(f"{STATS}?{query}")) == fields


def test_who_may_not_see_the_numbers_is_not_told_what_is_wrong_with_the_question(
    client: httpx2.Client, buyer: Buyer
) -> None:
    refused(client.get(f"{STATS}?until=x"), ErrorCode.NOT_AUTHENTICATED)
    refused(buyer.client.get(f"{STATS}?until=x"), ErrorCode.ROLE_REQUIRED)


def test_low_stock_is_what_is_for_sale_and_can_hardly_be_ordered(database_kind: Kind) -> None:
    with own_place(database_kind, STATISTICS__LOW_STOCK="2") as place, place.service() as service:
        admin = service.log_in()["access_token"]

        def make(sku: str, stock: int, status: str = "active") -> str:
            letter = {"sku": sku, "name": "Lamp", "price_minor": 1, "currency": "EUR"}
            answer = service.post("products", letter | {"stock": stock, "status": status}, token=admin)
            return str(data_of(answer, 201)["id"])

        for sku, stock, status in (
            ("three", 3, "active"),
            ("two", 2, "active"),
            ("draft", 0, "draft"),
            ("archived", 0, "archived"),
            ("none", 0, "active"),
        ):
            make(sku, stock, status)
        promised = make("promised", 4)
        items = {"items": [{"product_id": promised, "quantity": 3}]}
        headers = {"Authorization": f"Bearer {admin}", "Idempotency-Key": "once"}
        data_of(service.client.post("/api/v1/orders", json=items, headers=headers), 201)

        low = data_of(service.get("admin/stats", token=admin))["low_stock"]
        for number in range(60):
            make(f"empty-{number}", 0)
        many = data_of(service.get("admin/stats", token=admin))["low_stock"]

    assert [(each["sku"], each["stock"]) for each in low] == [("none", 0), ("promised", 1), ("two", 2)]
    assert low[1] == {"product_id": promised, "sku": "promised", "name": "Lamp", "stock": 1}
    assert len(many) == 50

"""Numbers for administrators, counted over a shop of their own."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

from tests.conftest import Account
from tests.core.conftest import Buyer, MakeProduct
from tests.support.answers import data_of

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

"""Many buyers at once: nothing is oversold, nothing deadlocks, nothing is lost."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import Account
from tests.support.server import Server

BUYERS = 200
UNITS = 50
PRODUCT_OUT_OF_STOCK = 50101
Login = Callable[[Account], httpx2.Client]


@pytest.fixture
def tokens(register: Callable[[], Account], login: Login) -> list[str]:
    """Twenty people; each stands for several buyers, since an account's password costs a core for a while."""
    return [login(register()).headers["Authorization"] for _ in range(20)]


def make_product(admin: httpx2.Client, stock: int) -> str:
    product = {"sku": f"RACE-{uuid4().hex[:12]}", "name": "Race", "price_minor": 100, "currency": "EUR", "stock": stock}
    answer = admin.post("/api/v1/products", json=product)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


def stock_of(admin: httpx2.Client, product_id: str) -> int:
    return int(admin.get(f"/api/v1/products/{product_id}").json()["data"]["stock"])


def place_all(server: Server, orders: Sequence[tuple[str, dict[str, object]]]) -> list[httpx2.Response]:
    """Place them all at once, each over a connection of its own."""

    async def place() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=len(orders), max_keepalive_connections=len(orders))
        async with httpx2.AsyncClient(base_url=server.url, timeout=60, limits=limits, verify=False) as client:
            return await asyncio.gather(
                *(
                    client.post(
                        "/api/v1/orders",
                        json=order,
                        headers={"Authorization": token, "Idempotency-Key": uuid4().hex},
                    )
                    for token, order in orders
                )
            )

    return asyncio.run(place())


def test_two_hundred_buyers_of_fifty_units_get_fifty(server: Server, admin: httpx2.Client, tokens: list[str]) -> None:
    product_id = make_product(admin, stock=UNITS)
    basket: dict[str, object] = {"items": [{"product_id": product_id, "quantity": 1}]}

    answers = place_all(server, [(tokens[n % len(tokens)], basket) for n in range(BUYERS)])

    outcomes = Counter((answer.status_code, answer.json()["code"]) for answer in answers)
    assert outcomes == {(201, 201): UNITS, (409, PRODUCT_OUT_OF_STOCK): BUYERS - UNITS}
    assert stock_of(admin, product_id) == 0
    assert len({answer.json()["data"]["id"] for answer in answers if answer.status_code == 201}) == UNITS


def test_crossed_baskets_queue_up_instead_of_deadlocking(
    server: Server, admin: httpx2.Client, tokens: list[str]
) -> None:
    first, second = make_product(admin, stock=1000), make_product(admin, stock=1000)
    one_way = [{"product_id": first, "quantity": 1}, {"product_id": second, "quantity": 1}]

    answers = place_all(
        server, [(tokens[n % len(tokens)], {"items": one_way if n % 2 else one_way[::-1]}) for n in range(100)]
    )

    assert Counter(answer.status_code for answer in answers) == {201: 100}
    assert (stock_of(admin, first), stock_of(admin, second)) == (900, 900)


def test_baskets_of_several_scarce_goods_are_had_whole_or_not_at_all(
    server: Server, admin: httpx2.Client, tokens: list[str]
) -> None:
    plenty, scarce = make_product(admin, stock=40), make_product(admin, stock=20)
    basket = [{"product_id": plenty, "quantity": 1}, {"product_id": scarce, "quantity": 2}]

    answers = place_all(
        server, [(tokens[n % len(tokens)], {"items": basket if n % 2 else basket[::-1]}) for n in range(100)]
    )

    outcomes = Counter((answer.status_code, answer.json()["code"]) for answer in answers)
    assert outcomes == {(201, 201): 10, (409, PRODUCT_OUT_OF_STOCK): 90}
    assert (stock_of(admin, plenty), stock_of(admin, scarce)) == (30, 0)


def test_orders_and_cancellations_at_once_leave_the_books_balanced(
    server: Server, admin: httpx2.Client, tokens: list[str]
) -> None:
    product_id = make_product(admin, stock=UNITS)
    basket: dict[str, object] = {"items": [{"product_id": product_id, "quantity": 2}]}
    placed = [a.json()["data"]["id"] for a in place_all(server, [(tokens[0], basket)] * 20) if a.status_code == 201]
    assert len(placed) == 20

    async def cancel_each_three_times() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60, verify=False) as client:
            calls = [order_id for order_id in placed for _ in range(3)]
            random.Random(7).shuffle(calls)
            headers = {"Authorization": tokens[0]}
            return await asyncio.gather(*(client.post(f"/api/v1/orders/{i}/cancel", headers=headers) for i in calls))

    statuses = Counter(answer.status_code for answer in asyncio.run(cancel_each_three_times()))

    assert statuses == {200: 20, 409: 40}
    assert stock_of(admin, product_id) == UNITS

"""Writes that a client may repeat, because it does not know whether the first one came through."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.params import Depends
from sqlalchemy import select, update
from sqlmodel import col

from src.config import Settings, get_settings, load_settings, use_settings
from src.http.envelope import install_envelope, unwrapped
from src.http.idempotency import IdempotencyRequired, Idempotent
from src.idempotency import services as idempotency
from src.idempotency.models import IdempotencyRecord
from src.shared.database import close_engine, transaction
from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD, Account
from tests.support.answers import data_of, refused, refused_fields
from tests.support.invariants import check_books
from tests.support.server import Server
from tests.support.tables import execute

ORDERS = "/api/v1/orders"
PRODUCTS = "/api/v1/products"
Register = Callable[[], Account]
Login = Callable[[Account], httpx2.Client]


@pytest.fixture
def product(admin: httpx2.Client) -> str:
    letter = {"sku": f"IDEM-{uuid4().hex}", "name": "Lamp", "price_minor": 100, "currency": "EUR", "stock": 100}
    product_id: str = data_of(admin.post(PRODUCTS, json=letter), 201)["id"]
    return product_id


@pytest.fixture
def buyer(register: Register, login: Login) -> httpx2.Client:
    return login(register())


def basket(product: str, quantity: int = 1) -> dict[str, object]:
    return {"items": [{"product_id": product, "quantity": quantity}]}


def place(client: httpx2.Client, letter: dict[str, object], key: str) -> httpx2.Response:
    return client.post(ORDERS, json=letter, headers={"Idempotency-Key": key})


def orders_of(client: httpx2.Client) -> int:
    total: int = data_of(client.get(ORDERS))["total"]
    return total


def assert_replayed(first: httpx2.Response, second: httpx2.Response) -> None:
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_repeated_order_is_answered_with_the_same_bytes(buyer: httpx2.Client, product: str) -> None:
    key = uuid4().hex

    first, second, third = (place(buyer, basket(product), key) for _ in range(3))

    data_of(first, 201)
    assert_replayed(first, second)
    assert_replayed(first, third)
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert orders_of(buyer) == 1


def test_the_first_answer_is_given_again_whatever_happened_since(
    admin: httpx2.Client, buyer: httpx2.Client, product: str
) -> None:
    key = uuid4().hex
    first = place(buyer, basket(product), key)
    data_of(buyer.post(f"{ORDERS}/{data_of(first, 201)['id']}/cancel"))
    data_of(admin.delete(f"{PRODUCTS}/{product}"))

    assert_replayed(first, place(buyer, basket(product), key))


def test_a_key_stands_for_one_body(buyer: httpx2.Client, product: str) -> None:
    key = uuid4().hex
    first = place(buyer, basket(product), key)

    refused(place(buyer, basket(product, 2), key), ErrorCode.IDEMPOTENCY_KEY_REUSED)
    reformatted = buyer.post(
        ORDERS,
        content=first.request.content.replace(b":", b": "),
        headers={"Idempotency-Key": key, "Content-Type": "application/json"},
    )
    refused(reformatted, ErrorCode.IDEMPOTENCY_KEY_REUSED)

    assert_replayed(first, place(buyer, basket(product), key))
    assert orders_of(buyer) == 1


def test_two_people_may_have_the_same_key(register: Register, login: Login, product: str) -> None:
    key, one, two = uuid4().hex, login(register()), login(register())

    first, second = place(one, basket(product), key), place(two, basket(product, 2), key)

    assert data_of(first, 201)["id"] != data_of(second, 201)["id"]
    assert_replayed(first, place(one, basket(product), key))
    assert_replayed(second, place(two, basket(product, 2), key))


def test_one_key_may_be_used_at_two_places(admin: httpx2.Client, product: str) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    letter = {"delta": 1, "reason": "found"}
    sku = {"sku": f"IDEM-{uuid4().hex}", "name": "Rope", "price_minor": 1, "currency": "EUR", "stock": 0}
    other = data_of(admin.post(PRODUCTS, json=sku, headers=key), 201)["id"]

    data_of(place(admin, basket(product), key["Idempotency-Key"]), 201)
    assert data_of(admin.post(f"{PRODUCTS}/{product}/stock", json=letter, headers=key))["stock"] == 100
    assert data_of(admin.post(f"{PRODUCTS}/{other}/stock", json=letter, headers=key))["stock"] == 1


def test_a_refusal_leaves_the_key_free(admin: httpx2.Client, buyer: httpx2.Client, product: str) -> None:
    key = uuid4().hex

    refused(place(buyer, basket(product, 101), key), ErrorCode.PRODUCT_OUT_OF_STOCK)
    refused_fields(place(buyer, {"items": []}, key))
    refused(place(buyer, basket(str(uuid4())), key), ErrorCode.PRODUCT_NOT_FOUND)
    letter = {"delta": 1, "reason": "found"}
    data_of(admin.post(f"{PRODUCTS}/{product}/stock", json=letter, headers={"Idempotency-Key": key}))
    first = place(buyer, basket(product, 101), key)

    data_of(first, 201)
    assert_replayed(first, place(buyer, basket(product, 101), key))


def test_a_replay_is_for_those_who_may_still_do_it(
    admin: httpx2.Client, register: Register, login: Login, product: str
) -> None:
    account, key = register(), uuid4().hex
    roles = f"/api/v1/users/{account.id}/roles"
    data_of(admin.put(roles, json={"roles": ["admin"]}))
    boss = login(account)
    letter, headers = {"delta": 1, "reason": "found"}, {"Idempotency-Key": key}
    data_of(boss.post(f"{PRODUCTS}/{product}/stock", json=letter, headers=headers))

    data_of(admin.put(roles, json={"roles": ["user"]}))

    refused(boss.post(f"{PRODUCTS}/{product}/stock", json=letter, headers=headers), ErrorCode.INVALID_TOKEN)
    answer = login(account).post(f"{PRODUCTS}/{product}/stock", json=letter, headers=headers)
    refused(answer, ErrorCode.PERMISSION_DENIED)


def test_what_is_no_key_is_refused(buyer: httpx2.Client, product: str) -> None:
    for key in (b"", b"two words", b"x" * 256, b"\xe9", b"a\tb"):
        answer = buyer.post(ORDERS, json=basket(product), headers=[(b"Idempotency-Key", key)])
        assert {field.lower() for field in refused_fields(answer)} == {"header.idempotency-key"}
    for key in (b"k", b"x" * 255, b'"quoted"', b"~!@#$%^&*()"):
        data_of(buyer.post(ORDERS, json=basket(product), headers=[(b"Idempotency-Key", key)]), 201)
    assert orders_of(buyer) == 4


def test_without_a_key_an_order_is_refused(buyer: httpx2.Client, product: str) -> None:
    refused(buyer.post(ORDERS, json=basket(product)), ErrorCode.IDEMPOTENCY_KEY_REQUIRED)


def test_a_key_is_honoured_on_the_other_writes_of_people_who_are_logged_in(
    admin: httpx2.Client, client: httpx2.Client, register: Register, login: Login
) -> None:
    account = register()
    mine = login(account)
    login(account)
    elsewhere = next(one["id"] for one in data_of(mine.get("/api/v1/auth/sessions")) if not one["current"])
    sku, user = f"IDEM-{uuid4().hex}", f"/api/v1/users/{account.id}"
    letter = {"sku": sku, "name": "Rope", "price_minor": 1, "currency": "EUR", "stock": 0}
    made = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}

    def twice(client: httpx2.Client, method: str, path: str, json: object = None, status: int = 200) -> httpx2.Response:
        headers = {"Idempotency-Key": uuid4().hex}
        first, second = (client.request(method, path, json=json, headers=headers) for _ in range(2))
        data_of(first, status)
        assert_replayed(first, second)
        return first

    product = data_of(twice(admin, "POST", PRODUCTS, letter, 201), 201)["id"]
    edited = data_of(twice(admin, "PATCH", f"{PRODUCTS}/{product}", {"name": "Rope, 10 m"}))
    assert edited["version"] == 2
    twice(admin, "DELETE", f"{PRODUCTS}/{product}")
    twice(mine, "PATCH", "/api/v1/profile", {"username": uuid4().hex})
    twice(mine, "DELETE", f"/api/v1/auth/sessions/{elsewhere}")
    twice(admin, "POST", "/api/v1/users", made, 201)
    twice(admin, "PATCH", user, {"is_verified": True})
    twice(admin, "PUT", f"{user}/roles", {"roles": []})
    twice(admin, "DELETE", user)


def test_a_key_does_not_keep_tokens(client: httpx2.Client, register: Register, database_url: str) -> None:
    """Answers that are secrets are never stored to be given again."""
    account, key = register(), {"Idempotency-Key": uuid4().hex}
    letter = {"email": account.email, "password": account.password}

    first, second = (data_of(client.post("/api/v1/auth/login", json=letter, headers=key)) for _ in range(2))

    assert first["refresh_token"] != second["refresh_token"]
    kept = execute(database_url, select(col(IdempotencyRecord.key)))
    assert key["Idempotency-Key"] not in {name for (name,) in kept}


@pytest.mark.parametrize("several", [50])
def test_fifty_identical_orders_at_once_are_one_order(
    server: Server, buyer: httpx2.Client, product: str, database_url: str, several: int
) -> None:
    """Each client retries what it is asked to retry, as a client does, and in the end has the one answer."""
    key = uuid4().hex

    async def insist(client: httpx2.AsyncClient) -> httpx2.Response:
        while True:
            answer = await client.post(ORDERS, json=basket(product, 2))
            if answer.status_code == 201:
                return answer
            assert answer.status_code in (409, 503), answer.text
            if answer.status_code == 409:
                refused(answer, ErrorCode.IDEMPOTENCY_IN_PROGRESS)
            await asyncio.sleep(float(answer.headers["Retry-After"]))

    async def all_at_once() -> list[httpx2.Response]:
        headers = {"Authorization": buyer.headers["Authorization"], "Idempotency-Key": key}
        limits = httpx2.Limits(max_connections=several)
        async with httpx2.AsyncClient(
            base_url=server.url, headers=headers, limits=limits, timeout=30, verify=False
        ) as client:
            return await asyncio.gather(*(insist(client) for _ in range(several)))

    answers = asyncio.run(all_at_once())

    assert {answer.content for answer in answers} == {answers[0].content}
    assert Counter("Idempotency-Replayed" in answer.headers for answer in answers) == {False: 1, True: several - 1}
    assert orders_of(buyer) == 1
    assert data_of(buyer.get(f"{PRODUCTS}/{product}"))["stock"] == 98
    check_books(database_url)


def test_another_precondition_is_another_request(admin: httpx2.Client, product: str) -> None:
    def rename(version: int) -> httpx2.Response:
        headers = {"Idempotency-Key": key, "If-Match": f'"{version}"'}
        return admin.patch(f"{PRODUCTS}/{product}", json={"name": "Second"}, headers=headers)

    key = uuid4().hex
    first = rename(1)

    assert_replayed(first, rename(1))
    refused(rename(77), ErrorCode.IDEMPOTENCY_KEY_REUSED)


@pytest.fixture
async def settings(database_url: str) -> AsyncIterator[None]:
    before: Settings = get_settings()
    use_settings(load_settings(app={"env": "test"}, db={"url": database_url}))
    yield
    await close_engine()
    use_settings(before)


async def test_a_key_is_kept_for_a_day_and_then_forgotten(
    buyer: httpx2.Client, product: str, database_url: str, settings: object
) -> None:
    young, old = uuid4().hex, uuid4().hex
    first = place(buyer, basket(product), young)
    data_of(place(buyer, basket(product), old), 201)
    age(database_url, young, timedelta(hours=23, minutes=59))
    age(database_url, old, timedelta(hours=24, minutes=1))

    async with transaction() as session:
        assert await idempotency.sweep(session) >= 1

    assert_replayed(first, place(buyer, basket(product), young))
    assert "Idempotency-Replayed" not in place(buyer, basket(product), old).headers


def age(database_url: str, key: str, by: timedelta) -> None:
    made = update(IdempotencyRecord).where(col(IdempotencyRecord.key) == key).values(created_at=datetime.now(UTC) - by)
    execute(database_url, made)


async def _stream() -> AsyncIterator[bytes]:
    yield b"{}"


@unwrapped
async def _as_it_is() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("endpoint", [_stream, _as_it_is])
@pytest.mark.parametrize("dependency", [Idempotent, IdempotencyRequired])
def test_a_route_without_a_finished_answer_cannot_keep_one(
    endpoint: Callable[..., object], dependency: Depends
) -> None:
    app = FastAPI()
    app.post("/things", dependencies=[dependency])(endpoint)
    with pytest.raises(TypeError, match="/things: a dependency keeps the finished answer"):
        install_envelope(app)

"""The six jobs: what is asked, and what the right answer is."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from bench import data
from bench.contenders.given import CACHED, GREETING

SIZE: Final = 50
_FRESH: Final = re.compile(
    rb'(?<="id":")[0-9a-f-]{36}(?=","number")|(?<="number":")[0-9A-Z]{5}-[0-9A-Z]{5}(?=")'
    rb'|(?<="created_at":")[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z(?=")'
)
KEY: Final = "\1"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    answer: bytes
    """The right one, with what is fresh masked."""
    body: bytes = b""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    title: str
    route: str
    """As access lines name it."""
    needs_token: bool
    make_requests: Callable[[UUID], list[Request]]
    """All that may be asked, for this caller."""
    writes: bool = False


def masked(body: bytes) -> bytes:
    return _FRESH.sub(b"*", body)


def _static(_caller: UUID) -> list[Request]:
    return [Request("GET", "/bench/static", data.envelope({"message": GREETING}))]


def _login(caller: UUID) -> list[Request]:
    return [Request("GET", "/bench/me", data.envelope({"id": str(caller)}))]


def page(path: str, number: int, total: int) -> Request:
    rows = data.user_rows((number - 1) * SIZE, number * SIZE)
    letter = {
        "items": [data.user_json(row) for row in rows],
        "total": total,
        "page": number,
        "size": SIZE,
        "pages": -(-total // SIZE),
    }
    return Request("GET", f"{path}?page={number}&size={SIZE}", data.envelope(letter))


def _page(_caller: UUID) -> list[Request]:
    return [page("/bench/users", 1, data.USERS)]


def _by_id(_caller: UUID) -> list[Request]:
    rows = list(data.user_rows(0, data.USERS - 1))
    random.Random(1).shuffle(rows)
    return [Request("GET", f"/bench/users/{row[0]}", data.envelope(data.user_json(row))) for row in rows]


def _order(path: str) -> Callable[[UUID], list[Request]]:
    def requests(_caller: UUID) -> list[Request]:
        rows = list(data.product_rows())
        random.Random(2).shuffle(rows)
        return [_order_of(path, product_id, sku, name, price) for product_id, sku, _, name, _, price, *_ in rows]

    return requests


def _order_of(path: str, product_id: UUID, sku: str, name: str, price: int) -> Request:
    line = {"product_id": str(product_id), "sku": sku, "name": name, "unit_price_minor": price, "quantity": 1}
    letter = {
        "id": "*",
        "number": "*",
        "status": "placed",
        "items": [line],
        "total_minor": price,
        "currency": "EUR",
        "version": 1,
        "created_at": "*",
    }
    body = json.dumps({"items": [{"product_id": str(product_id), "quantity": 1}]}).encode()
    return Request("POST", path, data.envelope(letter, 201), body, 201)


def _cached(_caller: UUID) -> list[Request]:
    return [Request("GET", "/bench/cached", data.envelope(CACHED))]


OUR_ORDERS: Final = "/api/v1/orders"
JOBS: Final = {
    job.name: job
    for job in (
        Job("static", "static JSON", "/bench/static", needs_token=False, make_requests=_static),
        Job("login", "log-in checked", "/bench/me", needs_token=True, make_requests=_login),
        Job("page", "page of 50, permission", "/bench/users", needs_token=True, make_requests=_page),
        Job("by_id", "one row by id, permission", "/bench/users/{user_id}", needs_token=True, make_requests=_by_id),
        Job(
            "order",
            "order placed",
            "/bench/orders",
            needs_token=True,
            make_requests=_order("/bench/orders"),
            writes=True,
        ),
        Job("cached", "cached value, log-in checked", "/bench/cached", needs_token=True, make_requests=_cached),
    )
}
# The service's own route. Order, line, history and ledger are everybody's; its idempotency and its event are ours alone.
OUR_ORDER: Final = Job(
    "order", "order placed", OUR_ORDERS, needs_token=True, make_requests=_order(OUR_ORDERS), writes=True
)

"""Two processes of the service behind a proxy, replaced one after the other while clients call."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Protocol
from uuid import uuid4

import httpx2

from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of
from tests.support.ports import reserved_port
from tests.support.server import Server, start_server
from tests.support.service import ADMIN, Place, Service, own_place
from tests.support.valkey import running_valkey
from tests.support.waiting import wait_for

CLIENTS = 4
DRAIN_SECONDS = 1
STOCK = 1_000_000


class Proxy(Protocol):
    """Starts one before these ports."""

    def __call__(self, *upstreams: int) -> AbstractContextManager[Server]: ...


@dataclass
class Seen:
    """By all clients."""

    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    orders: dict[str, str] = field(default_factory=dict)
    """Order id by key, of each 201."""
    lock: Lock = field(default_factory=Lock)

    def note(self, what: str, answer: httpx2.Response, *expected: int) -> None:
        with self.lock:
            self.answers[f"{what} {answer.status_code}"] += 1
            if answer.status_code not in expected:
                self.errors.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            elif answer.status_code == 201:
                self.orders[answer.request.headers["Idempotency-Key"]] = answer.json()["data"]["id"]


@dataclass
class Restarted:
    seen: Seen
    restarts: int
    codes: list[int]
    missing: list[str]
    """Acknowledged orders that are not there."""

    def problems(self) -> list[str]:
        found = [f"exit code {code}" for code in self.codes if code != 0]
        return [*found, *self.seen.errors, *(f"order {order} is lost" for order in self.missing)]


def restart_under_load(proxy: Proxy, *, restarts: int) -> Restarted:
    """So many times, each time the one that has served longest."""
    with ExitStack() as stack:
        cache = stack.enter_context(running_valkey())
        env = {
            "CACHE__URL": cache,
            "CACHE__NAMESPACE": f"rolling-{uuid4().hex[:12]}",
            "HTTP__DRAIN_SECONDS": str(DRAIN_SECONDS),
            "HTTP__TRUSTED_PROXIES": "127.0.0.1",
        }
        place = stack.enter_context(own_place("postgres", **env))
        ports = [stack.enter_context(reserved_port()) for _ in range(2)]
        servers = [_start(place, port) for port in ports]
        try:
            for server in servers:
                wait_until_ready(server)
            front = stack.enter_context(proxy(*ports))
            seen, codes = _serve(place, servers, front, restarts)
            missing = list(_missing(servers[0], seen))
        finally:
            codes_left = [server.end() for server in servers]
    return Restarted(seen, restarts, codes + codes_left, missing)


def _start(place: Place, port: int) -> Server:
    return start_server(port, Path(place.folder) / f"{port}.log", place.env, cwd=place.folder, forked=False)


def wait_until_ready(server: Server) -> None:
    server.wait_until_ready()
    wait_for(lambda: httpx2.get(f"{server.url}/health/ready", verify=False).status_code == 200)


def _serve(place: Place, servers: list[Server], front: Server, restarts: int) -> tuple[Seen, list[int]]:
    seen, over, codes = Seen(), Event(), list[int]()
    with httpx2.Client(base_url=front.url, timeout=20, verify=False) as client:
        service = Service(front, client)
        token = service.log_in()["access_token"]
        letter = {"sku": uuid4().hex, "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": STOCK}
        product = data_of(service.post("products", letter, token=token), 201)["id"]
    with ThreadPoolExecutor(CLIENTS) as threads:
        busy = [threads.submit(_call, front.url, token, product, seen, over) for _ in range(CLIENTS)]
        try:
            for number in range(restarts):
                old = servers[number % 2]
                codes.append(old.end())
                servers[number % 2] = _start(place, old.port)
                wait_until_ready(servers[number % 2])
        finally:
            over.set()
        for each in busy:
            each.result()
    return seen, codes


def _call(url: str, token: str, product: str, seen: Seen, over: Event) -> None:
    """Reads, places orders and logs in, each request once: no client of ours asks again."""
    with httpx2.Client(base_url=f"{url}/api/v1", timeout=20, verify=False, headers=bearer(token)) as client:
        while not over.is_set():
            try:
                seen.note("read", client.get(f"products/{product}"), 200)
                order = {"items": [{"product_id": product, "quantity": 1}]}
                key = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/json"}
                seen.note("order", client.post("orders", content=json.dumps(order), headers=key), 201)
            except httpx2.TransportError as error:
                with seen.lock:
                    seen.errors.append(repr(error))


def _missing(server: Server, seen: Seen) -> Iterator[str]:
    """Asked of the service itself: a proxy lets nobody ask so much at once."""
    with httpx2.Client(base_url=f"{server.url}/api/v1", timeout=20, verify=False) as client:
        letter = {"email": ADMIN, "password": PASSWORD}
        client.headers.update(bearer(data_of(client.post("auth/login", json=letter))["access_token"]))
        for order in seen.orders.values():
            if client.get(f"orders/{order}").status_code != 200:
                yield order

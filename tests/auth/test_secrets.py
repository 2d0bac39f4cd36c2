"""Canaries: passwords and tokens go through every door once, and are then looked for where they must not be."""

import re
from collections.abc import Iterator, Mapping
from uuid import uuid4

import httpx2
import pytest
from redis import Redis
from sqlalchemy import text

from tests.auth.conftest import LOGIN
from tests.conftest import PATIENT
from tests.support.answers import bearer, data_of
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import Server, running_server
from tests.support.tables import execute
from tests.support.valkey import own_valkey

EMAIL = f"canary-{uuid4().hex}@example.com"
FIRST, SECOND = (f"{word}-{uuid4().hex}-canary" for word in ("plum", "quarry"))


class Flight:
    """One pass through everything that takes or gives a secret, the ways that fail included."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.secrets = {FIRST, SECOND}

    def fly(self) -> None:
        account = {"email": EMAIL, "password": FIRST}
        data_of(self._post("register", account), 201)
        self._post("register", account)
        self._post("register", account | {"password": FIRST, "surplus": SECOND})
        self._post("login", account | {"password": SECOND})
        self._post("login", {"email": FIRST, "password": {"nested": SECOND}})
        self.client.post("/api/v1/auth/login", content=f'{{"password": "{FIRST}"'.encode())
        self.client.post("/api/v1/auth/token", data={"username": EMAIL, "password": FIRST})
        self.client.post("/api/v1/auth/token", data={"username": EMAIL, "password": SECOND})
        letter = self._session(account)
        letter = self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        headers = bearer(letter["access_token"])
        self.client.get("/api/v1/auth/sessions", headers=headers)
        self.client.patch("/api/v1/profile", json={"username": "canary"}, headers=headers | {"Idempotency-Key": "k"})
        self.client.get("/api/v1/profile", headers=bearer(letter["access_token"] + "x"))
        self.client.get("/api/v1/profile", headers={"Authorization": f"Basic {FIRST}"})
        self.client.post("/api/v1/auth/logout-all", headers=headers | {"Content-Type": FIRST})
        letter = self._session(account)
        change = {"current_password": SECOND, "new_password": FIRST}
        headers = bearer(letter["access_token"])
        self.client.post("/api/v1/auth/password/change", json=change, headers=headers)
        change = {"current_password": FIRST, "new_password": SECOND}
        data_of(self.client.post("/api/v1/auth/password/change", json=change, headers=headers))
        letter = self._session(account | {"password": SECOND})
        self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        data_of(self._post("logout", {"refresh_token": letter["refresh_token"]}))
        self._post("refresh", {"refresh_token": letter["refresh_token"]})

    def _post(self, door: str, letter: Mapping[str, object]) -> httpx2.Response:
        return self.client.post(f"/api/v1/auth/{door}", json=letter)

    def _session(self, account: dict[str, str]) -> dict[str, str]:
        return self._tokens(self.client.post(LOGIN, json=account))

    def _tokens(self, answer: httpx2.Response) -> dict[str, str]:
        letter: dict[str, str] = data_of(answer)
        # Signatures too: whatever is cut from a token still ends in one.
        self.secrets |= {letter["access_token"], letter["refresh_token"], letter["access_token"].rpartition(".")[2]}
        return letter

    def found_in(self, place: str) -> set[str]:
        return {secret for secret in self.secrets if secret in place}


@pytest.fixture(scope="module")
def database_of_flight() -> Iterator[str]:
    url = fresh_database("postgres")
    yield url
    drop_database(url)


@pytest.fixture(scope="module")
def valkey_of_flight() -> Iterator[str]:
    with own_valkey() as valkey:
        yield valkey.url


@pytest.fixture(scope="module")
def server(database_of_flight: str, valkey_of_flight: str) -> Iterator[Server]:
    env = {"DB__URL": database_of_flight, "CACHE__URL": valkey_of_flight, "LOG__LEVEL": "TRACE", **PATIENT}
    with running_server(env) as running:
        yield running


@pytest.fixture(scope="module")
def flight(server: Server) -> Flight:
    with httpx2.Client(base_url=server.url, timeout=15, verify=False) as client:
        flight = Flight(client)
        flight.fly()
    server.end()  # what it has to say is written now
    return flight


def test_the_output_has_no_secret(flight: Flight, server: Server) -> None:
    output = server.output()

    assert output.count("/api/v1/auth/login") >= 5
    assert flight.found_in(output) == set()


def test_the_tables_have_no_secret(flight: Flight, database_of_flight: str) -> None:
    names = [
        name
        for (name,) in execute(database_of_flight, text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
    ]
    dump = "\n".join(
        str(row)
        for name in names
        for row in execute(database_of_flight, text(f'SELECT "{name}"::text, * FROM "{name}"'))
    )

    assert EMAIL in dump
    assert re.search(r"\$argon2id\$", dump)
    assert flight.found_in(dump) == set()


def test_the_cache_has_no_secret(flight: Flight, valkey_of_flight: str) -> None:
    with Redis.from_url(valkey_of_flight, decode_responses=True) as valkey:
        entries = {str(key): valkey.dump(key) for key in valkey.scan_iter()}

    assert entries
    assert flight.found_in(f"{entries}") == set()
    assert EMAIL not in f"{entries}"

"""Alive and ready are two things."""

from pathlib import Path

import httpx2
from sqlalchemy import text

from tests.support.ports import reserved_port
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import Server, running_server
from tests.support.tables import execute


def get(server: Server, path: str) -> httpx2.Response:
    return httpx2.get(f"{server.url}{path}", verify=False)


def test_a_service_with_its_tables_is_ready(client: httpx2.Client) -> None:
    ready = client.get("/health/ready")

    assert (ready.status_code, ready.json()["data"]) == (200, {"status": "ready", "cache": "up"})


def test_without_tables_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    with running_server({"DB__URL": f"sqlite:///{tmp_path}/empty.db"}) as server:
        live, ready = get(server, "/health/live"), get(server, "/health/ready")

    assert live.status_code == 200
    assert (ready.status_code, ready.json()["code"]) == (503, 90002)
    assert "no tables" in ready.json()["msg"]


def test_tables_of_another_version_are_not_ready(database_kind: Kind) -> None:
    url = fresh_database(database_kind)
    try:
        execute(url, text("UPDATE alembic_version SET version_num = 'ffff'"))
        with running_server({"DB__URL": url}) as server:
            ready = get(server, "/health/ready")
    finally:
        drop_database(url)

    assert ready.status_code == 503
    assert "another version" in ready.json()["msg"]


def test_a_database_that_is_away_is_503_everywhere_and_never_500() -> None:
    with reserved_port() as port, running_server({"DB__URL": f"postgresql://u@127.0.0.1:{port}/x"}) as server:
        live, ready, products = (get(server, path) for path in ("/health/live", "/health/ready", "/api/v1/products"))

    assert [live.status_code, ready.status_code, products.status_code] == [200, 503, 503]
    assert products.headers["Retry-After"] == "1"


def test_a_cache_that_is_away_costs_nothing_but_speed(database_kind: Kind) -> None:
    url = fresh_database(database_kind)
    try:
        with (
            reserved_port() as port,
            running_server({"DB__URL": url, "CACHE__URL": f"redis://127.0.0.1:{port}"}) as server,
        ):
            ready, products = get(server, "/health/ready"), get(server, "/api/v1/products")
    finally:
        drop_database(url)

    assert ready.json()["data"] == {"status": "ready", "cache": "down"}
    assert products.status_code == 200

"""Patterns, Pagination: pages of a query, within bounds, in an order, without a secret."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from src.config import DatabaseSettings, Settings
from src.shared.database import create_engine
from src.users import User

SECRET_WORDS = ("hash", "secret", "password", "key", "epoch", "token", "deleted")
PATHS = ["/users", "/sqlmodel/users"]
CROWD = 230


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(Settings(db=DatabaseSettings(url=database_url)))
    yield engine
    await engine.dispose()


@pytest.fixture
async def crowd(engine: AsyncEngine) -> AsyncIterator[set[str]]:
    """Accounts that were all made at the same moment, in no order of their ids."""
    now, ids = datetime.now(UTC), [uuid4() for _ in range(CROWD)]
    rows = [
        {
            "id": id_,
            "email": f"{id_}@example.com",
            "email_key": f"{id_}@example.com",
            "created_at": now,
            "updated_at": now,
        }
        for id_ in ids
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(User), rows)
    yield {str(id_) for id_ in ids}
    async with engine.begin() as connection:
        await connection.execute(delete(User).where(col(User.id).in_(ids)))


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_in_the_envelope(client: httpx2.Client, crowd: set[str], path: str) -> None:
    answer = client.get(path, params={"page": 2, "size": 10})

    body = answer.json()
    assert (answer.status_code, body["code"], body["msg"]) == (200, 200, "success")
    page = body["data"]
    assert set(page) == {"items", "total", "page", "size", "pages"}
    assert (page["page"], page["size"], len(page["items"])) == (2, 10, 10)
    assert page["total"] >= CROWD
    assert page["pages"] == -(-page["total"] // 10)


@pytest.mark.parametrize("path", PATHS)
async def test_pages_neither_overlap_nor_miss_without_an_order_by(
    client: httpx2.Client, crowd: set[str], engine: AsyncEngine, path: str
) -> None:
    seen: list[str] = []
    pages = client.get(path, params={"size": 40}).json()["data"]["pages"]

    for number in range(1, pages + 1):
        page = client.get(path, params={"size": 40, "page": number}).json()["data"]["items"]
        seen += [user["id"] for user in page]
        # PostgreSQL writes a changed row to another place, and reads the table in the order of places.
        changed = [UUID(user["id"]) for user in page]
        async with engine.begin() as connection:
            await connection.execute(update(User).where(col(User.id).in_(changed)).values(is_verified=True))

    assert len(seen) == len(set(seen))
    assert crowd <= set(seen)


@pytest.mark.parametrize("path", [*PATHS, "/users/by-offset", "/users/by-cursor"])
def test_nothing_secret_is_in_a_page_of_the_table(client: httpx2.Client, crowd: set[str], path: str) -> None:
    users = client.get(path).json()["data"]["items"]

    assert users
    names = {name for user in users for name in user}
    assert names >= {"id", "email", "username", "is_active", "is_verified", "created_at"}
    assert not [name for name in names if any(word in name for word in SECRET_WORDS)]


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        *[
            (path, parameter, value)
            for path in PATHS
            for parameter, value in [
                ("size", 101),
                ("size", 0),
                ("size", -1),
                ("size", "many"),
                ("page", 0),
                ("page", 10**30),
            ]
        ],
        ("/users/by-offset", "limit", 101),
        ("/users/by-offset", "limit", 0),
        ("/users/by-offset", "offset", -1),
        ("/users/by-offset", "offset", 10**30),
        ("/users/by-cursor", "size", 101),
        ("/users/by-cursor", "size", 0),
    ],
)
def test_what_is_out_of_bounds_is_refused(client: httpx2.Client, path: str, parameter: str, value: Any) -> None:
    answer = client.get(path, params={parameter: value})

    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, 40001), answer.text
    assert [error["field"] for error in body["data"]["errors"]] == [f"query.{parameter}"]


@pytest.mark.parametrize("path", PATHS)
def test_the_largest_page_is_a_hundred(client: httpx2.Client, crowd: set[str], path: str) -> None:
    assert len(client.get(path, params={"size": 100}).json()["data"]["items"]) == 100


def test_beyond_the_last_page_is_nothing(client: httpx2.Client, crowd: set[str]) -> None:
    page = client.get("/users", params={"page": 2**31 - 1, "size": 100}).json()["data"]

    assert page["items"] == []
    assert page["total"] >= CROWD


def test_pages_by_limit_and_offset_work_as_well(client: httpx2.Client, crowd: set[str]) -> None:
    first = client.get("/users/by-offset", params={"limit": 60}).json()["data"]
    parts = [
        client.get("/users/by-offset", params={"limit": 60, "offset": offset}).json()["data"]["items"]
        for offset in range(0, first["total"], 60)
    ]

    seen = [user["id"] for part in parts for user in part]
    assert set(first) == {"items", "total", "limit", "offset"}
    assert len(seen) == len(set(seen)) == first["total"]
    assert crowd <= set(seen)


def walk(client: httpx2.Client, path: str, **params: str) -> list[str]:
    """The ids of all pages, from cursor to cursor."""
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        answer = client.get(path, params=params | {"size": "60"} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()["data"]
        seen += [user["id"] for user in page["items"]]
        cursor = page["next_page"]
    return seen


@pytest.mark.parametrize("path", ["/users/by-cursor", "/users/by-cursor-of-email"])
def test_cursor_pages_work_as_well(client: httpx2.Client, crowd: set[str], path: str) -> None:
    body = client.get(path).json()
    seen = walk(client, path)

    assert (body["code"], body["msg"]) == (200, "success")
    assert set(body["data"]) >= {"items", "total", "current_page", "previous_page", "next_page"}
    assert len(seen) == len(set(seen))
    assert crowd <= set(seen)


def test_a_cursor_leads_back_too(client: httpx2.Client, crowd: set[str]) -> None:
    first = client.get("/users/by-cursor", params={"size": 60}).json()["data"]
    second = client.get("/users/by-cursor", params={"size": 60, "cursor": first["next_page"]}).json()["data"]

    back = client.get("/users/by-cursor", params={"size": 60, "cursor": second["previous_page"]}).json()["data"]

    assert back["items"] == first["items"]


@pytest.mark.parametrize("cursor", ["nonsense", "\x00", "%00", "ü", "PmQ6MQ==", "PnM6MX5zOjE=", "//8=", "A" * 5000])
def test_a_cursor_that_is_none_of_ours_is_refused(client: httpx2.Client, cursor: str) -> None:
    refused(client.get("/users/by-cursor", params={"cursor": cursor}))


@pytest.mark.parametrize(
    ("path", "params"),
    [("/users/by-cursor-of-email", {}), ("/users/by-cursor-of-email", {"from_the_end": "1"})],
)
def test_a_cursor_leads_on_in_its_own_list_only(
    client: httpx2.Client, crowd: set[str], path: str, params: dict[str, str]
) -> None:
    cursor = client.get("/users/by-cursor", params={"size": 10}).json()["data"]["next_page"]

    refused(client.get(path, params={**params, "cursor": cursor}))


def test_a_cursor_that_was_changed_is_refused(client: httpx2.Client, crowd: set[str]) -> None:
    cursor = client.get("/users/by-cursor", params={"size": 10}).json()["data"]["next_page"]

    for place in range(0, len(cursor), 7):
        other = "A" if cursor[place] != "A" else "B"
        refused(client.get("/users/by-cursor", params={"cursor": cursor[:place] + other + cursor[place + 1 :]}))


def refused(answer: httpx2.Response) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, 40001), answer.text
    assert [error["field"] for error in body["data"]["errors"]] == ["query.cursor"]


def test_the_docs_tell_the_bounds_and_the_envelope(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    for path in PATHS:
        bounds = {each["name"]: each["schema"] for each in paths[path]["get"]["parameters"]}
        assert bounds["size"]["maximum"] == 100
        assert (bounds["size"]["minimum"], bounds["page"]["minimum"]) == (1, 1)

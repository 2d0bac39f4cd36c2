"""Commit, then answer: what a request's session promises, on both databases and over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import Select, func, insert, literal_column, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, StatementError
from sqlalchemy.orm import aliased
from sqlmodel import col

from src import config
from src.config import DatabaseSettings, Settings
from src.shared.database import close_engine, get_engine, transaction
from src.shared.lane import table_of
from src.users import User
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import Server, running_server
from tests.support.waiting import eventually

WRITERS = 20


@pytest.fixture(scope="module")
def own_database_url(database_kind: Kind) -> Iterator[str]:
    """Routes of this module have tables that no migration knows."""
    url = fresh_database(database_kind)
    yield url
    drop_database(url)


@pytest.fixture(scope="module")
def server(own_database_url: str) -> Iterator[Server]:
    env = {"DB__URL": own_database_url, "LOG__FORMAT": "json"}
    with running_server(env, "tests.shared.database_app:app") as running:
        yield running


@pytest.fixture
def name() -> str:
    return uuid4().hex


@pytest.fixture
async def database(own_database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The database of this process."""
    await close_engine()
    monkeypatch.setattr(config, "_current", Settings(db=DatabaseSettings(url=own_database_url)))
    yield
    await close_engine()


def ask(client: httpx2.Client, path: str) -> Any:  # Any: JSON
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


# --- Commit, then answer


def test_a_commit_that_fails_is_never_a_201(client: httpx2.Client, name: str) -> None:
    answer = client.post(f"/children/{name}", params={"parent_id": "nobody"})

    assert answer.status_code >= 500
    assert answer.json()["code"] == 90001
    assert "nobody" not in answer.text
    assert ask(client, f"/children/{name}") is False


def test_the_usual_session_says_201_and_keeps_nothing(client: httpx2.Client, name: str) -> None:
    """The positive control: the same route with what most services have shows the defect, so the test above can fail."""
    answer = client.post(f"/usual/children/{name}", params={"parent_id": "nobody"})

    assert answer.status_code == 201
    assert ask(client, f"/children/{name}") is False


def test_what_was_answered_is_stored(client: httpx2.Client, name: str) -> None:
    client.post(f"/parents/{name}")

    assert client.post(f"/children/{name}", params={"parent_id": name}).status_code == 201
    assert ask(client, f"/children/{name}") is True


def test_after_a_failed_commit_every_connection_still_works(client: httpx2.Client, name: str) -> None:
    for number in range(25):
        client.post(f"/children/{name}-{number}", params={"parent_id": "nobody"})

    assert client.post(f"/parents/{name}").status_code == 200
    assert ask(client, f"/parents/{name}") is True


@pytest.mark.parametrize(
    ("how", "status"), [("raised", 409), ("returned", 409), ("http", 418), ("crash", 500), ("answer", 500)]
)
def test_a_refusal_leaves_no_row(client: httpx2.Client, name: str, how: str, status: int) -> None:
    answer = client.post(f"/parents/{name}/refused/{how}")

    assert answer.status_code == status, answer.text
    assert ask(client, f"/parents/{name}") is False


def test_a_refusal_of_a_dependency_leaves_no_row(client: httpx2.Client, name: str) -> None:
    answer = client.post(f"/parents/{name}/refused-by-a-dependency")

    assert answer.status_code == 403
    assert ask(client, f"/parents/{name}") is False


def test_a_request_has_one_session_however_it_is_asked_for(client: httpx2.Client) -> None:
    assert ask(client, "/one-session") is True


def test_a_commit_that_failed_is_not_made_up_for_by_the_next_one(client: httpx2.Client, name: str) -> None:
    client.post(f"/children/{name}", params={"parent_id": name})

    client.post(f"/parents/{name}")

    assert ask(client, f"/parents/{name}") is True
    assert ask(client, f"/children/{name}") is False


# --- After the answer the session is closed


async def test_a_stream_with_the_session_of_its_request_fails_loudly(server: Server, client: httpx2.Client) -> None:
    request_id = uuid4().hex

    with pytest.raises(httpx2.RemoteProtocolError):
        client.get("/streams/requests", headers={"X-Request-ID": request_id})

    await eventually_logged(server, request_id, InvalidRequestError.__name__)


def test_a_stream_with_a_session_of_its_own_comes_to_its_end(client: httpx2.Client) -> None:
    assert client.get("/streams/own").text == "first\nlast\n"


async def test_a_background_task_with_the_session_of_its_request_fails_loudly(
    server: Server, client: httpx2.Client, name: str
) -> None:
    request_id = uuid4().hex

    client.post(f"/parents/{name}/in-the-background/requests", headers={"X-Request-ID": request_id})

    await eventually_logged(server, request_id, InvalidRequestError.__name__)
    assert ask(client, f"/parents/{name}") is False


async def test_a_background_task_with_a_session_of_its_own_is_stored(client: httpx2.Client, name: str) -> None:
    client.post(f"/parents/{name}/in-the-background/own")

    async def is_there() -> bool:
        return bool(ask(client, f"/parents/{name}"))

    await eventually(is_there)


async def eventually_logged(server: Server, request_id: str, error: str) -> None:
    async def is_there() -> bool:
        lines = [json.loads(line) for line in server.output().splitlines() if request_id in line]
        return any(error in line.get("exception", {}).get("traceback", "") for line in lines)

    await eventually(is_there)


# --- Many writers


@pytest.mark.parametrize("way", ["read-then-update", "lock-then-update"])
async def test_many_writers_neither_fail_nor_lose_an_update(
    server: Server, client: httpx2.Client, name: str, way: str
) -> None:
    client.post(f"/counters/{name}")

    async with httpx2.AsyncClient(base_url=server.url, timeout=30, verify=False) as writers:
        answers = await asyncio.gather(*(writers.post(f"/counters/{name}/{way}") for _ in range(WRITERS)))

    assert [answer.status_code for answer in answers] == [200] * WRITERS
    assert ask(client, f"/counters/{name}") == WRITERS


# --- Times


def test_a_plain_datetime_column_is_aware_and_utc(client: httpx2.Client, name: str) -> None:
    client.put(f"/moments/{name}", params={"at": "2026-03-28T23:30:00.000001-01:00"})

    assert ask(client, f"/moments/{name}") == {"zone": "UTC", "utc": "2026-03-29T00:30:00.000001+00:00"}


def test_a_naive_datetime_is_refused(client: httpx2.Client, name: str) -> None:
    answer = client.put(f"/moments/{name}", params={"at": "2026-03-28T23:30:00"})

    assert answer.status_code >= 400
    assert ask(client, f"/moments/{name}") is None


# --- transaction(), for jobs and scripts


ADD = text("INSERT INTO parent (id) VALUES (:id)")
COUNT = text("SELECT count(*) FROM parent WHERE id = :id")


async def count(name: str) -> int:
    async with transaction() as session:
        return int((await session.execute(COUNT, {"id": name})).scalar_one())


async def test_a_block_that_ends_is_committed(server: Server, database: None, name: str) -> None:
    async with transaction() as session:
        await session.execute(ADD, {"id": name})

    assert await count(name) == 1


async def test_a_block_that_raises_is_rolled_back(server: Server, database: None, name: str) -> None:
    async def fail() -> None:
        async with transaction() as session:
            await session.execute(ADD, {"id": name})
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert await count(name) == 0


async def test_a_block_that_is_cancelled_is_rolled_back(server: Server, database: None, name: str) -> None:
    written = asyncio.Event()

    async def job() -> None:
        async with transaction() as session:
            await session.execute(ADD, {"id": name})
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(job())
    await written.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert await count(name) == 0
    async with transaction() as session:  # the lock of the writer is free again
        await session.execute(ADD, {"id": name})


async def test_a_commit_that_fails_raises(server: Server, database: None, name: str) -> None:
    with pytest.raises(IntegrityError):
        async with transaction() as session:
            await session.execute(text("INSERT INTO child (id, parent_id) VALUES (:id, 'nobody')"), {"id": name})


async def test_a_session_is_closed_behind_its_block(database: None) -> None:
    async with transaction() as session:
        pass

    with pytest.raises(InvalidRequestError):
        await session.execute(select(User))


async def test_errors_do_not_tell_the_values(server: Server, database: None) -> None:
    nobody = f"nobody-{uuid4().hex}"

    with pytest.raises(StatementError) as caught:
        async with transaction() as session:
            await session.execute(text("INSERT INTO no_such_table (id) VALUES (:id)"), {"id": nobody})

    assert nobody not in str(caught.value)


# --- A part of a result has an order


@pytest.fixture
async def people(database: None) -> list[str]:
    """Made in no order of their ids."""
    now = datetime.now(UTC)
    async with transaction() as session:
        await session.execute(text("DELETE FROM users"))
        for id_ in (uuid4() for _ in range(30)):
            email = f"{id_}@example.com"
            await session.execute(
                insert(User).values(id=id_, email=email, email_key=email, created_at=now, updated_at=now)
            )
        return [str(id_) for id_ in (await session.execute(select(col(User.id)).order_by(col(User.id)))).scalars()]


Query = Select[*tuple[Any, ...]]  # Any: whatever is selected
other = aliased(User)

PARTS: dict[str, Query] = {
    "an entity": select(User),
    "an alias": select(other),
    "columns": select(col(User.id)),
    "a column of an alias": select(col(other.id)),
    "an entity and an expression": select(User, func.lower(col(User.email))),
    "a join": select(User).join(other, col(other.id) == col(User.id)),
    "two entities": select(User, other).join(other, col(other.id) == col(User.id)),
}


@pytest.mark.parametrize("query", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("part", ["limit", "limit and offset", "offset"])
async def test_a_part_without_an_order_is_in_the_order_of_the_primary_key(
    people: list[str], query: Query, part: str
) -> None:
    cut: dict[str, tuple[Callable[[Query], Query], slice]] = {
        "limit": (lambda q: q.limit(10), slice(10)),
        "limit and offset": (lambda q: q.limit(10).offset(15), slice(15, 25)),
        "offset": (lambda q: q.offset(15), slice(15, 30)),
    }
    take, expected = cut[part]

    async with transaction() as session:
        found = (await session.execute(take(query))).scalars().all()

    assert [str(getattr(each, "id", each)) for each in found] == people[expected]


async def test_an_order_that_is_given_is_kept(people: list[str]) -> None:
    async with transaction() as session:
        found = (await session.execute(select(col(User.id)).order_by(col(User.id).desc()).limit(5))).scalars()

        assert [str(each) for each in found] == people[:-6:-1]


@pytest.mark.parametrize(
    "query",
    [
        select(func.count()).select_from(User).limit(1),
        select(func.count(col(User.id))).limit(1),
        select(func.max(col(User.email)), func.min(col(User.email))).limit(1),
        select(col(User.is_active), func.count()).group_by(col(User.is_active)).limit(1),
        select(col(User.is_active)).distinct().limit(1),
        select(select(col(User.is_active)).subquery().c.is_active).limit(1),
        select(select(User).where(col(User.is_active)).exists()).limit(1),
        select(literal_column("1")).select_from(User).limit(1),
        select(table_of(User).c.id).limit(1),
    ],
)
async def test_what_has_no_primary_key_is_left_alone(people: list[str], query: Query) -> None:
    async with transaction() as session:
        assert len((await session.execute(query)).all()) == 1


async def test_naive_times_do_not_get_into_a_query(database: None) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point
    async with transaction() as session:
        with pytest.raises(StatementError):
            await session.execute(select(User).where(col(User.created_at) > naive))


async def test_the_process_has_one_engine_until_it_is_closed(database: None) -> None:
    engine = get_engine()

    assert get_engine() is engine
    await close_engine()
    assert get_engine() is not engine

"""What a handler can rely on: an effect in our own database happens once, whatever happens to whoever has it."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.schema import CreateTable
from sqlmodel import col

from src.outbox.models import OutboxEvent
from tests.outbox.effects import EFFECTS
from tests.support.answers import at_once, data_of
from tests.support.postgres import Kind
from tests.support.server import Server, running_server
from tests.support.service import Place, own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

APP = "tests.outbox.handlers_app:app"
QUICK = {
    "OUTBOX__FIRST_DELAY_SECONDS": "0.02",
    "OUTBOX__MAX_DELAY_SECONDS": "0.05",
    "OUTBOX__POLL_SECONDS": "0.05",
    "OUTBOX__MAX_ATTEMPTS": "100",
}
PATIENCE_SECONDS = 30
UNDELIVERED = col(OutboxEvent.delivered_at).is_(None)


@dataclass(frozen=True)
class Office:
    """Where events are published and nobody delivers them, unless a test begins to."""

    place: Place
    client: httpx2.Client

    def publish(self, *events: dict[str, object]) -> list[UUID]:
        return [UUID(each) for each in data_of(self.client.post("/events", json=events), 201)]

    @contextmanager
    def dispatcher(self, **env: str) -> Iterator[Server]:
        with running_server(self.place.env | env, APP) as server:
            yield server

    def effects(self) -> Sequence[Row[Any]]:  # Any: columns of several types
        return execute(self.place.database_url, select(EFFECTS).order_by(EFFECTS.c.number))

    def names(self) -> list[str]:
        return [row.name for row in self.effects()]

    def attempts(self) -> list[int]:
        query = select(col(OutboxEvent.attempts)).order_by(col(OutboxEvent.position))
        return [attempts for (attempts,) in execute(self.place.database_url, query)]

    async def wait_for(self, *names: str) -> None:
        async def there() -> bool:
            return set(names) <= set(self.names())

        await eventually(there, within_seconds=PATIENCE_SECONDS)

    async def wait_until_delivered(self) -> None:
        query = select(func.count()).select_from(OutboxEvent).where(UNDELIVERED)

        async def delivered() -> bool:
            return bool(execute(self.place.database_url, query)[0][0] == 0)

        await eventually(delivered, within_seconds=PATIENCE_SECONDS)

    def end_leases(self) -> None:
        now = datetime.now(UTC)
        execute(self.place.database_url, update(OutboxEvent).where(UNDELIVERED).values(available_at=now))


@pytest.fixture(scope="module")
def opened(database_kind: Kind) -> Iterator[Office]:
    with (
        own_place(database_kind, **QUICK) as place,
        running_server(place.env | {"OUTBOX__DISPATCH": "false"}, APP) as door,
        httpx2.Client(base_url=door.url, timeout=20, verify=False) as client,
    ):
        execute(place.database_url, CreateTable(EFFECTS))
        yield Office(place, client)


@pytest.fixture
def office(opened: Office) -> Office:
    """With nothing in its outbox, and nothing done."""
    for table in (OutboxEvent, EFFECTS):
        execute(opened.place.database_url, delete(table))
    return opened


def wait_until_stopped(server: Server) -> None:
    _, status = os.waitpid(server.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), server.output()


async def test_a_handler_that_failed_three_times_has_had_its_effect_once(office: Office) -> None:
    office.publish({"aggregate": "a", "name": "one", "fails": 3})

    with office.dispatcher():
        await office.wait_until_delivered()

    assert [(row.name, row.attempt) for row in office.effects()] == [("one", 4)]
    assert office.attempts() == [4]


async def test_a_plain_handler_is_told_the_same_event_each_time(office: Office) -> None:
    (event_id,) = office.publish({"kind": "test.plain", "aggregate": "a", "name": "one", "fails": 3})

    with office.dispatcher():
        await office.wait_until_delivered()

    assert [(row.event_id, row.attempt) for row in office.effects()] == [(event_id, number) for number in range(1, 5)]


async def test_what_is_killed_between_effect_and_commit_has_done_nothing(office: Office) -> None:
    with office.dispatcher() as first:
        (event_id,) = office.publish({"aggregate": "a", "name": "one", "then": "SIGKILL"})
        assert first.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert office.effects() == []

    office.end_leases()
    with office.dispatcher():
        await office.wait_until_delivered()

    assert [(row.event_id, row.attempt) for row in office.effects()] == [(event_id, 2)]


async def test_what_is_killed_right_after_commit_is_not_done_again(office: Office) -> None:
    with office.dispatcher() as first:
        (event_id,) = office.publish({"aggregate": "a", "name": "one", "then": "SIGKILL after COMMIT"})
        assert first.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    (after,) = office.publish({"aggregate": "a", "name": "two"})

    office.end_leases()
    with office.dispatcher():
        await office.wait_until_delivered()

    assert [(row.event_id, row.attempt) for row in office.effects()] == [(event_id, 1), (after, 1)]


async def test_what_kills_whoever_takes_it_up_is_given_up(office: Office) -> None:
    with office.dispatcher(OUTBOX__MAX_ATTEMPTS="1") as first:
        office.publish({"aggregate": "a", "name": "one", "then": "SIGKILL"})
        assert first.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    (after,) = office.publish({"aggregate": "a", "name": "two"})

    office.end_leases()
    with office.dispatcher(OUTBOX__MAX_ATTEMPTS="1"):
        await office.wait_for("two")

    assert [row.event_id for row in office.effects()] == [after]
    dead = select(col(OutboxEvent.kind)).where(col(OutboxEvent.dead_at).is_not(None))
    assert execute(office.place.database_url, dead) == [("test.once",)]


async def test_a_handler_that_hangs_is_cut_and_its_effect_with_it(office: Office) -> None:
    office.publish({"aggregate": "a", "name": "one", "then": "hang"})

    # It may take half of its lease.
    with office.dispatcher(OUTBOX__LEASE_SECONDS="1", MAIL__TIMEOUT_SECONDS="0.5"):
        await office.wait_until_delivered()

    assert [(row.name, row.attempt) for row in office.effects()] == [("one", 2)]


async def test_who_waits_for_a_server_that_hangs_leaves_room_for_the_others(office: Office) -> None:
    hanging: dict[str, object] = {"kind": "test.apart", "name": "hangs", "then": "hang"}
    office.publish(*[hanging | {"aggregate": str(a)} for a in range(40)], {"aggregate": "a", "name": "one"})

    with office.dispatcher(OUTBOX__LEASE_SECONDS="600") as hangs:
        await office.wait_for("one")
        hangs.process.kill()
        assert hangs.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL

    assert office.names() == ["one"]


async def test_what_is_delivered_apart_is_delivered_at_once(office: Office) -> None:
    with (
        office.dispatcher(OUTBOX__POLL_SECONDS="300") as server,
        httpx2.Client(base_url=server.url, timeout=20, verify=False) as client,
    ):
        one = {"kind": "test.apart", "aggregate": "a", "name": "one"}
        (event_id,) = data_of(client.post("/events", json=[one]), 201)
        await office.wait_until_delivered()

    assert [(str(row.event_id), row.attempt) for row in office.effects()] == [(event_id, 1)]


async def test_events_of_one_aggregate_come_in_order_and_no_other_waits_for_them(office: Office) -> None:
    office.publish(
        {"aggregate": "a", "name": "a1", "waits_for": "gate"},
        {"aggregate": "a", "name": "a2", "fails": 1},
        {"aggregate": "a", "name": "a3"},
        {"aggregate": "b", "name": "b1"},
        {"aggregate": "b", "name": "b2"},
    )

    with office.dispatcher():
        await office.wait_for("b1", "b2")
        assert office.names() == ["b1", "b2"]
        execute(office.place.database_url, insert(EFFECTS).values(name="gate", attempt=0, process=0))
        await office.wait_until_delivered()

    assert office.names() == ["b1", "b2", "gate", "a1", "a2", "a3"]


async def test_two_processes_have_each_effect_once(office: Office, database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("one process at a time")
    aggregates, each = 20, 10
    letters = [
        [{"aggregate": str(a), "name": f"{a}.{number}", "fails": int(number == 3)} for number in range(each)]
        for a in range(aggregates)
    ]

    with office.dispatcher(), office.dispatcher():
        published = at_once([partial(office.publish, *letter) for letter in letters])
        await office.wait_until_delivered()

    effects = office.effects()
    assert len(effects) == aggregates * each
    assert {row.event_id for row in effects} == {event_id for ids in published for event_id in ids}
    for a, ids in enumerate(published):
        assert [row.event_id for row in effects if row.name.startswith(f"{a}.")] == ids


async def test_who_stood_still_until_somebody_else_had_done_it_does_nothing(office: Office) -> None:
    with office.dispatcher() as first:
        (event_id,) = office.publish({"aggregate": "stalls", "name": "one"})
        wait_until_stopped(first)
        office.end_leases()
        with office.dispatcher() as second:
            await office.wait_for("one")
            first.process.send_signal(signal.SIGCONT)
            # It ends what it is at before it stops.
            assert first.end() in (0, -signal.SIGTERM)

    assert [(row.event_id, row.attempt, row.process) for row in office.effects()] == [(event_id, 2, second.pid)]


async def test_whoever_stands_still_within_its_effect_loses_it_to_the_next(office: Office, database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("whoever stands still with SQLite's one lock keeps everybody waiting")
    # The database ends a transaction that stands still for so long.
    with office.dispatcher(HTTP__REQUEST_TIMEOUT_SECONDS="1") as first:
        (event_id,) = office.publish({"aggregate": "a", "name": "one", "then": "SIGSTOP"})
        wait_until_stopped(first)
        office.end_leases()
        with office.dispatcher() as second:
            await office.wait_until_delivered()
            first.process.send_signal(signal.SIGCONT)
            assert first.end() in (0, -signal.SIGTERM)

    assert [(row.event_id, row.attempt, row.process) for row in office.effects()] == [(event_id, 2, second.pid)]

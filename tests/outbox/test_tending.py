"""What was given up: who sees it, and how it is delivered after all."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, func, select, text, update
from sqlmodel import col, insert

from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from src.shared.types import new_id
from tests.support.answers import bearer, data_of, refused, refused_fields
from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.service import Place, Service, own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

MAX_ATTEMPTS = 2
SETTINGS = {
    "OUTBOX__FIRST_DELAY_SECONDS": "0.02",
    "OUTBOX__POLL_SECONDS": "0.05",
    "OUTBOX__MAX_ATTEMPTS": str(MAX_ATTEMPTS),
}
LATER = timedelta(days=1)
_LONG_QUEUE = """
    INSERT INTO outbox_events
        (id, kind, aggregate, payload, created_at, available_at, attempts, last_error, delivered_at)
    SELECT gen_random_uuid(), 'mail', 'mail:one', '', now(), now(), 0, '', {delivered_at} FROM generate_series(1, 20000)
"""
Entry = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Office:
    """A service and its administrator, who looks after the outbox."""

    place: Place
    service: Service
    box: Mailbox
    token: str

    def listed(self, **filters: str) -> list[Entry]:
        items: list[Entry] = data_of(self.service.get("outbox", token=self.token, **filters))["items"]
        return items

    def retry(self, event_id: object, **headers: str) -> httpx2.Response:
        return self.service.client.post(
            f"/api/v1/outbox/{event_id}/retry", headers=bearer(self.token) | {"Idempotency-Key": uuid4().hex} | headers
        )

    def retries(self, event_id: object) -> list[Entry]:
        """What the audit log has of them."""
        found = self.service.get("audit", token=self.token, action="outbox.retried", target_id=str(event_id))
        items: list[Entry] = data_of(found)["items"]
        return items

    async def give_up(self, *emails: str) -> list[Entry]:
        """Registrations whose mails nobody takes: their events, newest first."""
        known = self.count(dead=True)
        for number, email in enumerate(emails, 1):
            self.box.refusals += ["550 nobody here"] * MAX_ATTEMPTS
            self.service.register(email)

            async def is_dead(expected: int = known + number) -> bool:
                return self.count(dead=True) == expected

            await eventually(is_dead)
        return self.listed(state="dead")

    def count(self, *, dead: bool) -> int:
        which = col(OutboxEvent.dead_at).is_not(None) if dead else col(OutboxEvent.delivered_at).is_(None)
        query = select(func.count()).select_from(OutboxEvent).where(which)
        return int(execute(self.place.database_url, query)[0][0])

    def plant(self, **differently: object) -> UUID:
        """An event that nobody delivers: it is not time for that, or it is over."""
        row = {
            "id": new_id(),
            "kind": "order.paid",
            "aggregate": f"order:{uuid4()}",
            "payload": b"sealed",
            "created_at": datetime.now(UTC),
            "available_at": datetime.now(UTC) + LATER,
            "attempts": 3,
            "last_error": "",
            "delivered_at": None,
            "dead_at": None,
        } | differently
        execute(self.place.database_url, insert(OutboxEvent).values(row))
        return UUID(str(row["id"]))


@pytest.fixture(scope="module")
def running(database_kind: Kind) -> Iterator[Office]:
    with (
        running_mail_server() as box,
        own_place(database_kind, MAIL__URL=box.url, **SETTINGS) as place,
        place.service() as service,
    ):
        yield Office(place, service, box, service.log_in()["access_token"])


@pytest.fixture
def office(running: Office) -> Office:
    """With nothing in its outbox."""
    running.box.refusals.clear()
    execute(running.place.database_url, delete(OutboxEvent))
    return running


def address() -> str:
    return f"{uuid4().hex}@example.com"


async def test_what_was_given_up_is_listed_without_what_it_says(office: Office) -> None:
    email = address()

    (event,) = await office.give_up(email)
    code, said = office.place.run("outbox")

    assert event.keys() == {
        *("id", "kind", "aggregate", "attempts", "last_error"),
        *("created_at", "available_at", "delivered_at", "dead_at"),
    }
    assert (event["kind"], event["attempts"], event["last_error"]) == ("mail", MAX_ATTEMPTS, "SMTPDataError")
    assert event["delivered_at"] is None
    assert event["dead_at"] is not None
    assert code == 0, said
    assert said.splitlines() == [
        "0 wait, for 0 s at most; 1 were given up",
        f"{event['id']}  mail  {event['aggregate']}  {MAX_ATTEMPTS} attempts, SMTPDataError",
    ]
    for told in (str(event), said):
        assert email not in told
        assert email.partition("@")[0] not in told
        assert "payload" not in told


async def test_what_was_given_up_is_delivered_once_it_is_retried(office: Office) -> None:
    email = address()
    (event,) = await office.give_up(email)

    retried = data_of(office.retry(event["id"]))
    office.box.wait_for(email)

    assert (retried["id"], retried["attempts"], retried["dead_at"]) == (event["id"], 0, None)

    async def is_noted() -> bool:
        return [each["id"] for each in office.listed(state="delivered")] == [event["id"]]

    await eventually(is_noted)
    assert len(office.box.mails_to(email)) == 1
    assert office.listed(state="dead") == []


async def test_a_retry_has_all_attempts_again(office: Office) -> None:
    email = address()
    (event,) = await office.give_up(email)
    office.box.refusals += ["451 later"] * (MAX_ATTEMPTS - 1)

    data_of(office.retry(event["id"]))
    office.box.wait_for(email)

    assert len(office.box.mails_to(email)) == 1


async def test_a_retry_is_in_the_audit_log_and_says_who_wanted_it(office: Office) -> None:
    one, other = await office.give_up(address(), address())
    me = data_of(office.service.get("profile", token=office.token))["id"]

    data_of(office.retry(one["id"]))
    code, said = office.place.run("outbox", "--retry", other["id"])
    assert code == 0, said

    told = ("action", "outcome", "actor_id", "source", "target_type", "target_id", "after")
    for event_id, actor, source in ((one["id"], me, "http"), (other["id"], None, "command")):
        (row,) = office.retries(event_id)
        expected = ("outbox.retried", "done", actor, source, "event", event_id, {"kind": "mail"})
        assert tuple(row[name] for name in told) == expected


async def test_the_same_retry_again_gets_the_first_answer_and_does_nothing(office: Office) -> None:
    email = address()
    (event,) = await office.give_up(email)
    key = {"Idempotency-Key": uuid4().hex}

    first = office.retry(event["id"], **key)
    office.box.wait_for(email)
    again = office.retry(event["id"], **key)

    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.content) == (200, first.content)
    assert len(office.retries(event["id"])) == 1
    refused(office.retry(event["id"]), ErrorCode.EVENT_NOT_DEAD)


async def test_the_command_retries_one_event_or_all_of_them(office: Office) -> None:
    first, *others = emails = [address() for _ in range(3)]
    *_, oldest = await office.give_up(*emails)

    code, said = office.place.run("outbox", "--retry", oldest["id"])
    assert code == 0, said
    office.box.wait_for(first)
    assert [office.box.mails_to(email) for email in others] == [[], []]

    code, said = office.place.run("outbox", "--retry-all")
    assert code == 0, said
    assert said.startswith("2 events are delivered again\n")
    for email in others:
        office.box.wait_for(email)

    assert [len(office.box.mails_to(email)) for email in emails] == [1, 1, 1]


def test_an_event_that_is_not_there_is_not_retried(office: Office) -> None:
    refused(office.retry(uuid4()), ErrorCode.EVENT_NOT_FOUND)
    assert refused_fields(office.retry("something")) == {"path.event_id"}

    assert office.place.run("outbox", "--retry", "something") == (1, "No such event (EVENT_NOT_FOUND)\n")


def test_an_event_that_was_not_given_up_is_not_retried(office: Office) -> None:
    waiting, delivered = office.plant(), office.plant(delivered_at=datetime.now(UTC))

    for event_id in (waiting, delivered):
        refused(office.retry(event_id), ErrorCode.EVENT_NOT_DEAD)
        assert office.retries(event_id) == []
    told = office.place.run("outbox", "--retry", str(waiting))
    assert told == (1, "The event was not given up (EVENT_NOT_DEAD)\n")
    assert {event["id"]: event["attempts"] for event in office.listed()} == {str(waiting): 3, str(delivered): 3}


def test_the_list_is_filtered_by_state_kind_and_aggregate(office: Office) -> None:
    now = datetime.now(UTC)
    waiting = office.plant(aggregate="order:1")
    delivered = office.plant(aggregate="order:1", kind="order.placed", delivered_at=now)
    dead = office.plant(aggregate="order:2", dead_at=now)
    every = {"waiting": [waiting], "delivered": [delivered], "dead": [dead]}

    def ids(**filters: str) -> list[str]:
        return [event["id"] for event in office.listed(**filters)]

    for state, events in every.items():
        assert ids(state=state) == [str(each) for each in events]
    assert ids() == [str(dead), str(delivered), str(waiting)]
    assert ids(kind="order.placed") == [str(delivered)]
    assert ids(aggregate="order:1") == [str(delivered), str(waiting)]
    assert ids(aggregate="order:1", state="dead") == []
    asked = office.service.get("outbox", token=office.token, state="lost")
    assert refused_fields(asked) == {"query.state"}


def test_the_list_has_pages(office: Office) -> None:
    planted = [str(office.plant()) for _ in range(5)]

    pages = [
        data_of(office.service.get("outbox", token=office.token, page=str(page), size="2", state="waiting"))
        for page in (1, 2, 3)
    ]

    assert [event["id"] for page in pages for event in page["items"]] == planted[::-1]
    assert [(page["total"], page["pages"]) for page in pages] == [(5, 3)] * 3


def test_the_status_says_what_waits_for_how_long_and_what_is_dead(office: Office) -> None:
    def status() -> Entry:
        told: Entry = data_of(office.service.get("outbox/status", token=office.token))
        return told

    assert status() == {"waiting": 0, "lag_seconds": 0, "dead": 0}
    office.plant(dead_at=datetime.now(UTC))
    office.plant(delivered_at=datetime.now(UTC), available_at=datetime.now(UTC) - LATER)
    office.plant()
    # What waits for its next attempt is not late.
    assert status() == {"waiting": 1, "lag_seconds": 0, "dead": 1}

    # Behind the one before it of its aggregate, which waits: nobody takes it up meanwhile.
    office.plant(aggregate="order:1")
    office.plant(aggregate="order:1", available_at=datetime.now(UTC) - timedelta(minutes=2))

    assert status() == {"waiting": 3, "lag_seconds": 0, "dead": 1}
    code, said = office.place.run("outbox")
    assert code == 0, said
    assert "3 wait, for 0 s at most; 1 were given up\n" in said


def test_what_could_have_gone_is_late(database_kind: Kind) -> None:
    with own_place(database_kind) as place, place.service(OUTBOX__DISPATCH="false") as service:
        service.register()
        execute(place.database_url, update(OutboxEvent).values(available_at=datetime.now(UTC) - timedelta(minutes=20)))

        told = data_of(service.get("outbox/status", token=service.log_in()["access_token"]))
        code, said = place.run("doctor")

    assert 1200 <= told["lag_seconds"] < 1800
    assert code == 1
    assert "no event waits ten minutes beyond its time" in said


def test_a_long_queue_of_one_mailbox_keeps_nobody_else_waiting(database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("it has no statement time-out that would show it")
    with (
        running_mail_server() as box,
        own_place(database_kind, MAIL__URL=box.url, DB__STATEMENT_TIMEOUT_SECONDS="1.5") as place,
    ):
        for delivered_at in ("now()", "NULL"):
            execute(place.database_url, text(_LONG_QUEUE.format(delivered_at=delivered_at)))
        execute(place.database_url, text("ANALYZE outbox_events"))
        with place.service() as service:
            box.wait_for(service.register())


def test_who_may_not_read_it_is_told_nothing(office: Office) -> None:
    somebody = office.service.log_in(office.service.register())["access_token"]

    for path in ("outbox", "outbox/status"):
        refused(office.service.get(path), ErrorCode.NOT_AUTHENTICATED)
        refused(office.service.get(path, token=somebody), ErrorCode.PERMISSION_DENIED)
    refused(office.service.post(f"outbox/{uuid4()}/retry", token=somebody), ErrorCode.PERMISSION_DENIED)

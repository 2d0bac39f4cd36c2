"""The outbox, by what it is for: a mail goes out if, and only if, what it speaks of was committed."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Thread
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import at_once, bearer, data_of, refused
from tests.support.mail import Mailbox, running_mail_server
from tests.support.ports import reserved_port
from tests.support.postgres import Kind
from tests.support.service import ADMIN, Place, Service, own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

QUICK = {"OUTBOX__FIRST_DELAY_SECONDS": "0.02", "OUTBOX__POLL_SECONDS": "0.05"}
WAITING = (col(OutboxEvent.delivered_at).is_(None), col(OutboxEvent.dead_at).is_(None))


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with running_mail_server() as box:
        yield box


@pytest.fixture
def place(database_kind: Kind, box: Mailbox) -> Iterator[Place]:
    with own_place(database_kind, MAIL__URL=box.url, **QUICK) as place:
        yield place


def count(place: Place, *which: object) -> int:
    return int(execute(place.database_url, select(func.count()).select_from(OutboxEvent).where(*which))[0][0])  # type: ignore[arg-type] # conditions


def kinds(place: Place) -> list[str]:
    """Of all events, in order."""
    query = select(col(OutboxEvent.kind)).order_by(col(OutboxEvent.position))
    return [kind for (kind,) in execute(place.database_url, query)]


def test_a_mail_that_the_server_does_not_take_is_sent_again(place: Place, box: Mailbox) -> None:
    box.refusals += ["451 later", "451 later", "452 full"]

    with place.service() as service:
        email = service.register()
        box.wait_for(email)

    assert len(box.mails_to(email)) == 1
    told = select(col(OutboxEvent.attempts), col(OutboxEvent.last_error))
    assert [tuple(row) for row in execute(place.database_url, told)] == [(4, "SMTPDataError")]


def test_a_refused_registration_sends_nothing(place: Place, box: Mailbox) -> None:
    with place.service() as service:
        email = service.register()
        again = {"email": email, "password": PASSWORD}
        refused(service.post("auth/register", again), ErrorCode.EMAIL_TAKEN)
        later = service.register()
        box.wait_for(later)

    assert len(box.mails_to(email)) == 1


async def test_what_was_acknowledged_is_sent_though_the_process_died(place: Place, box: Mailbox) -> None:
    # Nobody delivers before it dies.
    with place.service(OUTBOX__DISPATCH="false") as service:
        email = service.register()
        assert service.server.end(signal.SIGKILL) == -signal.SIGKILL
    assert box.arrived == []

    with place.service():
        box.wait_for(email)

    assert len(box.mails_to(email)) == 1


def place_order(service: Service) -> None:
    """As the administrator, who has had no mail."""
    token = service.log_in()["access_token"]
    lamp = {"sku": "LAMP", "name": "Storm lamp", "price_minor": 3490, "currency": "EUR", "stock": 3}
    product = data_of(service.post("products", lamp, token=token), 201)
    basket = {"items": [{"product_id": product["id"], "quantity": 2}]}
    headers = bearer(token) | {"Idempotency-Key": "one"}
    data_of(service.client.post("/api/v1/orders", json=basket, headers=headers), 201)


def test_an_order_is_told_of_though_the_process_died_right_after_its_commit(place: Place, box: Mailbox) -> None:
    with place.service(OUTBOX__DISPATCH="false") as service:
        place_order(service)
        assert service.server.end(signal.SIGKILL) == -signal.SIGKILL
    assert kinds(place) == ["order.placed"]

    with place.service():
        mail = box.wait_for(ADMIN, about="is placed")

    assert "2 x Storm lamp (LAMP): 69.80 EUR" in mail.text
    assert [mail.subject for mail in box.mails_to(ADMIN)] == [mail.subject]
    assert kinds(place) == ["order.placed", "mail"]
    assert count(place, *WAITING) == 0


def test_a_mail_that_was_cut_off_is_written_once_though_it_is_sent_again(place: Place, box: Mailbox) -> None:
    box.held.add(ADMIN)
    with place.service() as service:
        place_order(service)
        box.wait_until_begun(ADMIN)
        assert service.server.end(signal.SIGKILL) == -signal.SIGKILL
    execute(place.database_url, update(OutboxEvent).where(*WAITING).values(available_at=datetime.now(UTC)))

    box.held.clear()
    with place.service():
        box.wait_for(ADMIN)

    # Whoever got the first one too is told by the id that it is the same.
    assert len({mail.message["Message-ID"] for mail in box.mails_to(ADMIN)}) == 1
    assert kinds(place) == ["order.placed", "mail"]


async def test_what_died_while_it_was_sent_is_sent_again_when_its_lease_is_over(place: Place, box: Mailbox) -> None:
    with place.service(OUTBOX__DISPATCH="false") as service:
        email = service.register()
    taken_up = update(OutboxEvent).values(attempts=1, available_at=datetime.now(UTC) + timedelta(seconds=60))
    execute(place.database_url, taken_up)

    with place.service() as service:
        other = service.register()
        box.wait_for(other)
        assert box.mails_to(email) == []  # somebody may be at it
        execute(
            place.database_url,
            update(OutboxEvent).where(*WAITING).values(available_at=datetime.now(UTC)),
        )
        box.wait_for(email)


async def test_what_cannot_be_delivered_is_given_up_and_kept(place: Place, box: Mailbox) -> None:
    box.refusals += ["550 nobody here"] * 3

    with place.service(OUTBOX__MAX_ATTEMPTS="3") as service:
        email = service.register()

        async def is_dead() -> bool:
            return count(place, col(OutboxEvent.dead_at).is_not(None)) == 1

        await eventually(is_dead)
        # It does not keep others of the same address waiting.
        data_of(service.post("auth/password/forgot", {"email": email}), 202)
        box.wait_for(email, about="new password")
        output = service.server.output()

    assert "given up" in output
    assert email not in output


def test_each_mail_is_sent_once_whoever_sends(place: Place, box: Mailbox, database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("one process at a time")
    with place.service() as here, place.service() as there:
        registered = at_once([partial(service.register) for service in (here, there) for _ in range(12)])
        for email in registered:
            box.wait_for(email)

    assert [len(box.mails_to(email)) for email in registered] == [1] * 24
    assert count(place, *WAITING) == 0


def test_mails_to_one_address_come_in_order(place: Place, box: Mailbox) -> None:
    box.refusals += ["451 later"] * 2

    with place.service() as service:
        email = service.register()
        for number in range(1, 4):
            data_of(service.post("auth/password/forgot", {"email": email}), 202)
            box.wait_for(email, about="new password", number=number)

    assert [mail.subject.split()[0] for mail in box.mails_to(email)] == ["Confirm", "A", "A", "A"]


def test_a_mail_that_takes_its_time_keeps_no_other_waiting(place: Place, box: Mailbox) -> None:
    slow = f"{uuid4().hex}@example.com"
    box.held.add(slow)

    with place.service() as service:
        service.register(slow)
        for _ in range(3):
            box.wait_for(service.register())
        assert box.mails_to(slow) == []
        box.held.clear()
        box.wait_for(slow)


def test_a_service_that_stops_ends_the_mail_that_it_is_sending(place: Place, box: Mailbox) -> None:
    email = f"{uuid4().hex}@example.com"
    box.held.add(email)

    with place.service() as service:
        service.register(email)
        box.wait_until_begun(email)
        stopping = Thread(target=service.server.end)
        stopping.start()
        box.held.clear()
        stopping.join()

    assert count(place, *WAITING) == 0
    assert len(box.mails_to(email)) == 1


def test_a_worker_delivers_where_the_service_does_not(place: Place, box: Mailbox) -> None:
    with place.service(OUTBOX__DISPATCH="false") as service:
        email = service.register()
        assert box.arrived == []
        with place.worker():
            box.wait_for(email)


def test_what_waits_is_sealed(place: Place, box: Mailbox) -> None:
    with place.service(OUTBOX__DISPATCH="false") as service:
        email = service.register()

    rows = execute(place.database_url, select(OutboxEvent.__table__))  # type: ignore[attr-defined] # each table has one
    assert len(rows) == 1
    assert email not in str(rows)
    assert b"account" not in rows[0]._mapping["payload"]
    with place.service():
        box.wait_for(email)


def test_the_mail_server_may_be_away(database_kind: Kind) -> None:
    with (
        reserved_port() as port,
        own_place(database_kind, MAIL__URL=f"smtp://127.0.0.1:{port}", **QUICK) as place,
        place.service() as service,
    ):
        email = service.register()
        service.log_in(email)
        with running_mail_server(port) as box:
            box.wait_for(email)

"""What a receiver hears: each message until it is heard, one id, one body, in order, and from one of us at a time."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from threading import Event
from uuid import uuid4

import pytest
from sqlalchemy import select, update
from sqlmodel import col
from standardwebhooks import Webhook, WebhookVerificationError

from src.shared.errors import ErrorCode
from src.webhooks.models import WebhookDelivery, WebhookEndpoint
from tests.support.answers import data_of, refused
from tests.support.postgres import Kind
from tests.support.receiver import ALLOWED, Receiver, Request, held, running_receiver, says
from tests.support.scale import rounds
from tests.support.server import Server, running_server
from tests.support.service import Place, own_place
from tests.support.tables import execute
from tests.support.waiting import wait_for
from tests.webhooks.conftest import QUICK, Office

STALLING = "tests.webhooks.stalling_app:app"


def test_a_receiver_that_fails_three_times_sees_one_id_one_body_and_a_signature_each_time(
    office: Office, receiver: Receiver
) -> None:
    receiver.script = [says(500), says(503), says(404)]
    webhook = office.register(receiver)

    order_id = office.place_order()

    requests = receiver.wait_for(4)
    office.wait_for_state(webhook, "delivered")
    assert len(receiver.requests) == 4
    assert len(set(receiver.ids)) == 1
    assert len({request.body for request in requests}) == 1
    reference = Webhook(webhook["secret"])
    for request in requests:
        told = reference.verify(request.body, request.headers)
        assert (told["type"], told["data"]["id"], told["data"]["status"]) == ("order.placed", order_id, "placed")
    with pytest.raises(WebhookVerificationError):
        reference.verify(requests[0].body.replace(b"placed", b"paid"), requests[0].headers)
    (delivery,) = office.deliveries(webhook)
    detail = office.delivery(webhook, delivery)
    assert detail["message_id"] == receiver.ids[0]
    assert detail["body"].encode() == requests[0].body
    assert [attempt["status"] for attempt in detail["attempts"]] == [204, 404, 503, 500]
    assert json.loads(detail["body"]).keys() == {"type", "timestamp", "data"}


def signed_by(secrets: Sequence[str], request: Request) -> list[bool]:
    """Whether each of them verifies it."""
    verified = []
    for secret in secrets:
        try:
            Webhook(secret).verify(request.body, request.headers)
        except WebhookVerificationError:
            verified.append(False)
        else:
            verified.append(True)
    return verified


def test_for_a_day_the_secret_before_signs_too_and_then_no_more(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)

    renewed = [data_of(office.ask("POST", f"/{webhook['id']}/secret"))["secret"] for _ in range(2)]
    secrets = [webhook["secret"], *renewed]
    office.place_order()
    (both,) = receiver.wait_for(1)
    office.change(update(WebhookEndpoint).values(previous_secret_until=datetime.now(UTC)))
    office.place_order()

    last = receiver.wait_for(2)[1]
    assert signed_by(secrets, both) == [False, True, True]
    assert len(both.headers["webhook-signature"].split()) == 2
    assert signed_by(secrets, last) == [False, False, True]


def test_what_happens_to_one_order_is_told_in_order_though_the_first_fails(office: Office, receiver: Receiver) -> None:
    receiver.script = [says(500)] * 3
    webhook = office.register(receiver)
    order_id = office.place_order()
    office.move(order_id, "pay", "fulfil", "return")

    office.wait_for_state(webhook, *["delivered"] * 4)

    told = [json.loads(request.body)["type"] for request in receiver.requests]
    assert told == ["order.placed"] * 4 + ["order.paid", "order.fulfilled", "order.returned"]


def test_what_fails_too_often_is_given_up_and_lets_the_next_one_go(database_kind: Kind, receiver: Receiver) -> None:
    env = {**QUICK, **ALLOWED, "WEBHOOKS__MAX_ATTEMPTS": "3"}
    with own_place(database_kind, **env) as place, place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        receiver.script = [says(500)] * 3
        webhook = office.register(receiver)
        office.move(office.place_order(), "pay")
        paid, placed = office.wait_for_state(webhook, "delivered", "failed")
        assert (paid["event_type"], placed["event_type"]) == ("order.paid", "order.placed")
        assert (placed["attempt_count"], placed["next_attempt_at"]) == (3, None)

        again = data_of(office.ask("POST", f"/{webhook['id']}/deliveries/{placed['id']}/redeliver"), 202)
        office.wait_for_state(webhook, "delivered", "delivered")

        assert again["state"] == "pending"
        assert [len(set(ids)) for ids in (receiver.ids, receiver.ids[-1:] + receiver.ids[:3])] == [2, 1]
        assert Webhook(webhook["secret"]).verify(receiver.requests[-1].body, receiver.requests[-1].headers)
        assert receiver.requests[-1].body == receiver.requests[0].body


def test_who_can_tell_is_asked_once_more_and_what_waits_is_not_hurried(office: Office, receiver: Receiver) -> None:
    receiver.otherwise = held
    webhook = office.register(receiver)
    office.place_order()
    receiver.wait_for(1)
    (delivery,) = office.deliveries(webhook)

    refused(
        office.ask("POST", f"/{webhook['id']}/deliveries/{delivery['id']}/redeliver"),
        ErrorCode.WEBHOOK_DELIVERY_WAITING,
    )
    receiver.released.set()
    office.wait_for_state(webhook, "delivered")
    key = {"Idempotency-Key": uuid4().hex}
    first, second = (
        data_of(office.ask("POST", f"/{webhook['id']}/deliveries/{delivery['id']}/redeliver", **key), 202)
        for _ in range(2)
    )

    office.wait_for_state(webhook, "delivered")
    receiver.wait_for(2)
    assert first == second
    assert len(receiver.requests) == 2


def test_at_most_two_are_under_way_to_one_receiver(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)
    receiver.otherwise = held

    for _ in range(8):
        office.place_order()
    receiver.wait_for(2)
    office.wait_until_told()
    receiver.released.set()

    office.wait_for_state(webhook, *["delivered"] * 8)
    assert max(request.peers for request in receiver.requests) == 1


@contextmanager
def working_alone(place: Place) -> Iterator[tuple[Office, Callable[[], AbstractContextManager[Server]]]]:
    """A door that delivers nothing, and what starts a process that does."""
    with place.service(OUTBOX__DISPATCH="false") as door:
        yield Office(place, door, door.log_in()["access_token"]), lambda: running_server(place.env, cwd=place.folder)


@pytest.fixture
def place(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, **QUICK, **ALLOWED) as own:
        yield own


def test_two_processes_never_deliver_one_message_at_once(
    place: Place, receiver: Receiver, database_kind: Kind, tried: Callable[[int], None]
) -> None:
    if database_kind == "sqlite":
        pytest.skip("one process at a time")
    count = rounds(30, full=400)
    tried(count)
    with working_alone(place) as (office, worker), running_receiver() as other:
        webhooks = [office.register(receiver), office.register(other)]
        order_ids = [office.place_order() for _ in range(count)]
        for order_id in order_ids:
            office.move(order_id, "pay")
        with worker(), worker():
            office.wait_until_settled()

        for heard, webhook in zip((receiver, other), webhooks, strict=True):
            assert len(set(heard.ids)) == len(heard.requests) == 2 * count
            assert max(request.peers for request in heard.requests) <= 1
            told = [json.loads(request.body) for request in heard.requests]
            for order_id in order_ids:
                assert [each["type"] for each in told if each["data"]["id"] == order_id] == [
                    "order.placed",
                    "order.paid",
                ]
            assert office.read(webhook)["consecutive_failures"] == 0


def test_what_was_under_way_when_its_process_was_killed_is_delivered_by_another(
    place: Place, receiver: Receiver
) -> None:
    receiver.script = [held]
    with working_alone(place) as (office, worker):
        webhook = office.register(receiver)
        with worker() as first:
            office.place_order()
            receiver.wait_for(1)
            assert first.end(signal.SIGKILL) == -signal.SIGKILL
        with worker():
            # Somebody may be at it: a later one is delivered, and this one is not before its lease is over.
            office.place_order()
            receiver.wait_for(2)
            assert len(set(receiver.ids)) == 2
            office.end_leases()
            office.wait_for_state(webhook, "delivered", "delivered")

    assert receiver.ids[2] == receiver.ids[0]
    assert receiver.requests[2].body == receiver.requests[0].body


def test_who_stood_still_beyond_its_lease_sends_nothing_and_says_nothing(
    place: Place, receiver: Receiver, database_kind: Kind
) -> None:
    """Stopped while it had taken it up and had not sent it yet: it learns that it is too late."""
    if database_kind == "sqlite":
        pytest.skip("whoever stands still with SQLite's one lock keeps everybody waiting")
    with (
        place.service(OUTBOX__DISPATCH="false") as door,
        running_server({**place.env, "WEBHOOKS__TIMEOUT_SECONDS": "1.5"}, STALLING, cwd=place.folder) as first,
    ):
        office = Office(place, door, door.log_in()["access_token"])
        webhook = office.register(receiver)
        office.place_order()
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), first.output()
        with running_server({**place.env, "WEBHOOKS__TIMEOUT_SECONDS": "1.5"}, cwd=place.folder):
            # As soon as its six seconds are over.
            office.wait_for_state(webhook, "delivered")
            assert len(receiver.requests) == 1
            first.process.send_signal(signal.SIGCONT)
            wait_for(lambda: "left to whoever has it now" in first.output())
            assert first.end() in (0, -signal.SIGTERM)

    assert len(receiver.requests) == 1


def test_who_stood_still_while_it_was_answered_has_no_say_any_more(
    place: Place, receiver: Receiver, database_kind: Kind
) -> None:
    if database_kind == "sqlite":
        pytest.skip("as above")
    second_may_answer = Event()

    def held_too(connection: socket.socket, its: Receiver) -> None:
        second_may_answer.wait(30)
        says(204)(connection, its)

    receiver.script = [held, held_too]
    with working_alone(place) as (office, worker):
        webhook = office.register(receiver)
        with worker() as first:
            office.place_order()
            receiver.wait_for(1)
            first.process.send_signal(signal.SIGSTOP)
            office.end_leases()
            with worker():
                receiver.wait_for(2)
                receiver.released.set()
                first.process.send_signal(signal.SIGCONT)
                assert first.end() == 0
                # The first one has heard 204 by now; it is the second one's to say.
                assert [each["state"] for each in office.deliveries(webhook)] == ["pending"]
                second_may_answer.set()
                office.wait_for_state(webhook, "delivered")

    told = select(col(WebhookDelivery.taken_up), col(WebhookDelivery.attempt_count))
    # Taken up twice; the first time was taken for dead.
    assert [tuple(row) for row in execute(place.database_url, told)] == [(2, 2)]
    assert len(receiver.requests) == 2
    assert len(set(receiver.ids)) == 1

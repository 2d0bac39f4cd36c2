"""Webhooks as people manage them: whose they are, how many, what they are told, and what nobody else learns."""

import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlmodel import col

from src.config import get_settings, load_settings, use_settings
from src.shared.database import close_engine, transaction
from src.shared.errors import ErrorCode
from src.webhooks import services as webhooks
from src.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.conftest import PASSWORD
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.postgres import Kind
from tests.support.receiver import ALLOWED, Receiver, held, running_receiver, says
from tests.support.service import own_place
from tests.support.tables import execute
from tests.webhooks.conftest import QUICK, Office


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """(type, order) of each message."""
    letters = [json.loads(request.body) for request in receiver.requests]
    return [(letter["type"], letter["data"].get("id", "")) for letter in letters]


def test_a_secret_is_told_once(office: Office, receiver: Receiver) -> None:
    made = office.register(receiver, description="Stock", event_types=["order.paid", "order.placed", "order.paid"])
    assert made["secret"].startswith("whsec_")

    read = office.read(made)

    assert read == {name: value for name, value in made.items() if name != "secret"}
    assert (read["event_types"], read["description"]) == (["order.paid", "order.placed"], "Stock")
    assert data_of(office.ask("GET", ""))["items"] == [read]


def test_what_is_registered_is_what_there_is(office: Office, receiver: Receiver) -> None:
    known = {each["name"] for each in data_of(office.service.get("webhook-event-types", token=office.token))}
    assert {"order.placed", "webhook.test"} <= known

    for wrong in (["order.lost"], [], ["order.placed"] * 101, "order.placed", [1]):
        letter = {"url": receiver.url, "event_types": wrong}
        assert any("event_types" in field for field in refused_fields(office.ask("POST", "", letter)))


def test_only_the_types_that_were_asked_for_are_told(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver, event_types=["order.paid", "order.cancelled"])
    first, second = office.place_order(), office.place_order()
    office.move(first, "pay", "fulfil")
    office.move(second, "cancel")
    office.wait_until_settled()
    assert sorted(told(receiver)) == sorted([("order.paid", first), ("order.cancelled", second)])

    data_of(office.ask("PATCH", f"/{webhook['id']}", {"event_types": None}))
    third = office.place_order()

    receiver.wait_for(3)
    assert told(receiver)[2] == ("order.placed", third)


def test_who_may_not_read_orders_is_told_of_their_own(office: Office, receiver: Receiver) -> None:
    buyer_id, buyer = office.somebody("webhook:*")
    office.register(receiver, token=buyer)

    mine = office.place_order(token=buyer)
    office.place_order()
    office.wait_until_settled()
    assert told(receiver) == [("order.placed", mine)]

    # What they may see is looked at when it happens.
    _, reader = office.somebody("webhook:*", "order:read")
    office.give(buyer_id, "user", *data_of(office.service.get("profile", token=reader))["roles"])
    theirs = office.place_order()
    receiver.wait_for(2)
    office.give(
        buyer_id, "user", *data_of(office.service.get("profile", token=office.somebody("webhook:*")[1]))["roles"]
    )
    office.place_order()
    office.wait_until_settled()

    assert told(receiver)[1:] == [("order.placed", theirs)]


@pytest.mark.parametrize("how", ["may have none any more", "is disabled", "is deleted"])
def test_who_is_not_to_hear_hears_nothing(office: Office, receiver: Receiver, how: str) -> None:
    owner_id, owner = office.somebody("webhook:*", "order:read")
    office.register(receiver, token=owner)
    office.place_order()
    receiver.wait_for(1)

    path = f"/api/v1/users/{owner_id}"
    if how == "is disabled":
        data_of(office.service.client.patch(path, json={"is_active": False}, headers=bearer(office.token)))
    elif how == "is deleted":
        data_of(office.service.client.delete(path, headers=bearer(office.token)))
    else:
        office.give(owner_id, "user")
    office.place_order()
    office.wait_until_settled()

    assert len(receiver.requests) == 1
    gone = office.rows(
        select(func.count()).select_from(WebhookEndpoint).where(col(WebhookEndpoint.owner_id) == UUID(owner_id))
    )
    assert how != "is deleted" or gone[0][0] == 0


def test_what_waits_for_who_was_disabled_waits(office: Office, receiver: Receiver) -> None:
    owner_id, owner = office.somebody("webhook:*", "order:read")
    webhook = office.register(receiver, token=owner)
    office.change(update(WebhookEndpoint).values(paused_until=datetime.now(UTC) + timedelta(hours=1)))
    office.place_order()
    office.wait_until_told()
    user = f"/api/v1/users/{owner_id}"

    data_of(office.service.client.patch(user, json={"is_active": False}, headers=bearer(office.token)))
    office.change(update(WebhookEndpoint).values(paused_until=None))
    other = office.register(receiver)
    office.place_order()
    receiver.wait_for(1)
    assert office.wait_for_state(other, "delivered")
    assert len(receiver.requests) == 1
    data_of(office.service.client.patch(user, json={"is_active": True}, headers=bearer(office.token)))

    receiver.wait_for(2)
    assert webhook


def test_a_key_reads_no_more_of_what_was_told_than_it_may(office: Office, receiver: Receiver) -> None:
    """What was told is what its owner may see, and a key may see less."""
    webhook = office.register(receiver)
    office.place_order()
    (delivery,) = office.wait_for_state(webhook, "delivered")
    letter = {"name": "log", "permissions": ["webhook:read"], "current_password": PASSWORD}
    key = data_of(office.service.post("profile/security/api-keys", letter, token=office.token), 201)["key"]

    assert office.deliveries(webhook, token=key) == [delivery]
    refused(office.ask("GET", f"/{webhook['id']}/deliveries/{delivery['id']}", token=key), ErrorCode.SESSION_REQUIRED)


def test_what_a_second_factor_let_it_hear_is_not_read_and_not_sent_on_without_one(
    office: Office, receiver: Receiver, make_receiver: Callable[..., Receiver]
) -> None:
    webhook = office.register(receiver)
    office.place_order()
    (delivery,) = office.wait_for_state(webhook, "delivered")
    assert office.delivery(webhook, delivery)["body"] is not None
    office.change(update(WebhookEndpoint).values(second_factor=True))

    assert office.delivery(webhook, delivery)["body"] is None

    data_of(office.ask("PATCH", f"/{webhook['id']}", {"url": make_receiver().url}))
    assert office.deliveries(webhook) == []


def test_a_role_that_takes_a_second_factor_does_not_count_where_none_was_proven(
    office: Office, receiver: Receiver
) -> None:
    _, owner = office.somebody("webhook:*", "order:read")
    office.register(receiver, token=owner)
    execute(office.place.database_url, text("UPDATE roles SET requires_second_factor = true WHERE is_system = false"))
    office.place_order()
    office.wait_until_settled()
    assert receiver.requests == []

    office.change(update(WebhookEndpoint).values(second_factor=True))
    office.place_order()

    receiver.wait_for(1)
    execute(office.place.database_url, text("UPDATE roles SET requires_second_factor = false"))


def test_an_account_has_so_many_and_no_more(database_kind: Kind, receiver: Receiver) -> None:
    env = {**QUICK, **ALLOWED, "WEBHOOKS__PER_ACCOUNT": "3"}
    with own_place(database_kind, **env) as place, place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        answers = at_once([partial(office.ask, "POST", "", {"url": receiver.url}) for _ in range(8)])

        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
        too_many = next(answer for answer in answers if answer.status_code == 409)
        assert refused(too_many, ErrorCode.TOO_MANY_WEBHOOKS) == {"limit": 3}
        first = data_of(office.ask("GET", ""))["items"][0]
        data_of(office.ask("DELETE", f"/{first['id']}"))
        office.register(receiver)


def test_what_is_somebody_elses_is_not_there(office: Office, receiver: Receiver) -> None:
    mine, theirs = office.register(receiver), office.somebody("webhook:*")[1]
    own = office.register(receiver, token=theirs)
    data_of(office.ask("POST", f"/{mine['id']}/test"), 202)
    (delivery,) = office.wait_for_state(mine, "delivered")

    for method, path in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries"),
        ("GET", f"/deliveries/{delivery['id']}"), ("POST", f"/deliveries/{delivery['id']}/redeliver"),
    ):  # fmt: skip
        letter = {"description": "theirs"} if method == "PATCH" else None
        answer = office.ask(method, f"/{mine['id']}{path}", letter, token=theirs)
        refused(answer, ErrorCode.WEBHOOK_NOT_FOUND)
    for method, path in (("GET", ""), ("POST", "/redeliver")):
        answer = office.ask(method, f"/{own['id']}/deliveries/{delivery['id']}{path}", token=theirs)
        refused(answer, ErrorCode.WEBHOOK_DELIVERY_NOT_FOUND)
    assert data_of(office.ask("GET", "", token=theirs))["total"] == 1
    assert len(receiver.requests) == 1


def test_a_machine_reads_and_redelivers_and_does_not_say_where_messages_go(office: Office, receiver: Receiver) -> None:
    """A key may have less than its owner, who is told all that they may see."""
    letter = {"name": "export", "permissions": ["webhook:*"], "current_password": "plum-lantern-quarry-81"}
    key = data_of(office.service.post("profile/security/api-keys", letter, token=office.token), 201)["key"]
    webhook = office.register(receiver)

    for method, path, body in (
        ("POST", "", {"url": receiver.url}),
        ("PATCH", f"/{webhook['id']}", {"url": receiver.url}),
        ("POST", f"/{webhook['id']}/secret", None),
    ):
        refused(office.ask(method, path, body, token=key), ErrorCode.SESSION_REQUIRED)

    data_of(office.ask("POST", f"/{webhook['id']}/test", token=key), 202)
    (delivery,) = office.wait_for_state(webhook, "delivered")
    assert office.deliveries(webhook, token=key) == [delivery]
    data_of(office.ask("POST", f"/{webhook['id']}/deliveries/{delivery['id']}/redeliver", token=key), 202)


def test_what_waits_goes_where_the_webhook_leads_now(office: Office, receiver: Receiver) -> None:
    receiver.otherwise = says(500)
    webhook = office.register(receiver)
    office.move(office.place_order(), "pay")
    office.wait_for_failure(webhook)
    office.wait_until_told()

    with running_receiver() as other:
        moved = data_of(office.ask("PATCH", f"/{webhook['id']}", {"url": other.url}))
        assert (moved["consecutive_failures"], moved["paused_until"], moved["failing_since"]) == (0, None, None)
        other.wait_for(2)
        office.wait_for_state(webhook, "delivered", "delivered")
        assert [kind for kind, _ in told(other)] == ["order.placed", "order.paid"]


def test_a_webhook_that_is_deleted_while_something_is_on_its_way_is_gone(office: Office, receiver: Receiver) -> None:
    receiver.otherwise = held
    webhook = office.register(receiver)
    office.move(office.place_order(), "pay")
    receiver.wait_for(1)
    office.wait_until_told()

    data_of(office.ask("DELETE", f"/{webhook['id']}"))
    receiver.released.set()
    receiver.wait_until_idle()

    refused(office.ask("GET", f"/{webhook['id']}"), ErrorCode.WEBHOOK_NOT_FOUND)
    for table in (WebhookDelivery, WebhookAttempt, WebhookEndpoint):
        assert office.rows(select(func.count()).select_from(table))[0][0] == 0
    assert len(receiver.requests) == 1


def test_changes_at_once_are_all_there(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)
    changes: list[dict[str, object]] = [
        {"description": "here"},
        {"event_types": ["order.paid"]},
        {"is_enabled": False},
        {"url": receiver.url + "2"},
    ]

    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(lambda change: office.ask("PATCH", f"/{webhook['id']}", change), changes):
            data_of(answer)

    read = office.read(webhook)
    assert {name: read[name] for change in changes for name in change} == {
        name: value for change in changes for name, value in change.items()
    }
    assert read["disabled_reason"] == "owner"


def test_a_test_is_for_that_webhook_alone_and_one_at_a_time(office: Office, receiver: Receiver) -> None:
    receiver.otherwise = held
    webhook, other = office.register(receiver), office.register(receiver)
    path = f"/{webhook['id']}/test"

    answers = at_once([partial(office.ask, "POST", path) for _ in range(5)])

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 4
    refused(office.ask("POST", path), ErrorCode.WEBHOOK_DELIVERY_WAITING)
    receiver.released.set()
    office.wait_for_state(webhook, "delivered")
    assert office.deliveries(other) == []
    assert json.loads(receiver.requests[0].body)["data"] == {"webhook_id": webhook["id"]}
    data_of(office.ask("POST", path), 202)


def test_deliveries_are_listed_by_state_and_type(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)
    office.move(office.place_order(), "pay")
    office.wait_until_settled()

    assert [each["event_type"] for each in office.deliveries(webhook)] == ["order.paid", "order.placed"]
    assert [each["event_type"] for each in office.deliveries(webhook, event_type="order.paid")] == ["order.paid"]
    assert office.deliveries(webhook, state="failed") == []
    assert office.ask("GET", f"/{webhook['id']}/deliveries?state=lost").status_code == 422
    unknown = office.ask("GET", f"/{webhook['id']}/deliveries/{uuid4()}")
    refused(unknown, ErrorCode.WEBHOOK_DELIVERY_NOT_FOUND)


def test_neither_a_secret_nor_a_url_is_found_where_it_must_not_be(database_kind: Kind, receiver: Receiver) -> None:
    with own_place(database_kind, **QUICK, **ALLOWED, LOG__LEVEL="TRACE") as place, place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        canary = f"canary-{uuid4().hex}"
        receiver.script = [says(500), says(410)]
        webhook = office.register(f"{receiver.url}?key={canary}")
        secrets = [webhook["secret"], data_of(office.ask("POST", f"/{webhook['id']}/secret"))["secret"]]
        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)
        office.wait_for_state(webhook, "discarded")
        office.ask("POST", "", {"url": f"http://127.0.0.1/{canary}", "surplus": secrets[0]})
        answers = office.ask("GET", "").text + json.dumps(office.deliveries(webhook))
        audit = service.get("audit", token=office.token, action="webhook.").text
        output = service.server.output()
        dump = "".join(
            str(execute(place.database_url, text(f"SELECT * FROM {table}")))
            for table in (
                "webhook_endpoints",
                "webhook_deliveries",
                "webhook_attempts",
                "audit_entries",
                "outbox_events",
            )
        )

    assert "webhook.disabled" in audit
    assert "A webhook's receiver failed" in output
    assert canary not in output + audit
    for secret in secrets:
        for part in (secret, secret.removeprefix("whsec_"), secret.removeprefix("whsec_")[:20]):
            assert part not in output + audit + answers + dump


@pytest.fixture
async def here(office: Office) -> AsyncIterator[None]:
    """What a job does can be done in this process."""
    before = get_settings()
    use_settings(load_settings(app={"env": "test"}, db={"url": office.place.database_url}))
    yield
    await close_engine()
    use_settings(before)


@pytest.mark.usefixtures("here")
async def test_old_deliveries_are_swept_and_old_secrets_forgotten(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)
    data_of(office.ask("POST", f"/{webhook['id']}/secret"))
    for _ in range(2):
        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)
        office.wait_until_settled()
    kept, old = office.deliveries(webhook)
    long_ago = datetime.now(UTC) - timedelta(days=31)
    this = update(WebhookDelivery).where(col(WebhookDelivery.id) == UUID(old["id"]))
    office.change(this.values(created_at=long_ago))
    office.change(update(WebhookEndpoint).values(previous_secret_until=long_ago))

    async with transaction() as session:
        assert await webhooks.sweep(session) == 1

    assert office.deliveries(webhook) == [kept]
    assert office.rows(select(col(WebhookEndpoint.previous_secret))) == [(None,)]

"""Receivers that are slow, huge, gone, elsewhere or down: what they cannot do to us, to others, and to themselves."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from src.config import get_settings, load_settings, use_settings
from src.shared import outgoing
from src.shared.errors import ErrorCode
from src.webhooks import transport
from src.webhooks.models import WebhookEndpoint
from tests.support.answers import data_of, refused
from tests.support.certificates import Authority
from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.receiver import ALLOWED, HOST, OK, Receiver, endless, hangs, held, running_receiver, says
from tests.support.resources import MIB, holdings
from tests.support.scale import rounds
from tests.support.service import ADMIN, Place, own_place
from tests.support.waiting import wait_for
from tests.webhooks.conftest import QUICK, Office

PART = b"x" * 65_536
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What a bad receiver does, and what comes of it.
BAD = {
    "never answers": (hangs, "timeout"),
    "drips its headers": (endless(HEAD, b"X-A: b\r\n", pause_seconds=0.02), "timeout"),
    "has endless headers": (endless(HEAD, b"X-A: " + PART + b"\r\n"), "protocol"),
    "has one endless header": (endless(HEAD + b"X-A: ", PART), "protocol"),
    "never gets beyond 1xx": (endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause_seconds=0.01), "timeout"),
    "speaks something else": (endless(b"220 mail.example.com ESMTP\r\n", b"500 what?\r\n"), "protocol"),
    "hangs up": (lambda connection, _: connection.shutdown(socket.SHUT_RDWR), "protocol"),
}
# What ends with its status, however long it goes on.
LONG = {
    "has an endless body": endless(CHUNKED, b"10000\r\n" + PART + b"\r\n"),
    "drips its body": endless(CHUNKED, b"1\r\nx\r\n", pause_seconds=0.02),
    "says that it is huge": endless(HEAD + b"Content-Length: 99999999999\r\n\r\n", PART),
    "unpacks to what is huge": endless(HEAD + b"Content-Encoding: gzip\r\n\r\n", PART),
}


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with running_mail_server() as box:
        yield box


@pytest.fixture
def place(database_kind: Kind, box: Mailbox) -> Iterator[Place]:
    with own_place(database_kind, MAIL__URL=box.url, **QUICK, **ALLOWED) as own:
        yield own


def test_while_receivers_hang_others_and_mails_are_served(place: Place, box: Mailbox, receiver: Receiver) -> None:
    with place.service(WEBHOOKS__TIMEOUT_SECONDS="60") as service, running_receiver() as slow:
        office = Office(place, service, service.log_in()["access_token"])
        slow.otherwise = hangs
        slow_ones = [office.register(slow) for _ in range(8)]
        # More than are looked for at a time.
        for _ in range(12):
            office.place_order()
        slow.wait_for(16)
        office.wait_until_told()

        swift = office.register(receiver)
        order_id = office.place_order()

        receiver.wait_for(1)
        number = data_of(service.get(f"orders/{order_id}", token=office.token))["number"]
        box.wait_for(ADMIN, about=number)
        office.wait_for_state(swift, "delivered")
        assert [office.read(each)["last_delivered_at"] for each in slow_ones] == [None] * 8
        assert len(slow.requests) == 16
        slow.released.set()


@pytest.mark.parametrize("how", BAD)
def test_a_bad_receiver_costs_one_attempt(how: str, database_kind: Kind) -> None:
    answer, error = BAD[how]
    if database_kind == "postgres":
        pytest.skip("how a receiver answers is no database's business")
    env = {**QUICK, **ALLOWED, "WEBHOOKS__TIMEOUT_SECONDS": "4", "WEBHOOKS__MAX_ATTEMPTS": "1"}
    with own_place(database_kind, **env) as place, place.service() as service, running_receiver() as bad:
        office = Office(place, service, service.log_in()["access_token"])
        bad.otherwise = answer
        webhook = office.register(bad)
        before = holdings(service.server.pid).pss_bytes

        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)

        (delivery,) = office.wait_for_state(webhook, "failed")
        (attempt,) = office.delivery(webhook, delivery)["attempts"]
        assert (attempt["status"], attempt["error"]) == (None, error)
        assert holdings(service.server.pid).pss_bytes - before < 32 * MIB


@pytest.mark.parametrize("how", LONG)
def test_an_answer_ends_with_its_headers(how: str, database_kind: Kind) -> None:
    if database_kind == "postgres":
        pytest.skip("as above")
    with own_place(database_kind, **QUICK, **ALLOWED) as place, place.service() as service, running_receiver() as long:
        office = Office(place, service, service.log_in()["access_token"])
        long.otherwise = LONG[how]
        webhook = office.register(long)
        before = holdings(service.server.pid).pss_bytes

        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)

        (delivery,) = office.wait_for_state(webhook, "delivered")
        (attempt,) = office.delivery(webhook, delivery)["attempts"]
        assert attempt["status"] == 200
        long.wait_until_idle()
        # What the sockets hold, at most.
        assert long.told_bytes < 16 * MIB
        assert holdings(service.server.pid).pss_bytes - before < 32 * MIB


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_a_redirect_is_a_failure_and_is_not_followed(office: Office, receiver: Receiver, status: int) -> None:
    with running_receiver("127.0.0.1") as inside, running_receiver() as elsewhere:
        targets = [f"http://127.0.0.1:{inside.port}/", elsewhere.url, f"//127.0.0.1:{inside.port}/", "/other"]
        receiver.script = [says(status, f"Location: {target}") for target in targets]
        webhook = office.register(receiver)

        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)

        (delivery,) = office.wait_for_state(webhook, "delivered")
        statuses = [attempt["status"] for attempt in office.delivery(webhook, delivery)["attempts"]]
        assert statuses == [204] + [status] * 4
        assert {request.line for request in receiver.requests} == {"POST /hook HTTP/1.1"}
        assert (inside.connections, elsewhere.connections) == (0, 0)


def test_a_receiver_that_comes_back_is_not_overrun(
    database_kind: Kind, receiver: Receiver, tried: Callable[[int], None]
) -> None:
    """One asks for all, less and less often, while it is down; all the others come once, and two at a time."""
    count = rounds(100, full=500)
    tried(count)
    receiver.otherwise = says(503)
    patient = {"WEBHOOKS__FIRST_DELAY_SECONDS": "0.1", "WEBHOOKS__MAX_DELAY_SECONDS": "2"}
    with own_place(database_kind, **QUICK | ALLOWED | patient) as place, place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        webhook = office.register(receiver)
        for _ in range(count):
            office.place_order()
        office.wait_until_told()
        assert office.read(webhook)["consecutive_failures"] > 0
        receiver.otherwise = OK
        office.wait_until_settled()
        states = {each["state"] for each in office.deliveries(webhook)}

    assert states == {"delivered"}
    assert len(set(receiver.ids)) == count
    assert max(request.peers for request in receiver.requests) <= 1
    assert len(receiver.requests) <= 1.2 * count


def test_while_a_receiver_fails_one_delivery_goes_to_see(office: Office, receiver: Receiver) -> None:
    webhook = office.register(receiver)
    office.change(update(WebhookEndpoint).values(consecutive_failures=3))
    receiver.otherwise = held
    for _ in range(6):
        office.place_order()
    office.wait_until_told()
    receiver.wait_for(1)
    # The later endpoint is looked at after this one.
    with running_receiver() as other:
        office.register(other)
        office.place_order()
        other.wait_for(1)
    assert len(receiver.requests) == 1

    receiver.released.set()
    office.wait_for_state(webhook, *["delivered"] * 7)
    assert office.read(webhook)["consecutive_failures"] == 0


@pytest.mark.parametrize(("asked", "expected"), [("60", 60), ("99999999999", 120), (None, 60)])
@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_for_patience_gets_it_within_reason(
    database_kind: Kind, receiver: Receiver, status: int, asked: str | None, expected: int
) -> None:
    if database_kind == "postgres":
        pytest.skip("as above")
    env = {"WEBHOOKS__FIRST_DELAY_SECONDS": "1", "WEBHOOKS__MAX_DELAY_SECONDS": "120"}
    with own_place(database_kind, **QUICK | ALLOWED | env) as place, place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        receiver.script = [says(status, f"Retry-After: {asked or date}")]
        webhook, began = office.register(receiver), datetime.now(UTC)
        data_of(office.ask("POST", f"/{webhook['id']}/test"), 202)
        office.wait_for_failure(webhook)

        paused = (datetime.fromisoformat(office.read(webhook)["paused_until"]) - began).total_seconds()

    assert expected - 5 < paused < expected + 30
    assert len(receiver.requests) == 1


def test_who_is_gone_is_told_nothing_more_and_the_owner_is_told(place: Place, box: Mailbox, receiver: Receiver) -> None:
    receiver.script = [held]
    with place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        webhook = office.register(receiver)
        office.move(office.place_order(), "pay", "fulfil")
        office.wait_until_told()
        receiver.otherwise = says(410)
        receiver.released.set()

        mail = box.wait_for(ADMIN, about="webhook")
        read = office.read(webhook)
        states = [each["state"] for each in office.deliveries(webhook)]

        assert (read["is_enabled"], read["disabled_reason"]) == (False, "gone")
        assert states == ["discarded", "discarded", "delivered"]
        assert HOST in mail.text
        assert receiver.url not in mail.text + mail.html
        assert len(receiver.requests) == 2
        office.place_order()
        refused(office.ask("POST", f"/{webhook['id']}/test"), ErrorCode.WEBHOOK_DISABLED)
        discarded = office.deliveries(webhook)[0]
        path = f"/{webhook['id']}/deliveries/{discarded['id']}/redeliver"
        refused(office.ask("POST", path), ErrorCode.WEBHOOK_DISABLED)
        office.wait_until_told()
        assert len(office.deliveries(webhook)) == 3
        entries = data_of(service.get("audit", token=office.token, target_id=webhook["id"]))["items"]
        assert [(each["action"], each["source"]) for each in entries[:1]] == [("webhook.disabled", "job")]
        assert "/hook" not in str(entries)

        receiver.otherwise = OK
        enabled = data_of(office.ask("PATCH", f"/{webhook['id']}", {"is_enabled": True}))
        data_of(office.ask("POST", path), 202)
        receiver.wait_for(3)

        assert (enabled["disabled_reason"], enabled["consecutive_failures"]) == (None, 0)


def test_who_fails_for_days_is_disabled_and_who_fails_for_less_is_not(
    place: Place, box: Mailbox, receiver: Receiver
) -> None:
    receiver.otherwise = says(500)
    with place.service() as service:
        office = Office(place, service, service.log_in()["access_token"])
        webhook = office.register(receiver)
        office.place_order()
        receiver.wait_for(3)
        for days, is_enabled in ((4.9, True), (5, False)):
            since = datetime.now(UTC) - timedelta(days=days)
            office.change(update(WebhookEndpoint).values(failing_since=since, paused_until=None))
            seen = len(receiver.requests)
            receiver.wait_for(seen + 2 if is_enabled else seen)
            if not is_enabled:
                wait_for(lambda: not office.read(webhook)["is_enabled"])

        assert office.read(webhook)["disabled_reason"] == "failing"
        box.wait_for(ADMIN, about="webhook")
        assert [each["state"] for each in office.deliveries(webhook)] in (["discarded"], ["failed"])


@pytest.fixture
async def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Authority]:
    """What sends, in this process: here somebody else's DNS can be played."""
    authority, before = Authority(tmp_path), get_settings()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    outgoing._certificates.cache_clear()
    networks = {"allowed_networks": (f"{HOST}/32",), "timeout_seconds": 5}
    use_settings(load_settings(app={"env": "test"}, webhooks=networks))
    yield authority
    use_settings(before)
    outgoing._certificates.cache_clear()


class Dns:
    """It says one thing after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(socket, "getaddrinfo", self._ask)

    def _ask(self, host: str, port: int, *_: object, **__: object) -> object:
        self.asked.append(host)
        address = self._answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def attempt(url: str) -> transport.Outcome:
    return await transport.send(url, [b"k" * 24], "msg_1", b"{}", before_sending=lambda: None)


async def test_a_name_is_looked_up_once_and_what_was_looked_at_is_called(
    inside: Authority, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    with running_receiver("127.0.0.1", port=receiver.port) as rebound:
        dns = Dns(monkeypatch, HOST, "127.0.0.1", "127.0.0.1")

        first = await attempt(f"http://hooks.example.com:{receiver.port}/hook")
        assert dns.asked == ["hooks.example.com"]
        second = await attempt(f"http://hooks.example.com:{receiver.port}/hook")

        assert dns.asked == ["hooks.example.com"] * 2
        assert (first.status, second.status, second.error) == (204, None, "address_refused")
        assert [request.headers["host"] for request in receiver.requests] == [f"hooks.example.com:{receiver.port}"]
        assert rebound.connections == 0


@pytest.mark.parametrize("name", ["proxy", "all"])
async def test_no_proxy_of_the_environment_stands_in_between(
    inside: Authority, monkeypatch: pytest.MonkeyPatch, receiver: Receiver, name: str
) -> None:
    with running_receiver("127.0.0.1") as proxy:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")

        assert (await attempt(receiver.url)).status == 204
        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("certified", "expected"),
    [
        ("hooks.example.com", (204, "")),
        ("*.example.com", (204, "")),
        ("other.example.com", (None, "certificate_refused")),
        (HOST, (None, "certificate_refused")),
    ],
)
async def test_a_certificate_is_held_against_the_name_though_the_address_is_called(
    inside: Authority, monkeypatch: pytest.MonkeyPatch, certified: str, expected: tuple[int | None, str]
) -> None:
    with running_receiver(tls=inside.server_context(certified)) as receiver:
        Dns(monkeypatch, HOST)

        outcome = await attempt(f"https://hooks.example.com:{receiver.port}/hook")

        assert (outcome.status, outcome.error) == expected
        assert len(receiver.requests) == (1 if outcome.is_success else 0)


async def test_a_certificate_of_an_address_is_held_against_it(inside: Authority) -> None:
    with running_receiver(tls=inside.server_context(HOST)) as receiver:
        assert (await attempt(receiver.url)).status == 204


async def test_who_nobody_vouches_for_is_told_nothing(inside: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with running_receiver(tls=Authority(folder).server_context(HOST)) as receiver:
        assert (await attempt(receiver.url)).error == "certificate_refused"
        assert receiver.requests == []


async def test_a_receiver_that_is_not_there_is_said_to_be(inside: Authority) -> None:
    with running_receiver() as receiver:
        url = receiver.url

    assert (await attempt(url)).error == "connection_refused"

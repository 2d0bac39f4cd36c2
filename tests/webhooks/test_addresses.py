"""Where nothing is sent: refused when it is saved, and refused when it stands in the table all the same."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from threading import Event
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, insert, select, update
from sqlmodel import col

from src.config import get_settings, load_settings, use_settings
from src.shared.errors import ErrorCode
from src.webhooks import addresses
from src.webhooks import services as webhooks
from src.webhooks.addresses import RefusedAddressError
from src.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from src.webhooks.services import endpoints
from tests.support.answers import data_of, refused
from tests.support.receiver import Receiver, running_receiver
from tests.support.waiting import wait_for
from tests.webhooks.conftest import Office

# This machine, in all the ways in which somebody wrote it once. {port} is where somebody listens.
LOOPBACK = (
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.000.000.001", "127.0.0.01", "0127.0.0.1", "0177.0.0.1",
    "0177.0.0.01", "017700000001", "0x7f.0.0.1", "0x7f000001", "0x7F000001", "0x7f.1", "0X7F.0x0.0x0.0x1", "2130706433",
    "2130706433.", "02130706433", "127.0.0.1.0", "0.0.0.0", "0", "0.", "00", "0x0", "0.0", "::1", "[::1]", "[::]",
    "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0001]", "[::1%lo]", "[::1%25lo]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0:127.0.0.1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:0001::1]",
    "[2001:0:7f00:1::]", "[2001::7f00:1]", "localhost", "localhost.", "LOCALHOST", "LocalHost", "foo.localhost",
    "foo.localhost.", "localhost.localdomain", "ip6-localhost", "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "127．0．0．1",
    "127｡0｡0｡1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌｏｃａｌｈｏｓｔ", "loc\u00adalhost", "local\u200bhost", "١٢٧.٠.٠.١", "%31%32%37.0.0.1",
    "127.0.0.%31", "%6cocalhost", "127.0.0.1%00.example.com", "127.0.0.1%2f.example.com", "127.0.0.1%09", "user@127.0.0.1",
    "example.com@127.0.0.1", "127.0.0.1\\@example.com", "example.com\\@127.0.0.1", "127.0.0.1 ", " 127.0.0.1",
    "127.0.0.1\t", "127.0.0.1#.example.com", "127.0.0.1:80@example.com", "xn--localhost-", "xn--127", "127.0.0.1,example.com",
    "127.0.0.1;example.com", "-127.0.0.1", "127.-0.0.1", "127..1", ".127.0.0.1", "127.0.0.1..", "127.0.0.256", "1.1.1.383",
    "127.0.0.0x1", "127.0.0.1e0", "1e3", "[127.0.0.1]", "[v1.127.0.0.1]", "[::1", "::1]", "[]", "", "$(hostname)", "*",
)  # fmt: skip
# What is nobody's, or a neighbour's.
INSIDE = (
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.255.255.254",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9",
    "168.63.129.16", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "[fc00::1]", "[fd00::1]",
    "[fd00:ec2::254]", "[fe80::1]", "[fe80::a9fe:a9fe]", "[fec0::1]", "[ff02::1]", "[ff0e::1]", "[100::1]", "[2001:db8::1]",
    "[2001:2::1]", "[2001:10::1]", "[2001:20::1]", "[2002:a00:1::]", "[2002:a9fe:a9fe::]", "[3fff::1]", "[3ffe::1]",
    "[5f00::1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
    "[::ffff:127.0.0.2]", "[::a00:1]", "[4000::1]", "[fe80::1%eth0]", "metadata", "db", "metadata.google.internal",
)  # fmt: skip
SPELLINGS = [*LOOPBACK, *INSIDE]
ODD = (
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/", "example.com", "https:example.com",
    "https:/example.com", "https:///example.com", "HTTPS://1.1.1.1/", "javascript:alert(1)", "data:,x", "https://",
    "https://1.1.1.1:0/", "https://1.1.1.1:22/", "https://1.1.1.1:25/", "https://1.1.1.1:65536/", "https://1.1.1.1:-1/",
    "https://1.1.1.1:/", "https://1.1.1.1:4 43/", "https://1.1.1.1:x/", "https://me:you@1.1.1.1/", "https://@1.1.1.1/",
    "https://1.1.1.1/#part", "https://1.1.1.1/#", "https://1.1.1.1/ path", "https://1.1.1.1\\path", "https://1.1.1.1/\u00e9",
    "https://bücher.example/", "https://1.1.1.1/<b>", "unix:///var/run/docker.sock", "http+unix://x/", " https://1.1.1.1/",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "[2606:4700:4700::1111]",
    "[2a00:1450::1]",
)


def url(host: str, port: int = 8000) -> str:
    return f"http://{host}:{port}/hook"


@pytest.fixture
def settings() -> Iterator[None]:
    before = get_settings()
    use_settings(load_settings(app={"env": "test"}))
    yield
    use_settings(before)


@pytest.fixture
def listener() -> Iterator[Receiver]:
    """On loopback, where nobody may call, in both families where there are both."""
    with running_receiver("127.0.0.1") as four:
        try:
            with running_receiver("::1", port=four.port, family=socket.AF_INET6) as six:
                six_before, yielded = six, four
                yield yielded
                assert six_before.connections == 0
        except OSError:
            yield four
        assert four.connections == 0


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.usefixtures("settings")
async def test_no_spelling_of_what_is_inside_leads_anywhere(host: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(RefusedAddressError):
            await addresses.locate(f"{scheme}://{host}/hook")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.usefixtures("settings")
async def test_what_is_no_plain_url_leads_nowhere(odd: str) -> None:
    with pytest.raises(RefusedAddressError):
        await addresses.locate(odd)


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.usefixtures("settings")
async def test_what_is_public_leads_there(host: str) -> None:
    """The control."""
    for port in ("", ":443", ":80", ":8443"):
        assert await addresses.locate(f"https://{host}{port}/hook?for=us") == host.strip("[]")


async def test_production_takes_https_unless_it_is_told_otherwise(settings: None) -> None:
    for production, allow_http, is_taken in ((True, None, False), (True, True, True), (False, None, True)):
        env = "production" if production else "test"
        use_settings(load_settings(app={"env": env}, webhooks={"allow_http": allow_http}))
        taken = True
        try:
            await addresses.locate("http://1.1.1.1/hook")
        except RefusedAddressError:
            taken = False
        assert taken is is_taken
        assert await addresses.locate("https://1.1.1.1/hook") == "1.1.1.1"


def answers_with(*found: str) -> Callable[..., object]:
    def ask(host: str, port: int, *_: object, **__: object) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return ask


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
async def test_a_name_that_leads_inside_and_outside_leads_nowhere(
    settings: None, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    for found in ([inside], ["93.184.216.34", inside], [inside, "93.184.216.34"]):
        monkeypatch.setattr(socket, "getaddrinfo", answers_with(*found))
        with pytest.raises(RefusedAddressError):
            await addresses.locate("https://hooks.example.com/hook")
    monkeypatch.setattr(socket, "getaddrinfo", answers_with("93.184.216.34", "1.1.1.1"))
    assert await addresses.locate("https://hooks.example.com/hook") == "93.184.216.34"


async def test_names_that_nobody_answers_for_keep_no_delivery_waiting(
    settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who save them wait among themselves."""
    answered = Event()

    def ask(host: str, *_: object, **__: object) -> object:
        if host.startswith("slow"):
            answered.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(endpoints, "_LOOKED_UP_WITHIN_SECONDS", 0.1)
    saved = [webhooks.refuse_url(f"https://slow{number}.example.com/") for number in range(40)]

    refusals = await asyncio.gather(*saved, return_exceptions=True)

    assert await addresses.locate("https://swift.example.com/") == "1.1.1.1"
    assert {getattr(refusal, "code", None) for refusal in refusals} == {ErrorCode.WEBHOOK_URL_REFUSED}
    answered.set()


def test_each_spelling_is_refused_when_it_is_saved(office: Office, listener: Receiver, receiver: Receiver) -> None:
    mine = office.register(receiver)
    taken = []
    for host in SPELLINGS:
        letter = {"url": url(host, listener.port)}
        for answer in (office.ask("POST", "", letter), office.ask("PATCH", f"/{mine['id']}", letter)):
            code = answer.json()["code"]
            if code not in {ErrorCode.WEBHOOK_URL_REFUSED, ErrorCode.INVALID_REQUEST} or answer.status_code != 422:
                taken.append((host, answer.text))
    for odd in ODD:
        assert office.ask("POST", "", {"url": odd}).status_code == 422

    assert taken == []
    assert office.read(mine)["url"] == receiver.url
    assert data_of(office.ask("GET", ""))["total"] == 1


def test_no_spelling_is_connected_to_though_it_stands_in_the_table(
    office: Office, listener: Receiver, receiver: Receiver, tried: Callable[[int], None]
) -> None:
    """Whoever wrote it there."""
    tried(len(SPELLINGS))
    mine = office.register(receiver)
    ((row,),) = [office.rows(select(WebhookEndpoint.__table__))]  # type: ignore[attr-defined] # each table has one
    planted = [
        {**row._mapping, "id": uuid4(), "url": f"{scheme}://{host}:{listener.port}/hook"}
        for host in SPELLINGS
        for scheme in ("http", "https")
    ]
    office.rows(insert(WebhookEndpoint).values(planted))

    office.place_order()

    receiver.wait_for(1)
    of_those = col(WebhookDelivery.endpoint_id) != UUID(mine["id"])
    first = (
        select(col(WebhookAttempt.error), func.count(func.distinct(col(WebhookDelivery.endpoint_id))))
        .join(WebhookDelivery, col(WebhookDelivery.position) == col(WebhookAttempt.delivery_position))
        .where(of_those)
        .group_by(col(WebhookAttempt.error))
    )
    wait_for(lambda: [tuple(each) for each in office.rows(first)] == [("address_refused", len(planted))])
    assert len(receiver.requests) == 1


def test_what_leads_nowhere_is_told_as_what_is_unknown(office: Office) -> None:
    """Or names of the inside would be found out by trying."""
    told = {
        office.ask("POST", "", {"url": f"http://{host}/"}).text
        for host in ("localhost.localdomain", "nobody.invalid", "10.0.0.1", "db")
    }

    assert len({text.partition('"request_id"')[0] for text in told}) == 1


def test_only_the_networks_that_are_named_are_let_in(office: Office, receiver: Receiver) -> None:
    office.register(receiver)

    for neighbour in ("127.0.0.3", "127.0.0.1", "[::ffff:127.0.0.2]"):
        answer = office.ask("POST", "", {"url": f"http://{neighbour}:{receiver.port}/"})
        refused(answer, ErrorCode.WEBHOOK_URL_REFUSED)


def test_who_bends_the_table_is_still_not_let_in(office: Office, listener: Receiver, receiver: Receiver) -> None:
    """The control of the above: the same row with an allowed address is delivered to."""
    mine = office.register(receiver)
    office.change(
        update(WebhookEndpoint)
        .where(col(WebhookEndpoint.url) == receiver.url)
        .values(url=url("127.0.0.1", listener.port))
    )
    office.place_order()
    office.wait_for_failure(mine)
    office.change(update(WebhookEndpoint).values(url=receiver.url, paused_until=None))

    receiver.wait_for(1)
    office.wait_for_state(mine, "delivered")

"""How often somebody may try. Each test calls from an address of its own, which a proxy that is trusted vouches for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from time import time
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN
from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of, refused, refused_fields
from tests.support.ports import reserved_port
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import running_server
from tests.support.service import own_place
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.long

REGISTER = "/api/v1/auth/register"
TOKEN = "/api/v1/auth/token"
FAILURES_SECONDS = 300
REGISTRATIONS_SECONDS = 60

_networks = count(1)


class Caller:
    """Somebody at an address, alone in their network unless they say otherwise."""

    def __init__(self, client: httpx2.Client, address: str = "") -> None:
        self.client = client
        self.address = address or new_address()

    def post(self, path: str, **letter: object) -> httpx2.Response:
        return self.client.post(path, json=letter, headers={"X-Forwarded-For": self.address})

    def log_in(self, email: str, password: str = PASSWORD) -> httpx2.Response:
        return self.post(LOGIN, email=email, password=password)

    def fail(self, email: str = "") -> httpx2.Response:
        return self.log_in(email or f"{uuid4().hex}@example.com", "wrong")

    def register(self) -> httpx2.Response:
        return self.post(REGISTER, email=f"{uuid4().hex}@example.com", password=PASSWORD)


def new_address() -> str:
    number = next(_networks)
    return f"10.{number // 256}.{number % 256}.1"


# Who is counted, and as what, does not depend on where.
whichever_counts = pytest.mark.parametrize("counted", ["memory"], indirect=True)


@pytest.fixture(scope="module", params=["memory", "valkey", "valkey away"])
def counted(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def client(counted: str) -> Iterator[httpx2.Client]:
    """A service with the limits that it has by default."""
    with ExitStack() as stack:
        cache = "memory://"
        if counted == "valkey":
            cache = stack.enter_context(running_valkey())
        elif counted == "valkey away":
            cache = f"redis://127.0.0.1:{stack.enter_context(reserved_port())}/0"
        url = fresh_database("sqlite")
        stack.callback(drop_database, url)
        env = {
            "DB__URL": url,
            "CACHE__URL": cache,
            "CACHE__NAMESPACE": uuid4().hex,
            "HTTP__TRUSTED_PROXIES": "127.0.0.1",
            "AUTH__EVEN_SECONDS": "0",
        }
        server = stack.enter_context(running_server(env))
        yield stack.enter_context(httpx2.Client(base_url=server.url, timeout=15, verify=False))


@pytest.fixture
def account(client: httpx2.Client) -> str:
    email: str = data_of(Caller(client).register(), 201)["email"]
    return email


def allowed(limit: int, counted: str) -> int:
    """Where the shared counters are away, each process counts for itself, and more strictly."""
    return limit // 2 if counted == "valkey away" else limit


def tries_until_refused(attempt: Callable[[], httpx2.Response], limit: int) -> int:
    """How many went through before one was refused; looks no further than twice the limit."""
    for number in range(2 * limit):
        answer = attempt()
        if answer.status_code == 429:
            facts = refused(answer, ErrorCode.TOO_MANY_ATTEMPTS)
            assert answer.headers["Retry-After"] == str(facts["retry_after_seconds"])
            return number
    return 2 * limit


def within_one_window(seconds: int, measure: Callable[[], int]) -> int:
    """The windows are those of the clock: what began in one and ended in the next counts twice, and is done again."""
    while True:
        began = int(time()) // seconds
        measured = measure()
        if int(time()) // seconds == began:
            return measured


def test_ten_failures_close_an_account_to_an_address_and_to_nobody_else(
    client: httpx2.Client, account: str, counted: str
) -> None:
    guesser = Caller(client)

    def guess_until_refused() -> int:
        nonlocal guesser
        guesser = Caller(client)
        return tries_until_refused(lambda: guesser.fail(account), 10)

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(10, counted)
    refused(guesser.log_in(account), ErrorCode.TOO_MANY_ATTEMPTS)
    refused(guesser.log_in(account.upper()), ErrorCode.TOO_MANY_ATTEMPTS)
    neighbour = guesser.address.removesuffix(".1") + ".200"
    refused(Caller(client, neighbour).log_in(account), ErrorCode.TOO_MANY_ATTEMPTS)
    data_of(Caller(client).log_in(account))
    refused(guesser.fail(), ErrorCode.INVALID_CREDENTIALS)


def test_an_account_that_does_not_exist_is_closed_alike(client: httpx2.Client, counted: str) -> None:
    def guess_until_refused() -> int:
        guesser, nobody = Caller(client), f"{uuid4().hex}@example.com"
        return tries_until_refused(lambda: guesser.fail(nobody), 10)

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(10, counted)


def test_forty_failures_close_the_service_to_an_address(client: httpx2.Client, account: str, counted: str) -> None:
    guesser = Caller(client)

    def guess_until_refused() -> int:
        nonlocal guesser
        guesser = Caller(client)
        return tries_until_refused(guesser.fail, 40)

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(40, counted)
    refused(guesser.log_in(account), ErrorCode.TOO_MANY_ATTEMPTS)
    data_of(Caller(client).log_in(account))


@whichever_counts
def test_the_form_counts_with_the_letter(client: httpx2.Client, account: str, counted: str) -> None:
    def form(address: str) -> httpx2.Response:
        return client.post(TOKEN, data={"username": account, "password": "wrong"}, headers={"X-Forwarded-For": address})

    def guess_until_refused() -> int:
        guesser = Caller(client)
        turns = (lambda: form(guesser.address), lambda: guesser.fail(account))
        order = count()
        return tries_until_refused(lambda: turns[next(order) % 2](), 10)  # noqa: PLW0108 - another one each time

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(10, counted)


def test_a_hundred_log_ins_and_refreshes_a_minute_are_not_too_many(client: httpx2.Client, account: str) -> None:
    home = Caller(client)

    token = ""
    for _ in range(20):
        token = data_of(home.log_in(account))["refresh_token"]
    for _ in range(80):
        token = data_of(home.post("/api/v1/auth/refresh", refresh_token=token))["refresh_token"]


@whichever_counts
def test_what_is_malformed_does_not_count(client: httpx2.Client, account: str) -> None:
    clumsy = Caller(client)

    for _ in range(45):
        assert refused_fields(clumsy.post(LOGIN, email=account)) == {"password"}
    for _ in range(70):
        refused_fields(clumsy.post(REGISTER, email="nobody", password=PASSWORD))
    for _ in range(70):
        refused(
            clumsy.post(REGISTER, email=f"{uuid4().hex}@example.com", password="password1234"), ErrorCode.WEAK_PASSWORD
        )

    data_of(clumsy.log_in(account))
    data_of(clumsy.register(), 201)


def test_an_address_registers_sixty_accounts_a_minute(client: httpx2.Client, counted: str) -> None:
    def register_until_refused() -> int:
        return tries_until_refused(Caller(client).register, 60)

    assert within_one_window(REGISTRATIONS_SECONDS, register_until_refused) == allowed(60, counted)


@whichever_counts
def test_a_password_is_not_guessed_by_changing_it(client: httpx2.Client, account: str, counted: str) -> None:
    def guess_until_refused() -> int:
        thief = Caller(client)
        headers = {
            "Authorization": f"Bearer {data_of(thief.log_in(account))['access_token']}",
            "X-Forwarded-For": thief.address,
        }
        letter = {"current_password": "wrong", "new_password": "violet-harbour-engine-47"}
        return tries_until_refused(
            lambda: client.post("/api/v1/auth/password/change", json=letter, headers=headers), 10
        )

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(10, counted)


@whichever_counts
@pytest.mark.parametrize("address", ["2001:db8:1:2::{}", "2001:db8:1:2:{}::"])
def test_one_network_of_ipv6_is_one_place(client: httpx2.Client, counted: str, address: str) -> None:
    """A customer has at least a /64 to move within."""

    def guess_until_refused() -> int:
        host, nobody = count(1), f"{uuid4().hex}@example.com"
        return tries_until_refused(lambda: Caller(client, address.format(f"{next(host):x}")).fail(nobody), 10)

    assert within_one_window(FAILURES_SECONDS, guess_until_refused) == allowed(10, counted)


# Each measurement has a caller of its own: one that is done again must not find what the first one counted.


@whichever_counts
@pytest.mark.parametrize("network", ["2001:db8:1:{}::{}", "2001:0DB8:2:{}:0:0:0:{}"])
def test_all_of_ones_network_of_ipv6_is_one_caller(client: httpx2.Client, counted: str, network: str) -> None:
    def measure() -> int:
        number, turn = next(_networks), count(1)
        return tries_until_refused(lambda: Caller(client, network.format(number, next(turn))).register(), 60)

    assert within_one_window(REGISTRATIONS_SECONDS, measure) == 60


@whichever_counts
def test_an_address_of_ipv4_in_the_words_of_ipv6_is_itself_and_nobody_else(
    client: httpx2.Client, account: str, counted: str
) -> None:
    def measure() -> int:
        attacker = Caller(client, f"::ffff:{new_address()}")
        return tries_until_refused(lambda: attacker.fail(account), 10)

    assert within_one_window(FAILURES_SECONDS, measure) == 10
    data_of(Caller(client, f"::ffff:{new_address()}").log_in(account))


@whichever_counts
def test_a_password_is_not_asked_for_again_without_end(client: httpx2.Client, counted: str) -> None:
    """A right one costs as much as a wrong one."""
    letter = {"current_password": PASSWORD, "new_password": "password1234"}

    def measure() -> int:
        owner = Caller(client)
        email = data_of(owner.register(), 201)["email"]
        token = bearer(data_of(owner.log_in(email))["access_token"])

        def change() -> httpx2.Response:
            headers = {"X-Forwarded-For": new_address(), **token}
            return client.post("/api/v1/auth/password/change", json=letter, headers=headers)

        return tries_until_refused(change, 30)

    assert within_one_window(REGISTRATIONS_SECONDS, measure) == 30


MAILED = [
    ("password/forgot", {"email": "nobody@example.com"}),
    ("password/reset", {"token": "A" * 43, "new_password": PASSWORD}),
    ("verify/request", {"email": "nobody@example.com"}),
    ("verify", {"token": "A" * 43}),
    ("email/confirm", {"token": "A" * 43}),
]


@whichever_counts
def test_an_address_asks_for_sixty_mails_a_minute_and_tries_as_many_codes(client: httpx2.Client, counted: str) -> None:
    def measure() -> int:
        caller, turn = Caller(client), count()

        def ask() -> httpx2.Response:
            path, letter = MAILED[next(turn) % len(MAILED)]
            return caller.post(f"/api/v1/auth/{path}", **letter)

        return tries_until_refused(ask, 60)

    assert within_one_window(REGISTRATIONS_SECONDS, measure) == 60
    assert Caller(client).post("/api/v1/auth/verify", token="A" * 43).status_code == 400


def test_when_the_whole_world_guesses_an_account_is_open_where_it_was_used_before() -> None:
    env = {"AUTH__LOGIN_FAILURES_OVERALL": "20", "HTTP__TRUSTED_PROXIES": "127.0.0.1"}
    with own_place("sqlite", **env) as place, place.service() as service:
        email = service.register()
        home, elsewhere = Caller(service.client), Caller(service.client)
        data_of(home.log_in(email))

        def guesses() -> int:
            return tries_until_refused(lambda: Caller(service.client).fail(email), 20)

        assert within_one_window(FAILURES_SECONDS, guesses) <= 20

        refused(elsewhere.log_in(email), ErrorCode.TOO_MANY_ATTEMPTS)
        neighbour = Caller(service.client, home.address.removesuffix("1") + "77")
        data_of(neighbour.log_in(email))
        data_of(home.log_in(email))

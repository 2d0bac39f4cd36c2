"""Real servers on real databases for the tests of a run, and people to call them."""

import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import cast, get_args
from uuid import uuid4
from zlib import crc32

import httpx2
import pytest

from src.shared import database
from tests.support.mail import Mailbox, running_mail_server
from tests.support.oidc import House, Town, running_providers
from tests.support.payments import Bank, running_bank
from tests.support.postgres import SERVER_VARIABLE as TEST_DB_URL
from tests.support.postgres import Kind, drop_database, fresh_database, shared_run
from tests.support.receiver import ALLOWED
from tests.support.scale import in_full
from tests.support.server import Server, run_command, running_server, shortcuts
from tests.support.truth import Schema, checks
from tests.support.valkey import SERVER_VARIABLE as TEST_CACHE_URL
from tests.support.valkey import running_valkey

PASSWORD = "plum-lantern-quarry-81"
# All tests of a run call from one address; what throttles an address has tests of its own.
PATIENT = {
    "AUTH__LOGINS_PER_ADDRESS": "1000000",
    "AUTH__LOGIN_FAILURES_PER_ADDRESS": "1000000",
    "AUTH__REGISTRATIONS_PER_ADDRESS": "1000000",
    "AUTH__MAIL_REQUESTS_PER_ADDRESS": "1000000",
    "AUTH__REFUSALS_NOTED": "1000000",
    "WEBHOOKS__PER_ACCOUNT": "1000000",
    # A machine that is busy with other tests is no outage.
    "DB__POOL_TIMEOUT_SECONDS": "12",
    "DB__STATEMENT_TIMEOUT_SECONDS": "12",
    "DB__LOCK_TIMEOUT_SECONDS": "12",
    # What hides how long something took would only make the tests long; `make bench` looks at it.
    "AUTH__EVEN_SECONDS": "0",
    "AUTH__MAIL_DELAY_SECONDS": "0",
    # What is counted is compared with what was done since; how long a count may be kept has tests of its own.
    "STATISTICS__CACHE_SECONDS": "0",
}


@dataclass(frozen=True)
class Account:
    id: str
    email: str
    password: str = PASSWORD


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # it lives in the run of the process that started it
    _take_over_the_shell()
    run = ExitStack()
    config.add_cleanup(run.close)
    run.enter_context(shared_run(several_processes=bool(getattr(config.option, "numprocesses", None))))


def _take_over_the_shell() -> None:
    """`DB__URL=… CACHE__URL=… make test` means: on those servers. Beyond that no setting of a shell changes a test."""
    for ours, name, schemes in (
        ("DB__URL", TEST_DB_URL, ("postgresql://", "postgres://")),
        ("CACHE__URL", TEST_CACHE_URL, ("redis://", "rediss://", "valkey://", "valkeys://")),
    ):
        if os.environ.get(ours, "").startswith(schemes):
            os.environ.setdefault(name, os.environ[ours])
    for name in [
        name
        for name in os.environ
        if re.match(r"(?i)(app|db|cache|auth|http|mail|outbox|orders|payments|webhooks|statistics|log|retry)__", name)
    ]:
        del os.environ[name]
    os.environ.update(shortcuts())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `either` is played on one of the two databases, always the same one; with TEST_DATABASES=either all
    tests are, with TEST_LONG=1 none."""
    everything = os.environ.get("TEST_DATABASES") == "either"
    if in_full():
        return
    left_out = {item for item in items if (everything or item.get_closest_marker("either")) and _is_left_out(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if "database_kind" not in parameters:
        return False
    kind, kinds = str(parameters["database_kind"]), get_args(Kind)
    name = f"{item.path.name} {item.name.replace(kind, '')}"
    return bool(kinds[crc32(name.encode()) % len(kinds)] != kind)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its server said."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and isinstance(server, Server) and server.log.exists():
        report.sections.append(("Captured server output", server.output()[-20_000:]))
    return report


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Says how often the test tried what it tries, for docs/proofs.md: once, where it does not say."""
    return lambda times: record_property("tried", times)


@pytest.fixture(autouse=True)
def own_engine() -> Iterator[None]:
    """The process has one engine: a test that leaves it open leaves its database to the next one."""
    before = database._engine
    yield
    assert database._engine is before, "close_engine() at the end of whatever opens sessions here"


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def database_kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)  # one of the two above


@dataclass(frozen=True)
class _Running:
    server: Server
    env: dict[str, str]
    admin_email: str
    bank: Bank


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Mailbox]:
    """Where the mails of `server` arrive."""
    with running_mail_server() as box:
        yield box


@pytest.fixture(scope="session")
def providers() -> Iterator[Town]:
    with running_providers() as town:
        yield town


@pytest.fixture(scope="session")
def provider(providers: Town) -> House:
    """Who else says to `server` who somebody is."""
    return providers.house("acme")


@pytest.fixture(scope="session")
def running(
    tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox, providers: Town
) -> Iterator[Callable[[Kind], _Running]]:
    """The services of this process, one a database: started by the first test that asks, and kept for all others.

    Not a fixture a kind: pytest would stop one service and start the other with each file.
    """
    with ExitStack() as servers:

        @cache
        def run(kind: Kind) -> _Running:
            url = fresh_database(kind)
            servers.callback(drop_database, url)
            # SQLite goes with the cache in memory, PostgreSQL with Valkey: what `make run` and what production has.
            cache_url = "memory://" if kind == "sqlite" else servers.enter_context(running_valkey())
            # Another server on the same Valkey has keys of its own.
            env = {
                "DB__URL": url,
                "CACHE__URL": cache_url,
                "CACHE__NAMESPACE": f"test-{uuid4().hex[:12]}",
                "MAIL__URL": mailbox.url,
                **providers.settings("acme", "other"),
                **(bank := servers.enter_context(running_bank())).settings(),
                **PATIENT,
                **ALLOWED,
            }
            email = f"admin-{uuid4().hex}@example.com"
            folder = tmp_path_factory.mktemp("admin")
            made = run_command("create-admin", "--email", email, env=env, cwd=folder, stdin=f"{PASSWORD}\n")
            assert made.returncode == 0, made.stdout + made.stderr
            server = servers.enter_context(running_server(env))
            bank.calls_back(server.url)
            return _Running(server, env, email, bank)

        yield run


@pytest.fixture(scope="session")
def server(running: Callable[[Kind], _Running], database_kind: Kind) -> Server:
    """A running service. Its tests share it, so they make their own people and goods and count nothing else."""
    return running(database_kind).server


@pytest.fixture(scope="session")
def server_env(running: Callable[[Kind], _Running], database_kind: Kind) -> dict[str, str]:
    """What `server` was started with."""
    return running(database_kind).env


@pytest.fixture(scope="session")
def bank(running: Callable[[Kind], _Running], database_kind: Kind) -> Bank:
    """Through whom `server` is paid."""
    return running(database_kind).bank


@pytest.fixture(scope="session")
def database_url(server_env: dict[str, str]) -> str:
    """The database of `server`."""
    return server_env["DB__URL"]


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with running_valkey() as url:
        yield url


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    """Somebody who is not logged in."""
    with _client(server) as anybody:
        yield anybody


@pytest.fixture
def register(client: httpx2.Client) -> Callable[[], Account]:
    """Make somebody new, with the rights that everybody has."""

    def register_somebody() -> Account:
        email = f"{uuid4().hex}@example.com"
        answer = client.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return Account(answer.json()["data"]["id"], email)

    return register_somebody


@pytest.fixture
def login(server: Server) -> Iterator[Callable[[Account], httpx2.Client]]:
    """A client that calls with the account's access token."""
    with ExitStack() as clients:
        yield lambda account: _log_in(clients.enter_context(_client(server)), account.email)


@pytest.fixture(scope="session")
def admin_email(running: Callable[[Kind], _Running], database_kind: Kind) -> str:
    return running(database_kind).admin_email


@pytest.fixture
def admin(server: Server, admin_email: str) -> Iterator[httpx2.Client]:
    """A client that may do everything."""
    with _client(server) as client:
        yield _log_in(client, admin_email)


def _client(server: Server) -> httpx2.Client:
    # Plain HTTP over loopback: loading certificates would take longer than most tests.
    check = checks(lambda: _document(server.url, server.pid))
    return httpx2.Client(base_url=server.url, timeout=15, verify=False, event_hooks={"response": [check]})


@cache
def _document(url: str, pid: int) -> Schema:
    document: Schema = httpx2.get(f"{url}/openapi.json", verify=False, timeout=15).raise_for_status().json()
    return document


def _log_in(client: httpx2.Client, email: str) -> httpx2.Client:
    answer = client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['data']['access_token']}"
    return client

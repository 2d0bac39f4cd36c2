"""What was taken away is gone for the next request, in each process that remembers."""

import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from src.config import load_settings
from src.shared.database import create_engine
from src.users.models import RolePermission, User, UserRole
from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of
from tests.support.postgres import Kind, drop_database, execute, fresh_database
from tests.support.scale import rounds as scaled
from tests.support.server import child_environment, run_command, running_server
from tests.support.waiting import eventually

APP = "tests.auth.revocation_app:app"
SECRET = "kY2v8mQ4xT7wR1pN6zB3cD5fG9hJ0lSeUiO"
CHECKS = scaled(1000, full=10_000)
REFUSED = {401, 403}
KEEP_ALIVE = ["--timeout-keep-alive", "600"]


class Wire:
    """One keep-alive connection; several ask at once, and then listen."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self._received = self._socket.makefile("rb")

    def ask(self, path: str, token: str) -> None:
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )

    def hear(self) -> tuple[int, bytes]:
        status = int(self._received.readline().split()[1])
        length = 0
        while (line := self._received.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self._received.read(length)

    def close(self) -> None:
        self._received.close()
        self._socket.close()


@dataclass
class Person:
    id: UUID
    email: str
    token: str = ""
    refresh_token: str = ""


@dataclass
class Service:
    """Servers on one database, an administrator, and a role of its own that opens the guarded route."""

    url: str
    env: dict[str, str]
    ports: list[int]
    wires: list[Wire] = field(default_factory=list)
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=30, verify=False))
    admin: dict[str, str] = field(default_factory=dict)
    role: str = ""
    role_id: str = ""

    def call(self, method: str, path: str, **how: Any) -> httpx2.Response:  # Any: as httpx has it
        how.setdefault("headers", self.admin)
        return self.client.request(method, f"http://127.0.0.1:{self.ports[0]}{path}", **how)

    def log_in(self, person: Person) -> Person:
        letter = data_of(self.call("POST", "/api/v1/auth/login", json={"email": person.email, "password": PASSWORD}))
        person.token, person.refresh_token = letter["access_token"], letter["refresh_token"]
        return person

    def hire(self) -> Person:
        email = f"{uuid4().hex}@example.com"
        letter = {"email": email, "password": PASSWORD, "roles": ["user", self.role]}
        made = data_of(self.call("POST", "/api/v1/users", json=letter), 201)
        return self.log_in(Person(UUID(made["id"]), email))

    def give_roles(self, person: Person, *roles: str) -> None:
        data_of(self.call("PUT", f"/api/v1/users/{person.id}/roles", json={"roles": list(roles)}))

    def statuses(self, person: Person, *, each: int = 1) -> list[int]:
        heard = []
        for _ in range(each):
            for wire in self.wires:
                wire.ask("/guarded", person.token)
            heard += [wire.hear()[0] for wire in self.wires]
        return heard

    def warm(self, person: Person) -> None:
        """Each process remembers."""
        assert set(self.statuses(person)) == {200}

    @contextmanager
    def kept_warm(self, person: Person) -> Iterator[None]:
        """Until the end of the block: while a process starts in it, leases would end."""
        self.warm(person)
        over = Event()

        def ask() -> None:
            while not over.is_set():
                self.statuses(person)

        with ThreadPoolExecutor(1) as thread:
            asking = thread.submit(ask)
            try:
                yield
            finally:
                over.set()
                asking.result()


@contextmanager
def serving(
    kind: Kind, tmp_path: Path, *, workers: int = 1, apart: int = 1, env: dict[str, str] | None = None
) -> Iterator[Service]:
    """`apart` servers that share no memory, as on so many machines."""
    with ExitStack() as stack:
        url = fresh_database(kind)
        stack.callback(drop_database, url)
        given = {"DB__URL": url, "AUTH__SECRET": SECRET, **PATIENT, **(env or {})}
        service = Service(url, given, [])
        stack.callback(service.client.close)
        for number in range(apart):
            if apart > 1:
                given = {**given, "XDG_RUNTIME_DIR": str(tmp_path / f"machine-{number}")}
                (tmp_path / f"machine-{number}").mkdir(mode=0o700)
            server = stack.enter_context(running_server(given, APP, workers=workers, args=KEEP_ALIVE))
            service.ports.append(server.port)
        made = run_command(
            "create-admin", "--email", "root@example.com", env=given, cwd=tmp_path, stdin=f"{PASSWORD}\n"
        )
        assert made.returncode == 0, made.stderr
        service.admin = bearer(service.log_in(Person(uuid4(), "root@example.com")).token)
        service.role = f"reader-{uuid4().hex[:8]}"
        letter = {"name": service.role, "permissions": ["order:read"]}
        service.role_id = data_of(service.call("POST", "/api/v1/roles", json=letter), 201)["id"]
        for wire in connect(service, workers):
            stack.callback(wire.close)
        yield service


def connect(service: Service, workers: int) -> list[Wire]:
    """Connections to each process of each server."""
    somebody = service.hire()
    for port in service.ports:
        by_process: dict[bytes, int] = {}
        while len(by_process) < workers or min(by_process.values()) < 2:
            wire = Wire(port)
            wire.ask("/guarded", somebody.token)
            status, body = wire.hear()
            assert status == 200
            by_process[body] = by_process.get(body, 0) + 1
            if by_process[body] <= 3:
                service.wires.append(wire)
            else:
                wire.close()
    return service.wires


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    kind: Kind = request.param
    with serving(kind, tmp_path_factory.mktemp("s"), workers=2 if kind == "postgres" else 1) as service:
        yield service


@pytest.fixture
async def engine(service: Service) -> Any:  # Any: as async generators of fixtures go
    engine = create_engine(load_settings(db={"url": service.url}))
    yield engine
    await engine.dispose()


# --- Each way of taking away


def log_out(service: Service, person: Person) -> None:
    data_of(service.call("POST", "/api/v1/auth/logout", json={"refresh_token": person.refresh_token}))


def log_out_everywhere(service: Service, person: Person) -> None:
    data_of(service.call("POST", "/api/v1/auth/logout-all", headers=bearer(person.token)))


def end_the_session(service: Service, person: Person) -> None:
    (session,) = data_of(service.call("GET", "/api/v1/auth/sessions", headers=bearer(person.token)))
    data_of(service.call("DELETE", f"/api/v1/auth/sessions/{session['id']}", headers=bearer(person.token)))


def reuse_a_refresh_token(service: Service, person: Person) -> None:
    token = person.refresh_token
    for _ in range(2):
        letter = data_of(service.call("POST", "/api/v1/auth/refresh", json={"refresh_token": token}))
        token = letter["refresh_token"]
    again = service.call("POST", "/api/v1/auth/refresh", json={"refresh_token": person.refresh_token})
    assert again.status_code == 401


def take_the_role(service: Service, person: Person) -> None:
    service.give_roles(person, "user")


def change_the_role(service: Service, person: Person) -> None:
    data_of(service.call("PATCH", f"/api/v1/roles/{service.role_id}", json={"permissions": ["order:update"]}))


def disable(service: Service, person: Person) -> None:
    data_of(service.call("PATCH", f"/api/v1/users/{person.id}", json={"is_active": False}))


def delete_account(service: Service, person: Person) -> None:
    data_of(service.call("DELETE", f"/api/v1/users/{person.id}"))


def change_the_password(service: Service, person: Person) -> None:
    letter = {"current_password": PASSWORD, "new_password": "a-quite-different-gadget-17"}
    data_of(service.call("POST", "/api/v1/auth/password/change", json=letter, headers=bearer(person.token)))


def command_set_roles(service: Service, person: Person) -> None:
    command(service, "set-roles", "--email", person.email, "--role", "user")


def command_deactivate(service: Service, person: Person) -> None:
    command(service, "deactivate", "--email", person.email)


def command(service: Service, *arguments: str) -> None:
    done = run_command(*arguments, env=service.env, cwd=Path(service.env["HERE"]))
    assert done.returncode == 0, done.stderr


A_JOB = """
import asyncio, sys
from uuid import UUID
{imports}
from src.shared.database import close_engine, transaction

async def main():
    async with transaction() as session:
        {work}
    await close_engine()

asyncio.run(main())
"""


def a_job_that_calls_services(service: Service, person: Person) -> None:
    job(
        service, "from src.auth import services as auth", f"await auth.log_out_everywhere(session, UUID('{person.id}'))"
    )


def a_job_that_knows_only_sql(service: Service, person: Person) -> None:
    """It imports nothing of who people are."""
    forget = f"DELETE FROM user_roles WHERE role_id IN (SELECT id FROM roles WHERE name = '{service.role}')"
    job(service, "from sqlalchemy import text", f'await session.execute(text("{forget}"))')


def job(service: Service, imports: str, work: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", A_JOB.format(imports=imports, work=work)],
        env=child_environment(service.env),
        cwd=service.env["HERE"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


WAYS = [
    log_out,
    log_out_everywhere,
    end_the_session,
    reuse_a_refresh_token,
    take_the_role,
    change_the_role,
    disable,
    delete_account,
    change_the_password,
    command_set_roles,
    command_deactivate,
    a_job_that_calls_services,
    a_job_that_knows_only_sql,
]


@pytest.mark.parametrize("take_away", WAYS)
def test_what_was_taken_away_is_gone_for_the_next_request(
    service: Service, tmp_path: Path, take_away: Callable[[Service, Person], None]
) -> None:
    service.env["HERE"] = str(tmp_path)
    person = service.hire()

    with service.kept_warm(person):
        take_away(service, person)

    assert set(service.statuses(person, each=3)) <= REFUSED
    data_of(service.call("PATCH", f"/api/v1/roles/{service.role_id}", json={"permissions": ["order:read"]}))


def test_what_was_given_counts_for_the_next_request(service: Service) -> None:
    person = service.hire()
    service.give_roles(person, "user")
    service.log_in(person)
    assert set(service.statuses(person)) == {403}

    service.give_roles(person, "user", service.role)

    assert set(service.statuses(person, each=3)) == {200}


# --- SQL that passes through an engine of ours, many times


class Sql:
    """Ways to take the role from somebody, and to give it back, past all services."""

    def __init__(self, engine: AsyncEngine, person: Person, role_id: UUID) -> None:
        self.engine, self.person, self.role_id = engine, person, role_id
        self.link = {"user_id": person.id, "role_id": role_id}
        self.mine = col(UserRole.user_id) == person.id, col(UserRole.role_id) == role_id

    async def as_text(self) -> None:
        raw = {name: value.hex if self.engine.dialect.name == "sqlite" else value for name, value in self.link.items()}
        async with self.engine.begin() as connection:
            await connection.execute(
                text("DELETE FROM user_roles WHERE user_id = :user_id AND role_id = :role_id"), raw
            )

    async def as_core(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(delete(UserRole).where(*self.mine))

    async def as_commit_of_a_connection(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(delete(UserRole).where(*self.mine))
            await connection.commit()
            await self.then()

    async def as_orm(self) -> None:
        async with AsyncSession(self.engine) as session:
            link = (await session.execute(select(UserRole).where(*self.mine))).scalar_one()
            await session.delete(link)
            await session.commit()
            await self.then()

    async def as_autocommit(self) -> None:
        if self.engine.dialect.name == "sqlite":
            await self.as_core()
            return
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(delete(UserRole).where(*self.mine))
            await self.then()

    async def as_cte(self) -> None:
        if self.engine.dialect.name == "sqlite":
            await self.as_core()
            return
        gone = delete(UserRole).where(*self.mine).returning(col(UserRole.user_id)).cte()
        async with self.engine.begin() as connection:
            await connection.execute(select(gone))

    async def as_another_role(self) -> None:
        """It opens nothing any more."""
        async with self.engine.begin() as connection:
            await connection.execute(delete(RolePermission).where(col(RolePermission.role_id) == self.role_id))

    async def as_disabled(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(update(User).where(col(User.id) == self.person.id).values(is_active=False))

    async def give_back(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(delete(UserRole).where(*self.mine))
            await connection.execute(insert(UserRole).values(**self.link))
            await connection.execute(delete(RolePermission).where(col(RolePermission.role_id) == self.role_id))
            await connection.execute(insert(RolePermission).values(role_id=self.role_id, permission="order:read"))
            await connection.execute(update(User).where(col(User.id) == self.person.id).values(is_active=True))

    then: Callable[[], Awaitable[None]]
    """Called while the connection is still out, where there is one."""

    async def ways(self) -> list[Callable[[], Awaitable[None]]]:
        return [getattr(self, name) for name in dir(self) if name.startswith("as_")]


@pytest.mark.long
async def test_ten_thousand_checks_after_a_change_find_nothing_stale(
    service: Service, engine: AsyncEngine, tried: Callable[[int], None]
) -> None:
    person, stale, done = service.hire(), 0, 0
    sql = Sql(engine, person, UUID(service.role_id))

    async def look(each: int = 1) -> None:
        nonlocal stale, done
        heard = service.statuses(person, each=each)
        done += len(heard)
        stale += len([status for status in heard if status not in REFUSED])

    sql.then = look
    ways = await sql.ways()
    checks = CHECKS if engine.dialect.name == "postgresql" else CHECKS // 10
    cycles = 0
    while done < checks:
        service.warm(person)
        await ways[cycles % len(ways)]()
        await look(each=5)
        await sql.give_back()
        cycles += 1

    tried(done)
    assert stale == 0


async def test_without_the_advance_stale_answers_are_seen(tmp_path: Path) -> None:
    """The test above can fail."""
    faulty = {"PLANTED_FAULT": "never advances", "AUTH__PRINCIPAL_CACHE_SECONDS": "5"}
    with serving("sqlite", tmp_path, env=faulty) as service:
        person = service.hire()
        service.warm(person)

        log_out(service, person)

        assert set(service.statuses(person)) == {200}


# --- Machines that share no memory


@pytest.mark.parametrize("fault", ["", "never waits"])
def test_a_machine_waits_for_the_others(tmp_path: Path, fault: str) -> None:
    lease = "5" if fault else "0.3"
    with serving(
        "postgres", tmp_path, apart=2, env={"PLANTED_FAULT": fault, "AUTH__PRINCIPAL_CACHE_SECONDS": lease}
    ) as service:
        heard = []
        for way in (log_out, take_the_role, disable):
            person = service.hire()
            service.warm(person)
            way(service, person)
            heard += service.statuses(person)

        assert (200 in heard) is bool(fault)


def test_a_job_on_another_machine_waits_too(tmp_path: Path) -> None:
    with serving("postgres", tmp_path, env={"AUTH__PRINCIPAL_CACHE_SECONDS": "0.5"}) as service:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        service.env |= {"HERE": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "elsewhere")}
        for way in (command_set_roles, a_job_that_knows_only_sql, a_job_that_calls_services):
            person = service.hire()
            with service.kept_warm(person):
                way(service, person)
            assert set(service.statuses(person)) <= REFUSED


async def test_who_cannot_renew_its_registration_remembers_nothing(tmp_path: Path) -> None:
    env = {"AUTH__PRINCIPAL_CACHE_SECONDS": "5", "PLANTED_FAULT": "trusts briefly"}
    with serving("postgres", tmp_path, env=env) as service:
        person = service.hire()
        service.warm(person)

        async def remembers() -> bool:
            return bool(data_of(service.call("GET", "/remembers")))

        async def forgets() -> bool:
            return not await remembers()

        assert await remembers()
        execute(service.url, "ALTER TABLE cache_leases ADD CONSTRAINT closed CHECK (false) NOT VALID")
        await eventually(forgets)
        service.warm(person)
        # Nobody knows of it any more, so nobody waits for it or tells it.
        execute(service.url, "DELETE FROM cache_leases")
        execute(service.url, f"DELETE FROM user_roles WHERE user_id = '{person.id}'")
        assert set(service.statuses(person)) <= REFUSED

        execute(service.url, "ALTER TABLE cache_leases DROP CONSTRAINT closed")
        await eventually(remembers)


# --- What a route gets


@pytest.fixture(params=["on", "off"])
def some_service(request: pytest.FixtureRequest, database_kind: Kind, tmp_path: Path) -> Iterator[Service]:
    env = {"AUTH__PRINCIPAL_CACHE_SECONDS": "1" if request.param == "on" else "0"}
    with serving(database_kind, tmp_path, env=env) as service:
        assert data_of(service.call("GET", "/remembers")) is (request.param == "on")
        yield service


def test_the_account_is_one_of_the_session_remembered_or_not(some_service: Service) -> None:
    person, service = some_service.hire(), some_service
    caller = bearer(person.token)

    for number in range(3):
        name = f"name-{number}-{uuid4().hex[:8]}"
        data_of(service.call("PUT", f"/me/{name}", headers=caller))
        for _ in range(2):
            told = data_of(service.call("GET", "/me", headers=caller))
            assert told == {"name": name, "same": True, "in_session": True, "refreshed": name}
        assert service.call("PUT", "/me/never/and-refuse", headers=caller).status_code == 500
        assert data_of(service.call("GET", "/me", headers=caller))["name"] == name
    assert service.call("GET", "/me", headers={}).status_code == 401
    assert service.call("GET", "/me", headers=bearer(person.token[:-2])).status_code == 401


def test_who_calls_is_read_on_no_connection_that_others_wait_for(some_service: Service) -> None:
    """Each of these needs one more for what it does: with one kept by each of them they would wait for each other."""
    person, service = some_service.hire(), some_service
    letter = {"current_password": "not-the-password-99", "new_password": "violet-harbour-engine-47"}
    caller = bearer(person.token)

    with ThreadPoolExecutor(40) as threads:
        asked = [
            threads.submit(service.call, "POST", "/api/v1/auth/password/change", json=letter, headers=caller)
            for _ in range(40)
        ]
        answers = [each.result() for each in asked]

    assert {answer.status_code for answer in answers} <= {401, 429}, {answer.text for answer in answers}

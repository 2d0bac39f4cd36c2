"""A refresh and what ends its session, at the same time: whoever comes first, nothing that was ended goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Event
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from sqlalchemy import func, select
from sqlmodel import col

from src.auth.models import AuthSession
from src.shared.errors import ErrorCode
from tests.auth.conftest import OpenSession, Session
from tests.auth.test_access_tokens import decoded
from tests.auth.test_sessions import assert_alive, assert_ended
from tests.support.answers import at_once, bearer, data_of, refused
from tests.support.tables import execute
from tests.support.waiting import eventually

ROUNDS = 8
MOST_REFRESHES = 500
SESSIONS = "/api/v1/auth/sessions"
Act = Callable[[Session, httpx2.Client], httpx2.Response]

# --- What is done meanwhile


@dataclass(frozen=True)
class Deed:
    act: Act
    """By the one whose session it is, or by an administrator."""
    locks: frozenset[str] = frozenset()
    """The tables in which it waits while somebody else holds the row that it wants."""


def session_id(session: Session) -> UUID:
    return UUID(decoded(session.access_token.split(".")[1])["sid"])


def by_admin(method: str, path: str, body: object = None) -> Act:
    return lambda session, admin: admin.request(method, f"/api/v1/users/{session.account.id}{path}", json=body)


def revoke(session: Session, _: httpx2.Client) -> httpx2.Response:
    return session.client.delete(f"{SESSIONS}/{session_id(session)}", headers=bearer(session.access_token))


def change_password(session: Session, _: httpx2.Client) -> httpx2.Response:
    letter = {"current_password": session.account.password, "new_password": "a-quite-different-gadget-17"}
    return session.post("password/change", dict(letter))


SESSION, TOKEN, ACCOUNT, PASSWORD = "auth_sessions", "refresh_tokens", "users", "credentials"
ENDING = {
    "log-out": Deed(lambda session, _: session.log_out(), frozenset({SESSION})),
    "log-out everywhere": Deed(lambda session, _: session.post("logout-all"), frozenset({SESSION, ACCOUNT})),
    "revocation": Deed(revoke, frozenset({SESSION})),
    "password change": Deed(change_password, frozenset({SESSION, ACCOUNT, PASSWORD})),
    "disable": Deed(by_admin("PATCH", "", {"is_active": False}), frozenset({SESSION, ACCOUNT})),
    "deletion": Deed(by_admin("DELETE", ""), frozenset({SESSION, ACCOUNT, PASSWORD})),
}
DEMOTING = {"role removal": Deed(by_admin("PUT", "/roles", {"roles": ["user"]}), frozenset({ACCOUNT}))}
HARMLESS = {
    "look at the profile": Deed(lambda session, _: session.profile()),
    "look at the sessions": Deed(lambda session, _: session.client.get(SESSIONS, headers=bearer(session.access_token))),
    "enabling": Deed(by_admin("PATCH", "", {"is_active": True}), frozenset({ACCOUNT})),
}


# --- What must hold when both are acknowledged


def after(session: Session, answer: httpx2.Response) -> list[Session]:
    """The session as it was before its refresh, and as it was after it unless that was refused."""
    if answer.status_code != 200:
        refused(answer, ErrorCode.INVALID_REFRESH_TOKEN)
        return [session]
    letter = data_of(answer)
    return [session, Session(session.client, session.account, letter["access_token"], letter["refresh_token"])]


def assert_all_ended(line: list[Session], database_url: str) -> None:
    for session in line:
        assert_ended(session)
    alive = select(func.count()).where(
        col(AuthSession.user_id) == UUID(line[0].account.id), col(AuthSession.revoked_at).is_(None)
    )
    assert execute(database_url, alive)[0][0] == 0


def assert_demoted(line: list[Session]) -> None:
    """The right is gone for each access token; the session goes on, from its newest refresh token."""
    codes = [use_the_right(session).json()["code"] for session in line]
    assert codes[0] == ErrorCode.INVALID_TOKEN
    assert set(codes) <= {ErrorCode.INVALID_TOKEN, ErrorCode.PERMISSION_DENIED}
    newest = line[-1].refreshed()
    refused(use_the_right(newest), ErrorCode.PERMISSION_DENIED)
    data_of(newest.profile())


def use_the_right(session: Session) -> httpx2.Response:
    return session.client.get("/api/v1/users", headers=bearer(session.access_token))


@pytest.fixture
def open_reader_session(admin: httpx2.Client, open_session: OpenSession) -> OpenSession:
    """Log in as somebody new with a right of a role of their own."""

    def log_in() -> Session:
        role = f"reader-{uuid4().hex}"
        data_of(admin.post("/api/v1/roles", json={"name": role, "permissions": ["user:read"]}), 201)
        session = open_session()
        data_of(admin.put(f"/api/v1/users/{session.account.id}/roles", json={"roles": ["user", role]}))
        data_of(use_the_right(session))
        return session

    return log_in


# --- Interleavings made to happen: the test holds a row until both have come as far as they can


@dataclass(frozen=True)
class Order:
    held: str
    """The table of the row that the test holds."""
    refresh_first: bool


# SQLite has one writer at a time: there they come one after the other.
on_postgres = pytest.mark.parametrize("database_kind", ["postgres"], indirect=True, scope="session")
ORDERS = {
    "refresh, then deed, at the session": Order(SESSION, refresh_first=True),
    "deed, then refresh, at the session": Order(SESSION, refresh_first=False),
    "deed while a refresh is half done": Order(TOKEN, refresh_first=True),
    "refresh while the deed waits for the account": Order(ACCOUNT, refresh_first=False),
    "refresh while the deed is half done": Order(PASSWORD, refresh_first=False),
}
LOCKED_BY_REFRESH = {SESSION, TOKEN}


def reachable(deeds: dict[str, Deed]) -> list[tuple[str, str]]:
    """Whoever comes first waits for the row that is held: else it is over before the other begins."""
    return [
        (deed, order)
        for deed in deeds
        for order, how in ORDERS.items()
        if how.held in (LOCKED_BY_REFRESH if how.refresh_first else deeds[deed].locks)
    ]


_ROWS = {SESSION: "id = $1", TOKEN: "session_id = $1", ACCOUNT: "id = $2", PASSWORD: "user_id = $2"}
# A wait for another transaction is of no database, but who waits holds locks on tables of this one.
_WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks AS waits WHERE NOT granted AND EXISTS (
        SELECT FROM pg_locks AS holds JOIN pg_database ON pg_database.oid = holds.database
        WHERE holds.pid = waits.pid AND datname = current_database()
    )
"""


@dataclass(frozen=True)
class Queue:
    connection: asyncpg.Connection
    threads: ThreadPoolExecutor

    async def waiting(self) -> int:
        count: int = await self.connection.fetchval(_WAITING)
        return count

    async def join(self, call: Callable[[], httpx2.Response]) -> Future[httpx2.Response]:
        """Start the call; it has come as far as it can: it waits for a lock, or it is over."""
        before = await self.waiting()
        started = self.threads.submit(call)

        async def settled() -> bool:
            return started.done() or await self.waiting() > before

        await eventually(settled)
        return started


@asynccontextmanager
async def holding(url: str, table: str, session: Session) -> AsyncIterator[Queue]:
    connection = await asyncpg.connect(url)
    with ThreadPoolExecutor(2) as threads:
        try:
            async with connection.transaction():
                # Both arguments have their type, whichever is used.
                row = f"SELECT FROM {table} WHERE {_ROWS[table]} AND ($1::uuid, $2::uuid) IS NOT NULL FOR UPDATE"
                held = await connection.fetch(row, session_id(session), UUID(session.account.id))
                assert len(held) == 1
                yield Queue(connection, threads)
        finally:
            await connection.close()


async def interleave(
    url: str, order: Order, session: Session, deed: Deed, admin: httpx2.Client
) -> tuple[httpx2.Response, httpx2.Response]:
    """What the refresh and the deed were answered."""
    calls = [session.refresh, lambda: deed.act(session, admin)]
    if not order.refresh_first:
        calls.reverse()
    async with holding(url, order.held, session) as queue:
        first = await queue.join(calls[0])
        assert not first.done(), first.result().text  # it is in the queue, so the other one comes in between
        second = await queue.join(calls[1])
    answers = [await asyncio.wrap_future(call) for call in (first, second)]
    refreshed, done = answers if order.refresh_first else reversed(answers)
    if order.refresh_first:
        data_of(refreshed)
    return refreshed, done


@on_postgres
@pytest.mark.parametrize(("deed", "order"), reachable(ENDING))
async def test_in_whatever_order_nothing_goes_on(
    open_session: OpenSession, admin: httpx2.Client, database_url: str, deed: str, order: str
) -> None:
    session = open_session()

    refreshed, done = await interleave(database_url, ORDERS[order], session, ENDING[deed], admin)

    data_of(done)
    assert_all_ended(after(session, refreshed), database_url)


@on_postgres
@pytest.mark.parametrize(("deed", "order"), reachable(DEMOTING))
async def test_in_whatever_order_the_right_is_gone(
    open_reader_session: OpenSession,
    admin: httpx2.Client,
    database_url: str,
    deed: str,
    order: str,
) -> None:
    session = open_reader_session()

    refreshed, done = await interleave(database_url, ORDERS[order], session, DEMOTING[deed], admin)

    data_of(done)
    assert_demoted(after(session, refreshed))


@on_postgres
@pytest.mark.parametrize(("deed", "order"), reachable(HARMLESS))
async def test_in_whatever_order_what_does_no_harm_ends_nothing(
    open_session: OpenSession, admin: httpx2.Client, database_url: str, deed: str, order: str
) -> None:
    """The positive control of the two above."""
    session = open_session()

    refreshed, done = await interleave(database_url, ORDERS[order], session, HARMLESS[deed], admin)

    data_of(done)
    assert_alive(after(session, refreshed)[1])


# --- As it happens: a line of refreshes, each with what the one before it brought, and the deed somewhere in it


def refresh_on_and_act(session: Session, deed: Deed, admin: httpx2.Client, *, begin_after: int) -> list[Session]:
    """All that the session ever was, until a refresh is refused or the deed was acknowledged before the last one."""
    line, begin, over = [session], Event(), Event()

    def refresh_on() -> None:
        try:
            for _ in range(MOST_REFRESHES):
                if len(line) > begin_after:
                    begin.set()
                last = over.is_set()
                line.extend(after(line[-1], answer := line[-1].refresh())[1:])
                if last or answer.status_code != 200:
                    return
        finally:
            begin.set()

    def act() -> None:
        try:
            assert begin.wait(10)
            data_of(deed.act(session, admin))
        finally:
            over.set()

    at_once([refresh_on, act])
    assert over.is_set()
    assert len(line) > begin_after
    return line


@pytest.mark.parametrize("deed", ENDING)
def test_a_line_of_refreshes_ends_where_its_session_does(
    open_session: OpenSession,
    admin: httpx2.Client,
    database_url: str,
    deed: str,
    tried: Callable[[int], None],
) -> None:
    tried(ROUNDS)
    for turn in range(ROUNDS):
        line = refresh_on_and_act(open_session(), ENDING[deed], admin, begin_after=turn % 4)

        assert_all_ended(line, database_url)


@pytest.mark.parametrize("deed", DEMOTING)
def test_a_line_of_refreshes_carries_no_right_along(
    open_reader_session: OpenSession, admin: httpx2.Client, deed: str, tried: Callable[[int], None]
) -> None:
    tried(ROUNDS)
    for turn in range(ROUNDS):
        line = refresh_on_and_act(open_reader_session(), DEMOTING[deed], admin, begin_after=turn % 4)

        assert_demoted(line)


@pytest.mark.parametrize("deed", HARMLESS)
def test_a_line_of_refreshes_goes_on_beside_what_does_no_harm(
    open_session: OpenSession, admin: httpx2.Client, deed: str, tried: Callable[[int], None]
) -> None:
    tried(ROUNDS)
    for turn in range(ROUNDS):
        line = refresh_on_and_act(open_session(), HARMLESS[deed], admin, begin_after=turn % 4)

        data_of(line[0].profile())
        assert_alive(line[-1])

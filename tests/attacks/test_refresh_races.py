"""One refresh token, presented by many at once, round after round: one successor each, and theft ends it for good."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from secrets import token_urlsafe
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import select
from sqlmodel import col

from src.auth.models import AuthSession, RefreshToken
from src.shared.errors import ErrorCode
from tests.auth.conftest import OpenSession, Session
from tests.auth.test_access_tokens import decoded
from tests.auth.test_sessions import assert_alive, assert_ended
from tests.conftest import PATIENT
from tests.http.wire import connected
from tests.support.answers import at_once, data_of, refused
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.scale import rounds as scaled
from tests.support.server import Server, running_server
from tests.support.tables import execute

pytestmark = pytest.mark.long

REFRESH = "/api/v1/auth/refresh"
JSON = "Content-Type: application/json"
AT_ONCE = 50
# 10,000 refreshes on PostgreSQL; where there is one writer there is less to find.
ROUNDS = scaled(40, full=200)
PARTS = 4  # a minute each at most, on a machine with other things to do


class Told(NamedTuple):
    code: int
    refresh_token: str | None


@pytest.fixture(scope="module")
def database_url(database_kind: Kind) -> Iterator[str]:
    url = fresh_database(database_kind)
    yield url
    drop_database(url)


@pytest.fixture(scope="module")
def servers(database_kind: Kind, database_url: str) -> Iterator[list[Server]]:
    """Two processes on one PostgreSQL, with one secret; SQLite has one process."""
    env = {"DB__URL": database_url, "AUTH__SECRET": token_urlsafe(32), **PATIENT}
    with ExitStack() as stack:
        yield [stack.enter_context(running_server(env)) for _ in range(2 if database_kind == "postgres" else 1)]


@pytest.fixture(scope="module")
def server(servers: list[Server]) -> Server:
    return servers[0]


def race(servers: list[Server], token: str, *, rounds: int) -> list[Counter[Told]]:
    """For each round how often each answer came. A round begins with what the one before it brought, if anything.

    All have asked before the first listens: byte by byte, since a client library costs more than the service.
    """
    heard = []
    with ExitStack() as stack:
        wires = [stack.enter_context(connected(servers[n % len(servers)])) for n in range(AT_ONCE)]
        for _ in range(rounds):
            body = json.dumps({"refresh_token": token}).encode()
            for wire in wires:
                wire.send(f"POST {REFRESH} HTTP/1.1", JSON, f"Content-Length: {len(body)}", body=body)
            heard.append(Counter(told(wire.answer().json()) for wire in wires))
            token = next((successor for _, successor in heard[-1] if successor is not None), token)
    return heard


def told(envelope: dict[str, Any]) -> Told:  # Any: JSON
    return Told(envelope["code"], envelope["data"] and envelope["data"]["refresh_token"])


def family_of(session: Session) -> UUID:
    return UUID(decoded(session.access_token.split(".")[1])["sid"])


def tokens_of(database_url: str, session: Session) -> tuple[int, int]:
    """How many refresh tokens the session ever had, and how many of them were exchanged."""
    found = select(col(RefreshToken.used_at)).where(col(RefreshToken.session_id) == family_of(session))
    exchanged = [used_at is not None for (used_at,) in execute(database_url, found)]
    return len(exchanged), sum(exchanged)


def has_ended(database_url: str, session: Session) -> bool:
    found = select(col(AuthSession.revoked_at)).where(col(AuthSession.id) == family_of(session))
    return execute(database_url, found)[0][0] is not None


@pytest.mark.parametrize("part", range(PARTS))
def test_fifty_at_once_have_one_successor_round_after_round(
    servers: list[Server],
    open_session: OpenSession,
    database_url: str,
    part: int,
    tried: Callable[[int], None],
) -> None:
    session, count = open_session(), (ROUNDS if len(servers) > 1 else ROUNDS // 5) // PARTS
    tried(count)

    rounds = race(servers, session.refresh_token, rounds=count)

    assert [{told.code: count for told, count in answers.items()} for answers in rounds] == [{200: AT_ONCE}] * count
    successors = [told.refresh_token for answers in rounds for told in answers]
    assert len(successors) == count  # in each round all fifty were told the same
    assert len({session.refresh_token, *successors}) == count + 1
    assert tokens_of(database_url, session) == (count + 1, count)
    assert_alive(Session(session.client, session.account, session.access_token, str(successors[-1])))


def test_a_stolen_token_presented_by_fifty_ends_its_session_once_and_for_good(
    servers: list[Server], open_session: OpenSession, database_url: str
) -> None:
    stolen, elsewhere = open_session(), open_session()
    first, again = stolen.refreshed(), stolen.refreshed()
    assert again.refresh_token == first.refresh_token  # so far it is a lost answer
    newest = again.refreshed()
    data_of(newest.profile())
    assert not has_ended(database_url, stolen)

    rounds = race(servers, stolen.refresh_token, rounds=2)

    # Whoever came first was told of the theft, all others find nothing left.
    reused, unknown = Told(ErrorCode.REFRESH_TOKEN_REUSED, None), Told(ErrorCode.INVALID_REFRESH_TOKEN, None)
    assert rounds == [{reused: 1, unknown: AT_ONCE - 1}, {unknown: AT_ONCE}]
    assert has_ended(database_url, stolen)
    for session in (stolen, first, again, newest):
        assert_ended(session)
    assert tokens_of(database_url, stolen) == (3, 2)
    assert_alive(elsewhere)


def test_a_thief_and_the_owner_at_once_leave_one_line_of_tokens_or_none(
    open_session: OpenSession, database_url: str, tried: Callable[[int], None]
) -> None:
    """The thief has the token before the owner's newest: his is a lost answer until the owner goes on, then a theft."""
    turns = 20
    tried(turns)
    for turn in range(turns):
        stolen = open_session()
        newest = stolen.refreshed()
        both: list[Callable[[], httpx2.Response]] = [newest.refresh, stolen.refresh]

        answers = dict(zip((newest, stolen), race_of(both, turn), strict=True))

        if answers[stolen].status_code == 200:
            assert data_of(answers[stolen])["refresh_token"] == newest.refresh_token
            data_of(answers[newest])
        else:
            refused(answers[stolen], ErrorCode.REFRESH_TOKEN_REUSED)
            assert_ended(newest)
        assert has_ended(database_url, stolen) == (answers[stolen].status_code != 200)
        assert tokens_of(database_url, stolen) == (3, 2)


def race_of(calls: list[Callable[[], httpx2.Response]], turn: int) -> list[httpx2.Response]:
    """Each of two is the first to be called in turn."""
    step = 1 if turn % 2 else -1
    return at_once(calls[::step])[::step]

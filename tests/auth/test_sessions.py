"""Sessions: refreshing them, ending them, and what is left of a stolen one."""

from datetime import UTC, datetime, timedelta
from threading import Thread
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.auth.models import AuthSession, RefreshToken
from src.auth.tokens import hash_opaque_token
from src.shared.errors import ErrorCode
from src.shared.types import new_id
from tests.auth.conftest import OpenSession, Session
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.postgres import Kind
from tests.support.tables import execute
from tests.support.waiting import eventually

SESSIONS = "/api/v1/auth/sessions"
REFRESH = "/api/v1/auth/refresh"


def assert_ended(session: Session) -> None:
    refused(session.profile(), ErrorCode.INVALID_TOKEN)
    refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)


def assert_alive(session: Session) -> None:
    data_of(session.profile())
    session.refreshed()


def test_a_refresh_token_is_exchanged_for_its_successor(open_session: OpenSession) -> None:
    session = open_session()

    letter = data_of(session.refresh())

    assert letter.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (letter["token_type"], letter["expires_in"]) == ("bearer", 600)
    assert letter["refresh_token"] != session.refresh_token
    assert len(letter["refresh_token"]) >= 43  # 256 bits
    assert_alive(Session(session.client, session.account, letter["access_token"], letter["refresh_token"]))


def test_a_lost_answer_can_be_asked_for_again_while_its_token_is_unused(open_session: OpenSession) -> None:
    session = open_session()
    first = session.refreshed()

    again = session.refreshed()

    assert again.refresh_token == first.refresh_token
    assert_alive(again)


def test_a_token_whose_successor_was_used_ends_its_session_for_good(open_session: OpenSession) -> None:
    stolen = open_session()
    elsewhere = open_session(stolen.account)
    newest = stolen.refreshed().refreshed()

    refused(stolen.refresh(), ErrorCode.REFRESH_TOKEN_REUSED)

    # The refusal did not roll back what it decided.
    assert_ended(newest)
    refused(stolen.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)
    assert_alive(elsewhere)


def test_a_used_token_is_reuse_when_the_grace_is_over(open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    successor = session.refreshed()
    used_long_ago = datetime.now(UTC) - timedelta(seconds=11)
    execute(
        database_url,
        update(RefreshToken)
        .where(col(RefreshToken.token_hash) == hash_opaque_token(session.refresh_token))
        .values(used_at=used_long_ago),
    )

    refused(session.refresh(), ErrorCode.REFRESH_TOKEN_REUSED)

    assert_ended(successor)


def test_eight_refreshes_at_once_have_one_successor(open_session: OpenSession, database_url: str) -> None:
    session = open_session()

    letters = [data_of(answer) for answer in at_once([session.refresh] * 8)]

    successors = {letter["refresh_token"] for letter in letters}
    assert len(successors) == 1
    family = data_of(session.client.get(SESSIONS, headers=bearer(session.access_token)))[0]["id"]
    made = execute(
        database_url, select(func.count()).select_from(RefreshToken).where(col(RefreshToken.session_id) == UUID(family))
    )
    assert made[0][0] == 2
    assert_alive(Session(session.client, session.account, letters[0]["access_token"], successors.pop()))


def test_an_expired_refresh_token_is_not_valid_and_no_theft(open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    execute(
        database_url,
        update(RefreshToken)
        .where(col(RefreshToken.token_hash) == hash_opaque_token(session.refresh_token))
        .values(expires_at=datetime.now(UTC)),
    )

    refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)

    data_of(session.profile())


def test_a_session_has_an_absolute_end(open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    family = data_of(session.client.get(SESSIONS, headers=bearer(session.access_token)))[0]["id"]
    execute(
        database_url,
        update(AuthSession).where(col(AuthSession.id) == UUID(family)).values(expires_at=datetime.now(UTC)),
    )

    assert_ended(session)


@pytest.mark.parametrize("token", ["A" * 43, "x", "ä€😀", "a b", "." * 512])
def test_an_unknown_refresh_token_is_not_valid(client: httpx2.Client, token: str) -> None:
    answer = client.post(REFRESH, json={"refresh_token": token})

    refused(answer, ErrorCode.INVALID_REFRESH_TOKEN)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["", "x" * 513, None, 7, ["x"]])
def test_what_is_no_refresh_token_is_malformed(client: httpx2.Client, token: object) -> None:
    assert refused_fields(client.post(REFRESH, json={"refresh_token": token})) == {"refresh_token"}


def test_a_log_out_ends_the_session_at_once(open_session: OpenSession) -> None:
    session = open_session()
    elsewhere = open_session(session.account)

    assert data_of(session.log_out()) is None

    assert_ended(session)
    assert_alive(elsewhere)
    assert data_of(session.log_out()) is None


def test_a_log_out_with_an_older_token_ends_the_session_too(open_session: OpenSession) -> None:
    session = open_session()
    newest = session.refreshed()

    data_of(session.log_out())

    assert_ended(newest)


def test_a_log_out_everywhere_ends_all_sessions_of_one_person(open_session: OpenSession) -> None:
    here, somebody_else = open_session(), open_session()
    there = open_session(here.account)

    assert data_of(here.post("logout-all")) is None

    assert_ended(here)
    assert_ended(there)
    assert_alive(somebody_else)
    assert_alive(open_session(here.account))


def test_ones_sessions_are_listed(open_session: OpenSession) -> None:
    here = open_session()
    there = open_session(here.account)
    open_session(here.account).log_out()
    open_session()

    listed = data_of(here.client.get(SESSIONS, headers=bearer(here.access_token) | {"User-Agent": "not recorded"}))

    assert [one.keys() for one in listed] == [
        {"id", "created_at", "last_used_at", "expires_at", "address", "user_agent", "second_factor_at", "current"}
    ] * 2
    assert [one["current"] for one in listed] == [False, True]
    assert {one["address"] for one in listed} == {"127.0.0.1"}
    assert {one["user_agent"] for one in listed} == {here.client.headers["User-Agent"]}
    assert_alive(there)


def test_one_session_can_be_ended_from_another(open_session: OpenSession) -> None:
    here = open_session()
    lost = open_session(here.account)
    listed = data_of(here.client.get(SESSIONS, headers=bearer(here.access_token)))
    lost_id = next(one["id"] for one in listed if not one["current"])

    def end() -> httpx2.Response:
        return here.client.delete(f"{SESSIONS}/{lost_id}", headers=bearer(here.access_token))

    assert data_of(end()) is None

    assert_ended(lost)
    refused(end(), ErrorCode.SESSION_NOT_FOUND)
    assert_alive(here)


def test_somebody_elses_session_does_not_exist(open_session: OpenSession) -> None:
    mine, theirs = open_session(), open_session()
    their_id = data_of(theirs.client.get(SESSIONS, headers=bearer(theirs.access_token)))[0]["id"]

    answers = [
        mine.client.delete(f"{SESSIONS}/{session_id}", headers=bearer(mine.access_token))
        for session_id in (their_id, uuid4())
    ]

    for answer in answers:
        refused(answer, ErrorCode.SESSION_NOT_FOUND)
    assert answers[0].content == answers[1].content
    assert_alive(theirs)


def test_a_disabled_account_has_no_sessions_and_gets_none_back(open_session: OpenSession, admin: httpx2.Client) -> None:
    session = open_session()
    user = f"/api/v1/users/{session.account.id}"

    data_of(admin.patch(user, json={"is_active": False}))
    refused(session.profile(), ErrorCode.INVALID_TOKEN)
    refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)

    data_of(admin.patch(user, json={"is_active": True}))
    assert_ended(session)
    assert_alive(open_session(session.account))


def test_a_deleted_account_has_no_sessions(open_session: OpenSession, admin: httpx2.Client) -> None:
    session = open_session()

    data_of(admin.delete(f"/api/v1/users/{session.account.id}"))

    assert_ended(session)


async def test_a_log_in_that_overlaps_a_log_out_everywhere_does_not_outlive_it(
    open_session: OpenSession, database_kind: Kind, database_url: str
) -> None:
    """The log-in holds its account's lock; whoever ends all sessions must look for them after having that lock."""
    if database_kind == "sqlite":
        pytest.skip("one writer at a time: they cannot overlap")
    session = open_session()
    connection = await asyncpg.connect(database_url)
    log_in = connection.transaction()
    await log_in.start()
    await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", session.account.id)
    opened = new_id()
    await connection.execute(
        "INSERT INTO auth_sessions (id, user_id, created_at, last_used_at, expires_at, address, user_agent)"
        " VALUES ($1, $2, now(), now(), now() + interval '1 day', '', '')",
        opened,
        session.account.id,
    )

    answers: list[httpx2.Response] = []
    log_out = Thread(target=lambda: answers.append(session.post("logout-all")))
    log_out.start()

    async def waits() -> bool:
        found: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        return found

    await eventually(waits)
    await log_in.commit()
    log_out.join()

    data_of(answers[0])
    assert await connection.fetchval("SELECT revoked_at IS NOT NULL FROM auth_sessions WHERE id = $1", opened)
    await connection.close()

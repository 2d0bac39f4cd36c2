"""When who a token stands for is read, when it is remembered, and for whom."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import time
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src import config
from src.auth import dependencies, principals
from src.auth import services as auth
from src.auth.schemas import CreateUserRequest
from src.auth.tokens import AccessClaims, make_access_token, read_access_token
from src.config import AppSettings, AuthSettings, DatabaseSettings, Env, Settings, get_settings
from src.exceptions import BusinessException
from src.shared import watching
from src.shared.database import close_engine, create_engine, get_engine, transaction
from src.shared.leases import CacheLease, keeping_lease
from src.shared.watching import steady_seconds, vouch, watch_of
from src.users import User
from src.users.models import Role, RolePermission, UserRole
from src.users.permissions import Grants
from tests.conftest import PASSWORD
from tests.support.postgres import Kind, drop_database, fresh_database

DEVICE = auth.Device("192.0.2.1", "test")
EVERYTHING = Grants(frozenset({"admin"}), frozenset({"*"}))


@pytest.fixture
async def token(database_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Of somebody with the role `user`, on a database that this process has."""
    await close_engine()
    url = fresh_database(database_kind)
    secret = SecretStr("kY2v8mQ4xT7wR1pN6zB3cD5fG9hJ0lSeUiO")
    settings = Settings(
        app=AppSettings(env=Env.TEST),
        db=DatabaseSettings(url=url),
        auth=AuthSettings(secret=secret, principal_cache_seconds=5),
    )
    monkeypatch.setattr(config, "_current", settings)
    request = CreateUserRequest(email=f"{uuid4().hex}@example.com", password=SecretStr(PASSWORD), roles=["user"])
    await auth.create_user(request, held=EVERYTHING)
    opened = await auth.log_in(request.email, PASSWORD, DEVICE)
    async with keeping_lease(5):
        yield opened.access_token
    await close_engine()
    drop_database(url)


class Reads:
    """Counts them, and holds them back while it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._find = auth.find_account

    async def find_account(self, *given: object) -> object:
        self.begun += 1
        found = await self._find(*given)  # type: ignore[arg-type] # passed on
        await self.may_end.wait()
        return found

    async def begin(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.begun < number:  # noqa: ASYNC110 - a task of ours comes to it
                await asyncio.sleep(0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    monkeypatch.setattr(auth, "find_account", reads.find_account)
    return reads


async def grants(token: str) -> Grants:
    """As a request of its own."""
    async with transaction() as session:
        return await dependencies.grants_or_none(session, token)


def advance() -> None:
    watch_of(get_engine()).generation.advance()


def generation() -> int:
    return watch_of(get_engine()).generation.cell[0]


async def test_it_is_read_once_until_something_changes(token: str, reads: Reads) -> None:
    for _ in range(20):
        assert (await grants(token)).roles == {"user"}
    assert reads.begun == 1

    advance()
    await grants(token)

    assert reads.begun == 2


async def test_all_who_ask_at_once_share_one_read(token: str, reads: Reads) -> None:
    heard = await asyncio.gather(*(grants(token) for _ in range(20)))

    assert reads.begun == 1
    assert {one.roles for one in heard} == {frozenset({"user"})}


async def test_one_who_leaves_does_not_take_the_read_along(token: str, reads: Reads) -> None:
    reads.may_end.clear()
    first, second = asyncio.create_task(grants(token)), asyncio.create_task(grants(token))
    await reads.begin(1)

    first.cancel()
    reads.may_end.set()

    assert (await second).roles == {"user"}
    assert reads.begun == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_nobody_joins_a_read_that_began_before_a_change(token: str, reads: Reads) -> None:
    reads.may_end.clear()
    early = asyncio.create_task(grants(token))
    await reads.begin(1)
    advance()

    late = asyncio.create_task(grants(token))

    await reads.begin(2)
    reads.may_end.set()
    await asyncio.gather(early, late)


async def test_what_an_early_read_found_is_not_remembered(token: str, reads: Reads) -> None:
    reads.may_end.clear()
    early = asyncio.create_task(grants(token))
    await reads.begin(1)
    advance()
    reads.may_end.set()
    await early

    await grants(token)

    assert reads.begun == 2


async def test_a_read_that_outlives_its_lease_is_not_joined(
    token: str, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may have waited it out."""
    reads.may_end.clear()
    early = asyncio.create_task(grants(token))
    await reads.begin(1)
    monkeypatch.setattr(principals, "steady_seconds", lambda: steady_seconds() + 5)
    late = asyncio.create_task(grants(token))
    await reads.begin(2)
    reads.may_end.set()
    await asyncio.gather(early, late)


async def test_what_is_remembered_ends_with_its_lease(
    token: str, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grants(token)
    monkeypatch.setattr(principals, "steady_seconds", lambda: steady_seconds() + 5)

    await grants(token)

    assert reads.begun == 2


@pytest.mark.parametrize("seconds", [601, 91 * 86_400])
async def test_neither_a_token_nor_a_session_outlives_its_end(
    token: str, reads: Reads, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    await grants(token)
    held = principals._remembered()._held[token]
    if seconds > 601:  # a token whose end is not what ends it
        assert isinstance(held.claims, AccessClaims)
        held.claims = replace(held.claims, expires_at=held.claims.expires_at + 2 * seconds)
    monkeypatch.setattr(principals, "time", lambda: time() + seconds)

    async with transaction() as session:
        recalled = principals.recall(session, token)

    assert recalled is None or recalled[1] is None
    assert (recalled is None) is (seconds == 601)


async def test_a_failed_read_fails_for_those_who_waited_and_nobody_else(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as broken:
        broken.setattr(auth, "find_account", fail)
        heard = await asyncio.gather(*(grants(token) for _ in range(3)), return_exceptions=True)

    assert [type(one) for one in heard] == [OSError] * 3
    assert (await grants(token)).roles == {"user"}


async def test_who_is_nobody_is_asked_for_each_time(token: str, reads: Reads) -> None:
    async with transaction() as session:
        user_id = (await dependencies._caller(session, token)).standing.user_id
    async with transaction() as session:
        await auth.log_out_everywhere(session, user_id)

    for _ in range(3):
        with pytest.raises(BusinessException):
            await grants(token)

    assert reads.begun == 4


async def test_a_session_with_changes_of_its_own_sees_them_and_nobody_else_does(token: str, reads: Reads) -> None:
    await grants(token)
    async with transaction() as session:
        await session.execute(delete(UserRole))
        assert (await dependencies.grants_or_none(session, token)).roles == frozenset()
        assert (await grants(token)).roles == {"user"}
        await session.rollback()
    assert (await grants(token)).roles == {"user"}


async def test_a_role_that_was_never_committed_is_not_remembered(token: str) -> None:
    async with transaction() as session:
        role_id = (await session.execute(select(col(Role.id)).where(col(Role.name) == "user"))).scalar_one()
        session.add(RolePermission(role_id=role_id, permission="*"))
        await session.flush()
        assert (await dependencies.grants_or_none(session, token)).permissions == {"*"}
        assert (await grants(token)).permissions == frozenset()
        await session.rollback()

    assert (await grants(token)).permissions == frozenset()


async def test_a_session_on_another_database_is_none_of_ours(token: str, reads: Reads) -> None:
    await grants(token)
    other = create_engine(get_settings())
    try:
        async with AsyncSession(other) as session:
            for _ in range(2):
                await dependencies.grants_or_none(session, token)
    finally:
        await other.dispose()

    assert reads.begun == 3


async def test_other_settings_remember_nothing_of_these(
    token: str, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grants(token)
    other = SecretStr("another-Secret-of-32-bytes-4f6a8c0e2")
    changed = get_settings().auth.model_copy(update={"secret": other})
    monkeypatch.setattr(config, "_current", get_settings().model_copy(update={"auth": changed}))

    with pytest.raises(BusinessException):
        await grants(token)


async def test_a_process_remembers_so_many_and_no_more(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principals, "_MOST_TOKENS", 2)
    claims = read_access_token(token)
    assert claims is not None

    for _ in range(5):
        await grants(make_access_token(claims.user_id, claims.session_id, claims.auth_epoch, key_id=claims.key_id))

    assert len(principals._remembered()._held) == 2


# --- What makes others read again


async def _log_in(token: str) -> None:
    async with transaction() as session:
        user = await dependencies.current_user(await dependencies._caller(session, token), session)
        email = user.email
    opened = await auth.log_in(email, PASSWORD, DEVICE)
    await auth.refresh(opened.refresh_token, DEVICE)


async def _roll_back(_: str) -> None:
    async with transaction() as session:
        await session.execute(delete(UserRole))
        await session.rollback()


async def _fail(_: str) -> None:
    async with get_engine().connect() as connection:
        await connection.execute(delete(UserRole).where(col(UserRole.user_id).is_(None)))


async def _commit_by_text(_: str) -> None:
    async with get_engine().connect() as connection:
        await connection.execute(delete(UserRole).where(col(UserRole.user_id).is_(None)))
        await connection.execute(text("COMMIT"))


async def _vouch(_: str) -> None:
    async with transaction() as session:
        await vouch(session)


@pytest.mark.parametrize(
    ("deed", "counts"), [(_log_in, False), (_roll_back, True), (_fail, True), (_commit_by_text, True), (_vouch, True)]
)
async def test_what_makes_others_read_again(token: str, deed: Callable[[str], Awaitable[None]], counts: bool) -> None:  # noqa: FBT001 - a column
    before = generation()

    await deed(token)

    assert (generation() != before) is counts


# --- Who waits for another machine


@pytest.fixture
def waits(token: str, database_kind: Kind, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of this process, which come to an end at once."""
    if database_kind == "sqlite":
        pytest.skip("a file is on one machine")
    waits: list[float] = []

    async def wait(deadline: float) -> None:
        waits.append(deadline - steady_seconds())

    monkeypatch.setattr(watching, "_sleep_until", wait)
    return waits


async def lease(domain: UUID, *, seconds: float = 2, age_seconds: float = 0) -> None:
    async with transaction() as session:
        renewed_at = datetime.now(UTC) - timedelta(seconds=age_seconds)
        session.add(CacheLease(id=uuid4(), domain=domain, lease_seconds=seconds, renewed_at=renewed_at))


_NOBODY = delete(UserRole).where(col(UserRole.user_id).is_(None))


async def _in_a_transaction() -> None:
    async with transaction() as session:
        await session.execute(_NOBODY)


async def _with_a_commit_of_its_own_and_a_refusal() -> None:
    with suppress(LookupError):
        async with transaction() as session:
            await session.execute(_NOBODY)
            await session.commit()
            raise LookupError


async def _in_a_session_of_a_team() -> None:
    async with AsyncSession(get_engine()) as session:
        await session.execute(_NOBODY)
        await session.commit()


async def _without_a_session_where_one_was_before() -> None:
    async with transaction() as session:
        await session.execute(text("SELECT 1"))
    async with get_engine().begin() as connection:
        await connection.execute(_NOBODY)


async def _by_itself() -> None:
    async with get_engine().connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(_NOBODY)


async def _by_somebody_who_did_not_see_it_through() -> None:
    with suppress(LookupError):
        async with transaction() as session:
            await vouch(session)
            raise LookupError


@pytest.mark.parametrize(
    "take_away",
    [
        _in_a_transaction,
        _with_a_commit_of_its_own_and_a_refusal,
        _in_a_session_of_a_team,
        _without_a_session_where_one_was_before,
        _by_itself,
        _by_somebody_who_did_not_see_it_through,
    ],
)
async def test_who_takes_away_waits_for_the_longest_lease_elsewhere(
    waits: list[float], take_away: Callable[[], Awaitable[None]]
) -> None:
    await lease(uuid4(), seconds=1)
    await lease(uuid4(), seconds=2, age_seconds=15)
    assert waits == []

    await take_away()

    assert waits
    assert 2 < max(waits) < 3


@pytest.mark.parametrize(("domain", "age_seconds"), [(None, 0), (uuid4(), 25)])
async def test_nobody_waits_for_those_who_share_the_memory_or_are_gone(
    waits: list[float], domain: UUID | None, age_seconds: float
) -> None:
    await lease(domain or watch_of(get_engine()).generation.domain, age_seconds=age_seconds)

    await _in_a_transaction()

    assert waits == []


async def test_who_takes_nothing_away_does_not_wait(waits: list[float], token: str) -> None:
    await lease(uuid4())

    await _log_in(token)
    async with transaction() as session:
        await session.execute(_NOBODY)
        await session.rollback()

    assert waits == []


async def _user(session: AsyncSession, token: str) -> User:
    return await dependencies.current_user(await dependencies._caller(session, token), session)


async def test_an_account_that_somebody_kept_is_not_handed_to_the_next(token: str) -> None:
    async with transaction() as session:
        kept = await _user(session, token)

    async with transaction() as first, transaction() as second:
        others = [await _user(first, token), await _user(second, token)]

    assert len({id(user) for user in (kept, *others)}) == 3
    assert {user.id for user in others} == {kept.id}


async def test_what_a_request_did_to_its_account_ends_with_it(token: str) -> None:
    async with transaction() as session:
        before = (await _user(session, token)).email
    for change in (lambda user: setattr(user, "email", "changed@example.com"), lambda user: user.__dict__.pop("email")):
        with suppress(RuntimeError):
            async with transaction() as session:
                change(await _user(session, token))
                raise RuntimeError("a refusal")

        async with transaction() as session:
            assert (await _user(session, token)).email == before

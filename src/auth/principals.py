"""Who a token stands for, remembered: no read of the database while nobody was deprived of anything.

Nothing is accepted after its removal was acknowledged: see docs/decisions/0016.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from sys import getrefcount
from time import time
from typing import Any, Final
from uuid import UUID

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.types import TypeEngine

from src.auth import services as auth
from src.auth.tokens import Claims, KeyClaims, read_token
from src.config import Settings, get_settings
from src.shared.database import get_engine, transaction
from src.shared.lane import LaneSession
from src.shared.watching import Effect, WatchedTable, real_session, steady_seconds, watch_of, watch_tables
from src.users import User
from src.users.permissions import Grants

# A log-in and a registration make rows that nobody can remember yet, and a refresh only notes when it was: none of them
# makes others read again, or waits for another machine.
watch_tables(
    WatchedTable("users"),
    WatchedTable("roles"),
    WatchedTable("role_permissions", new_rows=Effect.GIVES),
    WatchedTable("user_roles", new_rows=Effect.GIVES),
    WatchedTable("auth_sessions", idle_columns=("last_used_at", "address")),
    WatchedTable("api_keys", idle_columns=("last_used_at", "last_used_address")),
    WatchedTable("signing_keys"),
)

_MOST_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """In what capacity an account calls."""

    subject: str
    user_id: UUID
    """The same."""
    session_id: UUID | None
    key_id: UUID | None
    """One of the two."""
    second_factor_at: float | None
    """Seconds since 1970; when one was last proven in the session."""

    @classmethod
    def of(cls, account: auth.Account) -> "Standing":
        user_id, proven_at, key = account.user.id, account.second_factor_at, account.key
        return cls(
            str(user_id),
            user_id,
            account.session_id,
            None if key is None else key.id,
            None if proven_at is None else proven_at.timestamp(),
        )


@dataclass(slots=True)
class Principal:
    """An account as it was read, and how long that may be acted upon."""

    key: Any  # Any: SQLAlchemy's name of the row
    values: dict[str, Any]  # Any: of its columns
    standing: "Standing"
    grants: Grants
    ends_at: float
    """The session, or the key."""
    generation: int
    expires_at: float
    """By `steady_seconds`."""
    spare: User | None = None
    """The instance of the last request: if nobody has kept it, it serves the next one as well."""
    as_made: dict[str, Any] | None = None  # Any: as above
    """All that was in it at first."""


class _Held:
    """What is known of one token."""

    __slots__ = ("claims", "flight", "principal")

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.principal: Principal | None = None
        self.flight: _Flight | None = None


@dataclass(frozen=True, slots=True)
class _Flight:
    task: asyncio.Task[Principal | None]
    generation: int
    expires_at: float


class _Memory:
    """What a process remembers under the settings and on the engine that are in force."""

    def __init__(self, settings: Settings, engine: AsyncEngine) -> None:
        self.settings, self.engine = settings, engine
        self.watch = watch_of(engine)
        self.cell = self.watch.generation.cell
        self.can_revive = _can_be_revived()
        self.lease_seconds = settings.auth.principal_cache_seconds if self.can_revive else 0.0
        self._held: dict[str, _Held] = {}

    def recall(self, token: str, now: float) -> _Held | None:
        """None for what is not a token of ours, or is one no more."""
        held = self._held.get(token)
        if held is None:
            claims = read_token(token)
            if claims is None:
                return None
            held = _Held(claims)
            # Keys that look like one can be made up by thousands: they would push out what is remembered.
            if not isinstance(claims, KeyClaims):
                self.keep(token, held)
        elif not held.claims.are_current(now):
            del self._held[token]
            return None
        return held

    def keep(self, token: str, held: _Held) -> None:
        if len(self._held) >= _MOST_TOKENS:
            del self._held[next(iter(self._held))]
        self._held[token] = held


_memory: _Memory | None = None


def _remembered() -> _Memory:
    global _memory  # noqa: PLW0603 - of the process, as its settings and its engine are
    settings, engine = get_settings(), get_engine()
    if _memory is None or _memory.settings is not settings or _memory.engine is not engine:
        _memory = _Memory(settings, engine)
    return _memory


def recall(session: AsyncSession, token: str) -> tuple[Claims, Principal | None] | None:
    """What needs no reading: the claims of a token that is ours and current, and who it stands for if that is known to
    be so still. None for any other token."""
    memory = _remembered()
    now = time()
    held = memory.recall(token, now)
    if held is None:
        return None
    principal = held.principal
    if (
        principal is not None
        and principal.generation == memory.cell[0]
        and steady_seconds() < principal.expires_at
        and now < principal.ends_at
        and _sees_what_all_see(session, memory)
    ):
        return held.claims, principal
    return held.claims, None


async def find_principal(session: AsyncSession, token: str) -> Principal | None:
    """Read, once for all who ask at this moment if it may be remembered. None when the account or the session ended, or
    when not `may_read_beside`."""
    memory = _remembered()
    held = memory.recall(token, time())
    if held is None or not may_read_beside(session):
        return None
    if not may_remember():
        return await _read(held, memory.cell[0], expires_at=float("-inf"))
    # The generation first: what changes it was committed before, so what is read below knows of it.
    generation, now = memory.cell[0], steady_seconds()
    flight = held.flight
    # Older ones may have read before a change that was acknowledged since.
    if (
        flight is None
        or flight.generation != generation
        or now >= flight.expires_at
        or flight.task.get_loop() is not asyncio.get_running_loop()
    ):
        expires_at = min(now + memory.lease_seconds, memory.watch.trusted_until)
        task = asyncio.create_task(_read(held, generation, expires_at))
        flight = held.flight = _Flight(task, generation, expires_at)
        task.add_done_callback(lambda _: _landed(held, flight))
    # Not `await task`: one that is cancelled would cancel it for all.
    await asyncio.wait((flight.task,))
    principal = flight.task.result()
    if principal is not None and isinstance(held.claims, KeyClaims):
        memory.keep(token, held)
    return principal


def _landed(held: _Held, flight: _Flight) -> None:
    if held.flight is flight:
        held.flight = None
    if not flight.task.cancelled():
        flight.task.exception()  # seen here, so that asyncio does not log it when nobody waits any more


async def _read(held: _Held, generation: int, expires_at: float) -> Principal | None:
    # Not in the session of the request: that may be cancelled, and others wait.
    async with transaction() as session:
        account = await auth.find_account(session, held.claims)
        if account is None:
            return None
        grants = await auth.get_grants(session, account)
    user = account.user
    held.principal = Principal(
        instance_state(user).key,
        _values(user),
        Standing.of(account),
        grants,
        account.ends_at.timestamp(),
        generation,
        expires_at,
    )
    return held.principal


def may_read_beside(session: AsyncSession) -> bool:
    """Whether who calls can be read on another connection than the request's own, which is then free for those who wait."""
    memory = _remembered()
    return (
        memory.can_revive
        and _sees_what_all_see(session, memory)
        # A request that holds one and waits for a second blocks others like it.
        and not _holds_connection(session)
    )


def may_remember() -> bool:
    """Whether something read now may be acted upon by the next request."""
    memory = _remembered()
    return memory.lease_seconds > 0 and steady_seconds() < memory.watch.trusted_until


def _sees_what_all_see(session: AsyncSession, memory: _Memory) -> bool:
    """Not so a session on another database, in somebody's tests for instance, or one with changes of its own."""
    if isinstance(session, LaneSession) and not session.is_real:
        return session.lane.engine is memory.engine
    real = real_session(session)
    if real is None or real.bind is not memory.engine.sync_engine:
        return False
    return not real.in_transaction() or not (real.touched or real.new or real.dirty or real.deleted)


def _holds_connection(session: AsyncSession) -> bool:
    if isinstance(session, LaneSession) and not session.is_real:
        return session.holds_connection
    real = real_session(session)
    return real is not None and real.in_transaction()


_MAPPER: Final[Mapper[User]] = inspect(User)


def _can_be_revived() -> bool:
    """Whether a row of columns is all that makes a `User`: not with eager relationships or listeners for its loading."""
    # A value that can change in place would carry what one request did to it into the next.
    if not all(_stays_as_it_is(column.type) for column in _MAPPER.columns):
        return False
    return not _MAPPER.class_manager.dispatch.load and all(
        relationship.lazy in ("select", "raise", "raise_on_sql", "noload", "dynamic", "write_only", True)
        for relationship in _MAPPER.relationships
    )


def _stays_as_it_is(kind: TypeEngine[Any]) -> bool:  # Any: of whatever column
    try:
        return not issubclass(kind.python_type, dict | list | set | bytearray)
    except NotImplementedError:  # SQLAlchemy's answer for a type that stands for none of Python's
        return False


def _values(user: User) -> dict[str, Any]:  # Any: as in Principal
    loaded = instance_state(user).dict
    return {name: loaded[name] for name in _MAPPER.column_attrs.keys() if name in loaded}  # noqa: SIM118 - no mapping


# The principal's, the name here, and the argument of `getrefcount` itself.
_NOBODY_ELSE: Final = 3


def _is_as_made(user: User, principal: Principal) -> bool:
    """No session has it, and no request changed it."""
    state = instance_state(user)
    return (
        user.__dict__ == principal.as_made
        and not state.modified
        and state.session_id is None
        and state.key is principal.key
    )


def revive(session: AsyncSession, principal: Principal) -> User:
    """The account as if it had been loaded in this session: changed there, it is written by the session's commit."""
    user = principal.spare
    # Never one for two: whoever still holds it, in a request under way or in a closure, keeps it for himself.
    if user is None or getrefcount(user) > _NOBODY_ELSE or not _is_as_made(user, principal):
        user = principal.spare = _MAPPER.class_manager.new_instance()
        # What `make_transient_to_detached` does: nothing was set, so there are no changes to forget.
        state = instance_state(user)
        state.dict.update(principal.values)
        state.key = principal.key
        principal.as_made = state.dict.copy()
    adopt: Callable[[User], User] | None = getattr(session, "adopt", None)
    if adopt is not None:
        return adopt(user)
    known: User | None = session.identity_map.get(principal.key)
    if known is None:
        session.add(user)
    return user if known is None else known

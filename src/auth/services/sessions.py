"""Log-in, refresh, log-out, and the list of one's sessions."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy import delete, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import passwords, throttle, tokens
from src.auth.models import AuthSession, Credential, RefreshToken
from src.auth.schemas import SessionResponse, TokenResponse
from src.auth.services.accounts import end_sessions, lock_account, may_log_in
from src.auth.services.devices import Device
from src.auth.services.keys import current_key_id, is_in_use
from src.auth.tokens import AccessClaims
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users import User
from src.users import services as users
from src.users.schemas import email_key

_PLACES: Final = 100
_KEPT_FOR: Final = timedelta(days=30)


async def log_in(name: str, password: str, device: Device) -> TokenResponse:
    """One answer and one cost for unknown, wrong, empty, disabled and unverified. Refused: INVALID_CREDENTIALS.

    No transaction is open while argon2 runs.
    """
    async with transaction() as session:
        user = await users.find_user_by_login(session, name)
        # Asked for nobody too: it takes the same time.
        user_id = None if user is None else user.id
        stored = await _password_hash(session, user_id)
    account = email_key(name)
    async with passwords.turn():
        # Asked when it is our turn, so that a thousand guesses at once are not a thousand guesses.
        await throttle.refuse_exhausted_login(account, device.address)
        await _refuse_strangers(user_id, device.address)
        right, fresh_hash = await passwords.verify_password(password, stored)
        refused = not right or user is None or stored is None or not may_log_in(user)
        reached = await throttle.count_failed_login(account, device.address) if refused else []
    if refused:
        await _note_refusal(account, user_id, reached)
        raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
    await throttle.spend_login(device.address)
    assert user is not None
    async with transaction() as session:
        # Under the account's lock: a disable or a password change that came meanwhile wins.
        current = await lock_account(session, user.id)
        if current is None or not may_log_in(current) or current.auth_epoch != user.auth_epoch:
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
        if fresh_hash is not None:
            await _store_hash(session, user.id, fresh_hash)
        return await _open_session(session, current, device)


async def _password_hash(session: AsyncSession, user_id: UUID | None) -> str | None:
    stored: str | None = (
        await session.execute(select(Credential.password_hash).where(Credential.user_id == user_id))
    ).scalar_one_or_none()
    return stored


async def _refuse_strangers(user_id: UUID | None, address: str) -> None:
    """While the whole world guesses, an account is open where somebody logged in to it before. Refused: TOO_MANY_ATTEMPTS."""
    try:
        await throttle.refuse_exhausted_overall()
    except BusinessException:
        async with transaction() as session:
            places = select(AuthSession.address).where(AuthSession.user_id == user_id).distinct().limit(_PLACES)
            known = {throttle.prefix_of(place) for place in (await session.execute(places)).scalars()}
        if throttle.prefix_of(address) not in known:
            raise


async def _note_refusal(account: str, user_id: UUID | None, reached: list[str]) -> None:
    """A name that nobody has is noted as what cannot be read: people type passwords into the wrong field."""
    target: tuple[str, UUID | str] = ("name", pseudonym(account)) if user_id is None else ("user", user_id)
    # What is refused from now on is not noted one by one: an attack would write as fast as it can ask.
    await audit.record_alone("login.refused", target=target, after={"limits_reached": reached} if reached else None)


async def _store_hash(session: AsyncSession, user_id: UUID, password_hash: str) -> None:
    await session.execute(
        update(Credential).where(col(Credential.user_id) == user_id).values(password_hash=password_hash)
    )


async def _open_session(session: AsyncSession, user: User, device: Device) -> TokenResponse:
    auth, now, token = get_settings().auth, datetime.now(UTC), tokens.new_opaque_token()
    opened = AuthSession(
        user_id=user.id,
        expires_at=now + timedelta(seconds=auth.session_ttl_seconds),
        address=device.address[:45],
        user_agent=device.user_agent[:255],
    )
    session.add(opened)
    await session.flush()
    session.add(_refresh_row(token, opened, now))
    await audit.record(
        session, "login.accepted", target=("user", user.id), after={"session_id": str(opened.id)}, actor_id=user.id
    )
    return _letter(user, opened.id, token, await current_key_id(session))


def _refresh_row(token: str, family: AuthSession, now: datetime) -> RefreshToken:
    idle = now + timedelta(seconds=get_settings().auth.refresh_token_ttl_seconds)
    return RefreshToken(
        token_hash=tokens.hash_opaque_token(token), session_id=family.id, expires_at=min(idle, family.expires_at)
    )


def _letter(user: User, session_id: UUID, refresh_token: str, key_id: str) -> TokenResponse:
    return TokenResponse(
        access_token=tokens.make_access_token(user.id, session_id, user.auth_epoch, key_id=key_id),
        refresh_token=refresh_token,
        expires_in=get_settings().auth.access_token_ttl_seconds,
    )


async def refresh(token: str, device: Device) -> TokenResponse:
    """Exchange a refresh token for its successor. Refused: TOO_MANY_ATTEMPTS, INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED.

    Opens its own transaction: that a reused token ends its session must survive the refusal.
    """
    await throttle.spend_login(device.address)
    async with transaction() as session:
        outcome = await _exchange(session, token, device)
    if isinstance(outcome, ErrorCode):
        raise BusinessException(outcome)
    return outcome


async def _exchange(session: AsyncSession, token: str, device: Device) -> TokenResponse | ErrorCode:
    token_hash = tokens.hash_opaque_token(token)
    family_id = (
        await session.execute(select(RefreshToken.session_id).where(RefreshToken.token_hash == token_hash))
    ).scalar_one_or_none()
    if family_id is None:
        return ErrorCode.INVALID_REFRESH_TOKEN
    family = await _lock_session(session, family_id)
    now = datetime.now(UTC)
    if family is None or family.revoked_at is not None or family.expires_at <= now:
        return ErrorCode.INVALID_REFRESH_TOKEN
    user = await session.get(User, family.user_id)
    if user is None or not may_log_in(user):
        return ErrorCode.INVALID_REFRESH_TOKEN
    successor = tokens.succeed(token)
    consumed = await session.execute(
        update(RefreshToken)
        .where(
            col(RefreshToken.token_hash) == token_hash,
            col(RefreshToken.used_at).is_(None),
            col(RefreshToken.expires_at) > now,
        )
        .values(used_at=now)
        .returning(col(RefreshToken.token_hash))
    )
    if consumed.scalar_one_or_none() is not None:
        session.add(_refresh_row(successor, family, now))
        family.last_used_at, family.address = now, device.address[:45]
    elif not await _lost_answer(session, token_hash, successor, now):
        return await _end_if_reused(session, family, token_hash, now)
    return _letter(user, family.id, successor, await current_key_id(session))


async def _lost_answer(session: AsyncSession, token_hash: str, successor: str, now: datetime) -> bool:
    """Used a moment ago, and what came of it was not used yet: the client did not get our answer."""
    grace = now - timedelta(seconds=get_settings().auth.refresh_grace_seconds)
    used_at = await _used_at(session, token_hash)
    next_row = await session.get(RefreshToken, tokens.hash_opaque_token(successor))
    return used_at is not None and used_at > grace and next_row is not None and next_row.used_at is None


async def _used_at(session: AsyncSession, token_hash: str) -> datetime | None:
    used_at: datetime | None = (
        await session.execute(select(RefreshToken.used_at).where(RefreshToken.token_hash == token_hash))
    ).scalar_one()
    return used_at


async def _end_if_reused(session: AsyncSession, family: AuthSession, token_hash: str, now: datetime) -> ErrorCode:
    if await _used_at(session, token_hash) is None:
        # Never exchanged: it has only expired.
        return ErrorCode.INVALID_REFRESH_TOKEN
    family.revoked_at = now
    logger.bind(session_id=str(family.id), user_id=str(family.user_id)).warning("Refresh token reused, session ended")
    await audit.record(
        session,
        "refresh.reused",
        target=("session", family.id),
        after={"user_id": str(family.user_id)},
        outcome="refused",
    )
    return ErrorCode.REFRESH_TOKEN_REUSED


async def _lock_session(session: AsyncSession, session_id: UUID) -> AuthSession | None:
    locked = select(AuthSession).where(AuthSession.id == session_id).with_for_update()
    return (await session.execute(locked)).scalar_one_or_none()


async def log_out(session: AsyncSession, token: str) -> None:
    """End the session of this refresh token. An unknown one is no error: what it asks for is true already."""
    family = select(RefreshToken.session_id).where(RefreshToken.token_hash == tokens.hash_opaque_token(token))
    ended = await session.execute(
        update(AuthSession)
        .where(col(AuthSession.id).in_(family), col(AuthSession.revoked_at).is_(None))
        .values(revoked_at=datetime.now(UTC))
        .returning(col(AuthSession.id), col(AuthSession.user_id))
    )
    for session_id, user_id in ended.all():
        await audit.record(session, "session.ended", target=("session", session_id), actor_id=user_id)


async def log_out_everywhere(session: AsyncSession, user_id: UUID) -> None:
    await end_sessions(session, user_id)
    await audit.record(session, "sessions.ended", target=("user", user_id))


async def end_sessions_of(session: AsyncSession, user_id: UUID) -> None:
    """Of somebody else. Refused: USER_NOT_FOUND."""
    await users.get_user(session, user_id)
    await log_out_everywhere(session, user_id)


async def list_sessions(session: AsyncSession, user_id: UUID, *, current: UUID) -> list[SessionResponse]:
    alive = (
        select(AuthSession)
        .where(
            AuthSession.user_id == user_id,
            col(AuthSession.revoked_at).is_(None),
            AuthSession.expires_at > datetime.now(UTC),
        )
        .order_by(col(AuthSession.last_used_at).desc(), col(AuthSession.id))
        .limit(100)
    )
    rows = (await session.execute(alive)).scalars()
    return [
        SessionResponse(**row.model_dump(exclude={"user_id", "revoked_at"}), current=row.id == current) for row in rows
    ]


async def end_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> None:
    """Refused: SESSION_NOT_FOUND, also for somebody else's."""
    ended = await session.execute(
        update(AuthSession)
        .where(
            col(AuthSession.id) == session_id,
            col(AuthSession.user_id) == user_id,
            col(AuthSession.revoked_at).is_(None),
        )
        .values(revoked_at=datetime.now(UTC))
        .returning(col(AuthSession.id))
    )
    if ended.scalar_one_or_none() is None:
        raise BusinessException(ErrorCode.SESSION_NOT_FOUND)
    await audit.record(session, "session.ended", target=("session", session_id))


async def find_account(session: AsyncSession, claims: AccessClaims) -> tuple[User, datetime] | None:
    """The account behind a token and the end of its session, if neither ended before: one indexed read."""
    query = (
        select(User, AuthSession.expires_at)
        .join(AuthSession, col(AuthSession.user_id) == User.id)
        .where(
            User.id == claims.user_id,
            col(User.is_active),
            User.auth_epoch == claims.auth_epoch,
            AuthSession.id == claims.session_id,
            col(AuthSession.revoked_at).is_(None),
            AuthSession.expires_at > datetime.now(UTC),
            is_in_use(claims.key_id),
        )
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1])


async def sweep(session: AsyncSession) -> int:
    """Forget sessions that ended a month ago, with their tokens; how many there were."""
    old = datetime.now(UTC) - _KEPT_FOR
    swept = await session.execute(
        delete(AuthSession)
        .where(or_(col(AuthSession.expires_at) < old, col(AuthSession.revoked_at) < old))
        .returning(col(AuthSession.id))
    )
    return len(swept.all())

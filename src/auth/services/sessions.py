"""Log-in, log-out, and the list of one's sessions."""

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy import delete, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import passwords, throttle, tokens
from src.auth.models import AuthSession, Credential, RefreshToken
from src.auth.schemas import SessionResponse, TokenResponse
from src.auth.services.accounts import end_sessions, even_out, lock_account, may_log_in
from src.auth.services.devices import Device
from src.auth.services.keys import current_key_id, is_in_use
from src.auth.services.refreshing import idle_end, token_letter
from src.auth.tokens import AccessClaims
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users import User
from src.users import services as users
from src.users.permissions import Grants
from src.users.schemas import email_key

_PLACES: Final = 100
_KEPT_FOR: Final = timedelta(days=30)


async def log_in(name: str, password: str, device: Device) -> TokenResponse:
    """One answer and one cost for unknown, wrong, empty, disabled and unverified.

    Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS.
    """
    began = monotonic()
    try:
        user, fresh_hash = await _check_password(name, password, device)
    except BusinessException:
        await even_out(began)
        raise
    await throttle.spend_login(device.address)
    async with transaction() as session:
        # Under the account's lock: a disable or a password change that came meanwhile wins.
        current = await lock_account(session, user.id)
        if current is None or not _may_log_in(current) or current.auth_epoch != user.auth_epoch:
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
        if fresh_hash is not None:
            await _store_hash(session, user.id, fresh_hash)
        return await _open_session(session, current, device)


async def _check_password(name: str, password: str, device: Device) -> tuple[User, str | None]:
    """The account, and its fresh hash if the stored one is of older parameters. No transaction is open while argon2 runs."""
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
        if right and user is not None and stored is not None and _may_log_in(user):
            return user, fresh_hash
        reached = await throttle.count_failed_login(account, device.address)
    await _note_refusal(account, user_id, reached)
    raise BusinessException(ErrorCode.INVALID_CREDENTIALS)


def _may_log_in(user: User) -> bool:
    return may_log_in(is_active=user.is_active, is_verified=user.is_verified)


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
    session.add(
        RefreshToken(
            token_hash=tokens.hash_opaque_token(token),
            session_id=opened.id,
            expires_at=idle_end(now, session_ends_at=opened.expires_at),
        )
    )
    await audit.record(
        session, "login.accepted", target=("user", user.id), after={"session_id": str(opened.id)}, actor_id=user.id
    )
    key_id = await current_key_id(session)
    return token_letter(
        tokens.make_access_token(user.id, opened.id, user.auth_epoch, key_id=key_id), refresh_token=token
    )


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


async def end_sessions_of(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """Of somebody else. Refused: USER_NOT_FOUND, GRANT_NOT_HELD."""
    await users.get_user(session, user_id)
    await users.refuse_reaching_over(session, user_id, held)
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

"""Sessions: opening them, ending them, and the list of one's own."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.audit.services import Facts
from src.auth import tokens
from src.auth.models import AuthSession, RefreshToken, SecondFactorMethod
from src.auth.schemas import SessionResponse, TokenResponse
from src.auth.services.accounts import end_sessions
from src.auth.services.devices import Device
from src.auth.services.keys import current_key_id
from src.auth.services.refreshing import idle_end, token_letter
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.users import User
from src.users import services as users
from src.users.permissions import Grants

_KEPT_FOR: Final = timedelta(days=30)


async def open_session(
    session: AsyncSession,
    user: User,
    device: Device,
    *,
    second_factor: SecondFactorMethod | None,
    provider: str | None = None,
) -> TokenResponse:
    """Of an account that is locked; `second_factor` is what was proven besides the password, `provider` who said who it is
    instead of it."""
    auth, now, token = get_settings().auth, datetime.now(UTC), tokens.new_opaque_token()
    opened = AuthSession(
        user_id=user.id,
        expires_at=now + timedelta(seconds=auth.session_ttl_seconds),
        second_factor_at=None if second_factor is None else now,
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
    facts: Facts = {"session_id": str(opened.id)}
    if second_factor is not None:
        facts = {**facts, "second_factor": second_factor.value}
    if provider is not None:
        facts = {**facts, "provider": provider}
    await audit.record(session, "login.accepted", target=("user", user.id), after=facts, actor_id=user.id)
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


async def sweep(session: AsyncSession) -> int:
    """Forget sessions that ended a month ago, with their tokens; how many there were."""
    old = datetime.now(UTC) - _KEPT_FOR
    swept = await session.execute(
        delete(AuthSession)
        .where(or_(col(AuthSession.expires_at) < old, col(AuthSession.revoked_at) < old))
        .returning(col(AuthSession.id))
    )
    return len(swept.all())

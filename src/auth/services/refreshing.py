"""Refreshing a session: the one thing that each client does every few minutes, in as few statements as it takes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy import bindparam, insert, update
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import throttle, tokens
from src.auth.models import AuthSession, RefreshToken
from src.auth.schemas import TokenResponse
from src.auth.services.accounts import may_log_in
from src.auth.services.devices import Device
from src.auth.services.keys import current_key_id
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.lane import fetch_all, later, prepared, table_of
from src.users import User


@dataclass(frozen=True, slots=True)
class _Family:
    """A session, locked."""

    id: UUID
    user_id: UUID
    expires_at: datetime
    revoked_at: datetime | None


_TOKENS, _SESSIONS, _USERS = table_of(RefreshToken), table_of(AuthSession), table_of(User)
_hash = bindparam("its_hash", type_=_TOKENS.c.token_hash.type)
_LOCK_FAMILY: Final = prepared(
    select_columns(_SESSIONS.c.id, _SESSIONS.c.user_id, _SESSIONS.c.expires_at, _SESSIONS.c.revoked_at)
    .join(_TOKENS, _TOKENS.c.session_id == _SESSIONS.c.id)
    .where(_TOKENS.c.token_hash == _hash)
    .with_for_update(of=_SESSIONS)
)
_ACCOUNT: Final = prepared(
    select_columns(_USERS.c.is_active, _USERS.c.is_verified, _USERS.c.auth_epoch).where(
        _USERS.c.id == bindparam("user_id", type_=_USERS.c.id.type)
    )
)
_CONSUME: Final = prepared(
    update(_TOKENS)
    .where(
        _TOKENS.c.token_hash == _hash,
        _TOKENS.c.used_at.is_(None),
        _TOKENS.c.expires_at > bindparam("now", type_=_TOKENS.c.expires_at.type),
    )
    .values(used_at=bindparam("moment", type_=_TOKENS.c.used_at.type))
    .returning(_TOKENS.c.token_hash)
)
_SUCCEED: Final = prepared(
    insert(_TOKENS).values({name: bindparam(name) for name in ("token_hash", "session_id", "expires_at")})
)
_NOTE_USE: Final = prepared(
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("session_id", type_=_SESSIONS.c.id.type))
    .values(last_used_at=bindparam("moment"), address=bindparam("place"))
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
    token_hash, now = tokens.hash_opaque_token(token), datetime.now(UTC)
    found = await fetch_all(session, _LOCK_FAMILY, its_hash=token_hash)
    if not found:
        return ErrorCode.INVALID_REFRESH_TOKEN
    family = _Family(*found[0])
    if family.revoked_at is not None or family.expires_at <= now:
        return ErrorCode.INVALID_REFRESH_TOKEN
    # After the lock, in a statement of its own: it sees what those before did to the account.
    account = await fetch_all(session, _ACCOUNT, user_id=family.user_id)
    if not account or not may_log_in(is_active=account[0][0], is_verified=account[0][1]):
        return ErrorCode.INVALID_REFRESH_TOKEN
    key_id, successor = await current_key_id(session), tokens.successors(token)[0]
    if await fetch_all(session, _CONSUME, its_hash=token_hash, now=now, moment=now):
        ends_at = idle_end(now, session_ends_at=family.expires_at)
        successor_hash = tokens.hash_opaque_token(successor)
        await later(session, _SUCCEED, token_hash=successor_hash, session_id=family.id, expires_at=ends_at)
        await later(session, _NOTE_USE, session_id=family.id, moment=now, place=device.address[:45])
    elif (given := await _lost_answer(session, token, token_hash, now)) is not None:
        successor = given
    else:
        return await _end_if_reused(session, family, token_hash, now)
    access_token = tokens.make_access_token(family.user_id, family.id, account[0][2], key_id=key_id)
    return token_letter(access_token, refresh_token=successor)


def idle_end(now: datetime, *, session_ends_at: datetime) -> datetime:
    """When a refresh token that is made now expires."""
    return min(now + timedelta(seconds=get_settings().auth.refresh_token_ttl_seconds), session_ends_at)


def token_letter(access_token: str, *, refresh_token: str) -> TokenResponse:
    return TokenResponse(
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in=get_settings().auth.access_token_ttl_seconds,
    )


async def _lost_answer(session: AsyncSession, token: str, token_hash: str, now: datetime) -> str | None:
    """What came of it, if that was a moment ago and was not used yet: the client did not get our answer."""
    grace = now - timedelta(seconds=get_settings().auth.refresh_grace_seconds)
    used_at = await _used_at(session, token_hash)
    if used_at is None or used_at <= grace:
        return None
    for successor in tokens.successors(token):
        row = await session.get(RefreshToken, tokens.hash_opaque_token(successor))
        if row is not None:
            return successor if row.used_at is None else None
    return None


async def _used_at(session: AsyncSession, token_hash: str) -> datetime | None:
    used_at: datetime | None = (
        await session.execute(select(RefreshToken.used_at).where(RefreshToken.token_hash == token_hash))
    ).scalar_one()
    return used_at


async def _end_if_reused(session: AsyncSession, family: _Family, token_hash: str, now: datetime) -> ErrorCode:
    if await _used_at(session, token_hash) is None:
        # Never exchanged: it has only expired.
        return ErrorCode.INVALID_REFRESH_TOKEN
    await session.execute(update(AuthSession).where(col(AuthSession.id) == family.id).values(revoked_at=now))
    logger.bind(session_id=str(family.id), user_id=str(family.user_id)).warning("Refresh token reused, session ended")
    await audit.record(
        session,
        "refresh.reused",
        target=("session", family.id),
        after={"user_id": str(family.user_id)},
        outcome="refused",
    )
    return ErrorCode.REFRESH_TOKEN_REUSED

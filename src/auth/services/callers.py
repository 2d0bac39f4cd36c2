"""Whose a token or an API key is, now."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.auth.models import ApiKey, AuthSession
from src.auth.services.accounts import owner_may_log_in
from src.auth.services.keys import is_in_use
from src.auth.tokens import AccessClaims, Claims, KeyClaims
from src.mixins import utc_now
from src.users import User
from src.users import services as users
from src.users.permissions import Grants, common

_NO_ROLES: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """Behind what somebody calls with."""

    user: User
    ends_at: datetime
    """The session's end, or the key's."""
    session_id: UUID | None = None
    """None of an API key."""
    second_factor_at: datetime | None = None
    """When one was last proven in the session."""
    key: ApiKey | None = None


async def find_account(session: AsyncSession, claims: Claims) -> Account | None:
    """None, when it, the session or the key ended before: one indexed read."""
    return await (_of_key(session, claims) if isinstance(claims, KeyClaims) else _of_session(session, claims))


async def _of_session(session: AsyncSession, claims: AccessClaims) -> Account | None:
    query = (
        select(User, AuthSession.expires_at, AuthSession.second_factor_at)
        .join(AuthSession, col(AuthSession.user_id) == User.id)
        .where(
            User.id == claims.user_id,
            col(User.is_active),
            User.auth_epoch == claims.auth_epoch,
            AuthSession.id == claims.session_id,
            col(AuthSession.revoked_at).is_(None),
            AuthSession.expires_at > utc_now(),
            is_in_use(claims.key_id),
        )
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else Account(row[0], row[1], claims.session_id, row[2])


async def _of_key(session: AsyncSession, claims: KeyClaims) -> Account | None:
    query = (
        select(User, ApiKey)
        .join(ApiKey, col(ApiKey.user_id) == User.id)
        .where(
            ApiKey.key_hash == claims.key_hash,
            col(User.is_active),
            col(ApiKey.revoked_at).is_(None),
            ApiKey.expires_at > utc_now(),
        )
    )
    row = (await session.execute(query)).one_or_none()
    # Nor does a machine call for who may not log in.
    if row is None or not owner_may_log_in(row[0]):
        return None
    return Account(row[0], row[1].expires_at, key=row[1])


async def get_grants(session: AsyncSession, account: Account) -> Grants:
    """What the caller holds: of a key, what its owner holds now, as far as the key goes."""
    user, key = account.user, account.key
    proven = account.second_factor_at is not None if key is None else key.second_factor
    grants = await users.get_grants_now(session, user.id, second_factor=proven)
    if key is not None:
        # Roles are people's: who asks for one by name asks for somebody.
        grants = Grants(_NO_ROLES, common(grants.permissions, key.permissions))
    return replace(grants, holder=user.id, auth_epoch=user.auth_epoch)

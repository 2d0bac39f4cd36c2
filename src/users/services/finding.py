"""Looking people up."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, func, or_
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.shared.lane import fetch_all, prepared, table_of
from src.users.models import Role, User, UserRole
from src.users.schemas import (
    UserFilters,
    UserResponse,
    UserStatsResponse,
    UserWithRolesResponse,
    email_key,
    username_key,
)
from src.users.services.rights import (
    get_grants,
)

_ORDERS = {
    "created_at": (col(User.created_at), col(User.id)),
    "-created_at": (col(User.created_at).desc(), col(User.id).desc()),
    "email": (col(User.email_key), col(User.id)),
    "-email": (col(User.email_key).desc(), col(User.id).desc()),
}


def select_users(filters: UserFilters) -> SelectOfScalar[User]:
    query = select(User).where(col(User.deleted_at).is_(None)).order_by(*_ORDERS[filters.sort])
    if filters.email is not None:
        part = unicodedata.normalize("NFKC", filters.email).casefold()
        query = query.where(
            or_(
                col(User.email_key).contains(part, autoescape=True),
                # The key has `xn--` where people read and type letters.
                col(User.email).icontains(part, autoescape=True),
            )
        )
    if filters.is_active is not None:
        query = query.where(User.is_active == filters.is_active)
    if filters.is_verified is not None:
        query = query.where(User.is_verified == filters.is_verified)
    if filters.role is not None:
        members = select(UserRole.user_id).join(Role).where(Role.name == filters.role)
        query = query.where(col(User.id).in_(members))
    return query


async def find_user_by_email(session: AsyncSession, email: str) -> User | None:
    return (await session.execute(select(User).where(User.email_key == email_key(email)))).scalar_one_or_none()


async def find_user_by_login(session: AsyncSession, name: str) -> User | None:
    """By what people type when they log in: the address, or where it will do the user name (which has no @)."""
    by_name = get_settings().auth.login_with_username and "@" not in name
    key = User.username_key == username_key(name) if by_name else User.email_key == email_key(name)
    return (await session.execute(select(User).where(key))).scalar_one_or_none()


async def get_user_by_email(session: AsyncSession, email: str) -> User:
    """Refused: USER_NOT_FOUND."""
    user = await find_user_by_email(session, email)
    if user is None:
        raise BusinessException(ErrorCode.USER_NOT_FOUND)
    return user


async def get_user(session: AsyncSession, user_id: UUID) -> User:
    user = await session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise BusinessException(ErrorCode.USER_NOT_FOUND)
    return user


@dataclass(frozen=True, slots=True)
class MailAddress:
    address: str
    is_proven: bool
    """Whoever has the account reads the mails there, as far as we or the administrator who made it know."""


async def find_mail_address(session: AsyncSession, user_id: UUID) -> MailAddress | None:
    """Where mails to somebody go: nowhere, when the account was deleted, or when the address has to be verified first."""
    for email, is_verified in await fetch_all(session, _MAIL_ADDRESS, user_id=user_id):
        if is_verified or not get_settings().verified_email_required:
            return MailAddress(email, is_proven=is_verified)
    return None


_USERS = table_of(User)
_MAIL_ADDRESS: Final = prepared(
    select_columns(_USERS.c.email, _USERS.c.is_verified).where(
        _USERS.c.id == bindparam("user_id"), _USERS.c.deleted_at.is_(None)
    )
)


async def get_user_with_roles(session: AsyncSession, user_id: UUID) -> UserWithRolesResponse:
    user = await get_user(session, user_id)
    return _with_roles(user, (await get_grants(session, user_id)).roles)


def _with_roles(user: User, roles: Sequence[str] | frozenset[str]) -> UserWithRolesResponse:
    return UserWithRolesResponse(**UserResponse.model_validate(user).model_dump(), roles=sorted(roles))


async def get_stats(session: AsyncSession) -> UserStatsResponse:
    total, active, verified = (
        await session.execute(
            select(
                func.count(),
                func.count().filter(col(User.is_active)),
                func.count().filter(col(User.is_verified)),
            )
            .select_from(User)
            .where(col(User.deleted_at).is_(None))
        )
    ).one()
    return UserStatsResponse(total=total, active=active, verified=verified)

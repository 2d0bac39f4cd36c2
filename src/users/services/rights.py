"""What somebody may do now, who may change that, and that an administrator stays."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.users.models import Role, RolePermission, User, UserRole
from src.users.permissions import Grants, missing, satisfying

ADMIN = "admin"


async def get_grants(session: AsyncSession, user_id: UUID) -> Grants:
    """All that the account can hold."""
    return _gathered(await _held_through_roles(session, user_id))


async def get_grants_now(session: AsyncSession, user_id: UUID, *, second_factor: bool) -> Grants:
    """What counts where a second factor was proven, or was not."""
    held = await _held_through_roles(session, user_id)
    counting = [right for right in held if second_factor or not right.takes_second_factor]
    grants = _gathered(counting)
    return grants if len(counting) == len(held) else replace(grants, withheld=_gathered(held))


def is_active(user_id: SQLColumnExpression[UUID]) -> ColumnElement[bool]:
    """For a query about rows that belong to people."""
    return select(User.id).where(User.id == user_id, col(User.is_active), col(User.deleted_at).is_(None)).exists()


def may(
    user_id: SQLColumnExpression[UUID], permission: str, *, second_factor: SQLColumnExpression[bool]
) -> ColumnElement[bool]:
    """As above: whether they hold it now, where a second factor was proven or was not."""
    held = (
        select(UserRole.user_id)
        .join(Role, col(Role.id) == UserRole.role_id)
        .join(RolePermission, col(RolePermission.role_id) == Role.id)
        .where(
            UserRole.user_id == user_id,
            col(RolePermission.permission).in_(satisfying(permission)),
            or_(second_factor, ~col(Role.requires_second_factor)),
        )
    )
    return held.exists()


async def lock_account(session: AsyncSession, user_id: UUID) -> None:
    """Whoever adds to what an account may have so many of waits for those before. Refused: USER_NOT_FOUND."""
    own = select(User.id).where(User.id == user_id, col(User.deleted_at).is_(None)).with_for_update(key_share=True)
    if (await session.execute(own)).first() is None:
        raise BusinessException(ErrorCode.USER_NOT_FOUND)


class _Right(NamedTuple):
    role: str
    takes_second_factor: bool
    permission: str | None
    """None of a role without any."""


async def _held_through_roles(session: AsyncSession, user_id: UUID) -> list[_Right]:
    query = (
        select(Role.name, Role.requires_second_factor, RolePermission.permission)
        .join(UserRole, col(UserRole.role_id) == Role.id)
        .outerjoin(RolePermission, col(RolePermission.role_id) == Role.id)
        .where(UserRole.user_id == user_id)
    )
    return [_Right(*row) for row in await session.execute(query)]


def _gathered(held: Sequence[_Right]) -> Grants:
    return Grants(
        frozenset(right.role for right in held),
        frozenset(right.permission for right in held if right.permission is not None),
    )


async def end_all_tokens(session: AsyncSession, user_id: UUID) -> None:
    """After COMMIT no token that was made before is accepted."""
    await session.execute(update(User).where(col(User.id) == user_id).values(auth_epoch=User.auth_epoch + 1))


async def refuse_reaching_over(session: AsyncSession, user_id: UUID, held: Grants) -> None:
    """What is done to somebody by those who may is not done to those who hold more. Oneself one always reaches, without
    the second factor that a role takes, too. Refused: GRANT_NOT_HELD."""
    if held.holder != user_id:
        refuse_what_is_not_held(await get_grants(session, user_id), held)


def refuse_what_is_not_held(theirs: Grants, held: Grants) -> None:
    if lacking := missing(held.permissions, theirs.permissions):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    refuse_names(theirs.roles, held)


def refuse_names(names: Iterable[str], held: Grants) -> None:
    if not_theirs := sorted(name for name in names if not held.may_give_role(name)):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": not_theirs})


async def permissions_of(session: AsyncSession, roles: set[str] | frozenset[str]) -> Sequence[str]:
    query = select(RolePermission.permission).join(Role).where(col(Role.name).in_(roles))
    return (await session.execute(query)).scalars().all()


async def queue_up(session: AsyncSession, held: Grants) -> None:
    """Whoever changes what somebody may do waits here for those before, so that two admins cannot remove each other at
    once; and who lost something meanwhile does not act on what they held when their request was let in.

    Before any account is locked: others hold this one when they lock an account.
    """
    await _lock_admin_role(session)
    if held.holder is not None:
        now = select(User.id).where(User.id == held.holder, col(User.is_active), User.auth_epoch == held.auth_epoch)
        if (await session.execute(now)).first() is None:
            raise BusinessException(ErrorCode.INVALID_TOKEN)


async def _lock_admin_role(session: AsyncSession) -> UUID:
    return (await session.execute(select(Role.id).where(Role.name == ADMIN).with_for_update())).scalar_one()


_ABLE: list[Callable[[], ColumnElement[bool]]] = []


def count_as_able(condition: Callable[[], ColumnElement[bool]]) -> None:
    """What else it takes to log in, said by whoever knows: the last administrator who can must stay."""
    _ABLE.append(condition)


async def keep_an_admin(session: AsyncSession, *, without: UUID) -> None:
    role_id = await _lock_admin_role(session)
    admins = (
        select(UserRole.user_id)
        .join(User, col(User.id) == UserRole.user_id)
        .where(UserRole.role_id == role_id, User.is_active, *(condition() for condition in _ABLE))
    )
    if get_settings().verified_email_required:
        # Who cannot log in administers nothing.
        admins = admins.where(col(User.is_verified))
    remaining = set((await session.execute(admins)).scalars())
    if remaining == {without}:
        raise BusinessException(ErrorCode.LAST_ADMIN)

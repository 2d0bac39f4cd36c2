"""What can be done with accounts and roles."""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, or_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.users.models import Role, RolePermission, User, UserRole
from src.users.permissions import PERMISSIONS, Grants, missing
from src.users.schemas import (
    PermissionResponse,
    RoleResponse,
    UpdateUserRequest,
    UserFilters,
    UserResponse,
    UserStatsResponse,
    UserWithRolesResponse,
    email_key,
    username_key,
)

ADMIN = "admin"
MEMBER = "user"

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


async def get_user(session: AsyncSession, user_id: UUID) -> User:
    user = await session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise BusinessException(ErrorCode.USER_NOT_FOUND)
    return user


async def get_user_with_roles(session: AsyncSession, user_id: UUID) -> UserWithRolesResponse:
    user = await get_user(session, user_id)
    return _with_roles(user, (await get_grants(session, user_id)).roles)


def _with_roles(user: User, roles: Sequence[str] | frozenset[str]) -> UserWithRolesResponse:
    return UserWithRolesResponse(**UserResponse.model_validate(user).model_dump(), roles=sorted(roles))


async def create_user(  # noqa: PLR0913 - an account has these parts
    session: AsyncSession,
    *,
    email: str,
    username: str | None,
    is_verified: bool,
    username_is_a_wish: bool = False,
    roles: Sequence[str] = (MEMBER,),
) -> User:
    """A name that is only wished for is given, if it is free then, when the address is verified.

    Refused: EMAIL_TAKEN, USERNAME_TAKEN, ROLE_NOT_FOUND.
    """
    user = User(
        email=email,
        email_key=email_key(email),
        username=username,
        username_key=None if username is None or username_is_a_wish else username_key(username),
        is_verified=is_verified,
    )
    # The unique indexes decide, not a look before: two registrations at once would both look and both find nothing.
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        raise BusinessException(_taken(error)) from None
    await _link_roles(session, user.id, await _role_ids(session, roles))
    return user


def _taken(error: IntegrityError) -> ErrorCode:
    # The first line names the index; PostgreSQL's second one quotes what somebody typed.
    index, _, _ = str(error.orig).partition("\n")
    return ErrorCode.USERNAME_TAKEN if "username_key" in index else ErrorCode.EMAIL_TAKEN


async def update_user(session: AsyncSession, user_id: UUID, changes: UpdateUserRequest) -> UserWithRolesResponse:
    """Refused: USER_NOT_FOUND, USERNAME_TAKEN, LAST_ADMIN."""
    values = changes.model_dump(exclude_unset=True)
    if "username" in values:
        values["username_key"] = None if changes.username is None else username_key(changes.username)
    for flag in ("is_active", "is_verified"):
        if values.get(flag, ...) is None:
            del values[flag]
    user = await get_user(session, user_id)
    if values.get("is_verified") and "username" not in values:
        await _grant_wished_username(session, user)
    if values.get("is_active") is False:
        await _keep_an_admin(session, without=user_id)
    if False in (values.get("is_active"), values.get("is_verified")):
        values["auth_epoch"] = User.auth_epoch + 1
    if values:
        try:
            async with session.begin_nested():
                await session.execute(update(User).where(col(User.id) == user_id).values(values))
        except IntegrityError as error:
            raise BusinessException(_taken(error)) from None
        session.expire_all()
    return await get_user_with_roles(session, user_id)


async def _grant_wished_username(session: AsyncSession, user: User) -> None:
    if user.username is None or user.username_key is not None:
        return
    wish = update(User).where(col(User.id) == user.id)
    try:
        async with session.begin_nested():
            await session.execute(wish.values(username_key=username_key(user.username)))
    except IntegrityError:
        await session.execute(wish.values(username=None))


async def delete_user(session: AsyncSession, user_id: UUID) -> None:
    """The row stays, since orders and records point to it; who it was goes. Refused: USER_NOT_FOUND, LAST_ADMIN."""
    await get_user(session, user_id)
    await _keep_an_admin(session, without=user_id)
    gone = f"deleted-{user_id}@invalid"
    await session.execute(
        update(User)
        .where(col(User.id) == user_id)
        .values(
            email=gone,
            email_key=gone,
            username=None,
            username_key=None,
            is_active=False,
            is_verified=False,
            auth_epoch=User.auth_epoch + 1,
            deleted_at=datetime.now(UTC),
        )
    )
    await session.execute(delete(UserRole).where(col(UserRole.user_id) == user_id))


async def end_all_tokens(session: AsyncSession, user_id: UUID) -> None:
    """After COMMIT no token that was made before is accepted."""
    await session.execute(update(User).where(col(User.id) == user_id).values(auth_epoch=User.auth_epoch + 1))


async def get_grants(session: AsyncSession, user_id: UUID) -> Grants:
    rows = await session.execute(
        select(Role.name, RolePermission.permission)
        .join(UserRole, col(UserRole.role_id) == Role.id)
        .outerjoin(RolePermission, col(RolePermission.role_id) == Role.id)
        .where(UserRole.user_id == user_id)
    )
    roles, permissions = set(), set()
    for role, permission in rows:
        roles.add(role)
        if permission is not None:
            permissions.add(permission)
    return Grants(frozenset(roles), frozenset(permissions))


async def set_roles(
    session: AsyncSession, user_id: UUID, roles: Sequence[str], *, held: Grants
) -> UserWithRolesResponse:
    """Replace the roles of an account; `held` is what the one who does it holds.

    Refused: USER_NOT_FOUND, ROLE_NOT_FOUND, GRANT_NOT_HELD, LAST_ADMIN.
    """
    # Whoever changes roles queues up here, so that two admins cannot remove each other at once.
    await _lock_admin_role(session)
    await get_user(session, user_id)
    before = (await get_grants(session, user_id)).roles
    wanted = await _role_ids(session, roles)
    changed = before ^ set(roles)
    lacking = missing(held.permissions, await _permissions_of(session, changed))
    if lacking:
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    if ADMIN in before and ADMIN not in roles:
        await _keep_an_admin(session, without=user_id)
    await session.execute(delete(UserRole).where(col(UserRole.user_id) == user_id))
    await _link_roles(session, user_id, wanted)
    if before - set(roles):
        await end_all_tokens(session, user_id)
    session.expire_all()
    return await get_user_with_roles(session, user_id)


async def _role_ids(session: AsyncSession, names: Sequence[str]) -> list[UUID]:
    rows = await session.execute(select(Role.name, Role.id).where(col(Role.name).in_(names)))
    found = {name: role_id for name, role_id in rows}  # noqa: C416 - rows are not pairs to the type checker
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND, data={"missing": unknown})
    return sorted(found.values())


async def _link_roles(session: AsyncSession, user_id: UUID, role_ids: Sequence[UUID]) -> None:
    if role_ids:
        await session.execute(insert(UserRole), [{"user_id": user_id, "role_id": role_id} for role_id in role_ids])


async def _permissions_of(session: AsyncSession, roles: set[str] | frozenset[str]) -> Sequence[str]:
    query = select(RolePermission.permission).join(Role).where(col(Role.name).in_(roles))
    return (await session.execute(query)).scalars().all()


async def _lock_admin_role(session: AsyncSession) -> UUID:
    return (await session.execute(select(Role.id).where(Role.name == ADMIN).with_for_update())).scalar_one()


async def _keep_an_admin(session: AsyncSession, *, without: UUID) -> None:
    role_id = await _lock_admin_role(session)
    admins = (
        select(UserRole.user_id)
        .join(User, col(User.id) == UserRole.user_id)
        .where(UserRole.role_id == role_id, User.is_active)
    )
    remaining = set((await session.execute(admins)).scalars())
    if remaining == {without}:
        raise BusinessException(ErrorCode.LAST_ADMIN)


async def list_roles(session: AsyncSession) -> list[RoleResponse]:
    permissions: dict[UUID, list[str]] = {}
    for role_id, permission in await session.execute(
        select(RolePermission.role_id, RolePermission.permission).order_by(RolePermission.permission)
    ):
        permissions.setdefault(role_id, []).append(permission)
    roles = (await session.execute(select(Role).order_by(Role.name))).scalars()
    return [
        RoleResponse(
            id=role.id,
            name=role.name,
            description=role.description,
            is_system=role.is_system,
            permissions=permissions.get(role.id, []),
        )
        for role in roles
    ]


def list_permissions() -> list[PermissionResponse]:
    return [PermissionResponse(name=name, description=text) for name, text in PERMISSIONS.items()]


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

"""What can be done with accounts and roles."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, or_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit import services as audit
from src.audit.services import Facts
from src.config import get_settings
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users.models import Role, RolePermission, User, UserRole
from src.users.permissions import PERMISSIONS, Grants, missing, unknown
from src.users.schemas import (
    CreateRoleRequest,
    PermissionResponse,
    RoleResponse,
    UpdateRoleRequest,
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
    user = await session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        return None
    if get_settings().verified_email_required and not user.is_verified:
        return None
    return MailAddress(user.email, is_proven=user.is_verified)


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
    return ErrorCode.USERNAME_TAKEN if "username_key" in str(error.orig) else ErrorCode.EMAIL_TAKEN


async def update_user(
    session: AsyncSession, user_id: UUID, changes: UpdateUserRequest, *, held: Grants
) -> UserWithRolesResponse:
    """Nobody reaches over those who hold more: to lock them out takes what they hold, to let them in gives it.

    Refused: USER_NOT_FOUND, USERNAME_TAKEN, LAST_ADMIN, GRANT_NOT_HELD, INVALID_TOKEN.
    """
    values = changes.model_dump(exclude_unset=True)
    if "username" in values:
        values["username_key"] = None if changes.username is None else username_key(changes.username)
    for flag in ("is_active", "is_verified"):
        if values.get(flag, ...) is None:
            del values[flag]
    if values.keys() & {"is_active", "is_verified"}:
        await queue_up(session, held)
    user = await get_user(session, user_id)
    before = _facts(user)
    await refuse_reaching_over(session, user_id, held)
    if False in (values.get("is_active"), values.get("is_verified")):
        await _keep_an_admin(session, without=user_id)
        values["auth_epoch"] = User.auth_epoch + 1
    if values.get("is_verified") and "username" not in values:
        await _grant_wished_username(session, user)
    if values:
        try:
            async with session.begin_nested():
                await session.execute(update(User).where(col(User.id) == user_id).values(values))
        except IntegrityError as error:
            raise BusinessException(_taken(error)) from None
        session.expire_all()
    updated = await get_user_with_roles(session, user_id)
    was, is_now = audit.changes(before, _facts(updated))
    if is_now:
        await audit.record(session, "account.updated", target=("user", user_id), before=was, after=is_now)
    return updated


def _facts(user: User | UserWithRolesResponse) -> Facts:
    """What the audit log may have of an account: it outlives the name."""
    return {
        "username": None if user.username is None else pseudonym(username_key(user.username)),
        "is_active": user.is_active,
        "is_verified": user.is_verified,
    }


async def verify_email(session: AsyncSession, user_id: UUID) -> None:
    """The owner of the address has shown to be it. Refused: USER_NOT_FOUND."""
    user = await get_user(session, user_id)
    if not user.is_verified:
        await _grant_wished_username(session, user)
        await session.execute(update(User).where(col(User.id) == user_id).values(is_verified=True))


async def change_email(session: AsyncSession, user_id: UUID, email: str) -> None:
    """To one that its owner has shown to read. Refused: EMAIL_TAKEN."""
    values = {"email": email, "email_key": email_key(email), "is_verified": True}
    try:
        async with session.begin_nested():
            await session.execute(update(User).where(col(User.id) == user_id).values(values))
    except IntegrityError as error:
        raise BusinessException(_taken(error)) from None


async def _grant_wished_username(session: AsyncSession, user: User) -> None:
    if user.username is None or user.username_key is not None:
        return
    wish = update(User).where(col(User.id) == user.id)
    try:
        async with session.begin_nested():
            await session.execute(wish.values(username_key=username_key(user.username)))
    except IntegrityError:
        await session.execute(wish.values(username=None))


async def delete_user(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """The row stays, since orders and records point to it; who it was goes.

    Refused: USER_NOT_FOUND, LAST_ADMIN, GRANT_NOT_HELD, INVALID_TOKEN.
    """
    await queue_up(session, held)
    await get_user(session, user_id)
    _refuse_reaching_over(await get_grants(session, user_id), held)
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
    await audit.record(session, "account.deleted", target=("user", user_id))


async def end_all_tokens(session: AsyncSession, user_id: UUID) -> None:
    """After COMMIT no token that was made before is accepted."""
    await session.execute(update(User).where(col(User.id) == user_id).values(auth_epoch=User.auth_epoch + 1))


async def get_grants(session: AsyncSession, user_id: UUID) -> Grants:
    """All that the account can hold."""
    return _gathered(await _held_through_roles(session, user_id))


async def get_grants_now(session: AsyncSession, user_id: UUID, *, second_factor: bool) -> Grants:
    """What counts where a second factor was proven, or was not."""
    held = await _held_through_roles(session, user_id)
    counting = [right for right in held if second_factor or not right.takes_second_factor]
    grants = _gathered(counting)
    return grants if len(counting) == len(held) else replace(grants, withheld=_gathered(held))


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


async def set_roles(
    session: AsyncSession, user_id: UUID, roles: Sequence[str], *, held: Grants
) -> UserWithRolesResponse:
    """Replace the roles of an account; `held` is what the one who does it holds.

    Refused: USER_NOT_FOUND, ROLE_NOT_FOUND, GRANT_NOT_HELD, LAST_ADMIN, INVALID_TOKEN.
    """
    await queue_up(session, held)
    await get_user(session, user_id)
    before = (await get_grants(session, user_id)).roles
    wanted = await _role_ids(session, roles)
    changed = before ^ set(roles)
    lacking = missing(held.permissions, await _permissions_of(session, changed))
    if lacking:
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    _refuse_names(changed, held)
    if ADMIN in before and ADMIN not in roles:
        await _keep_an_admin(session, without=user_id)
    await session.execute(delete(UserRole).where(col(UserRole.user_id) == user_id))
    await _link_roles(session, user_id, wanted)
    if before - set(roles):
        await end_all_tokens(session, user_id)
    if changed:
        await audit.record(
            session,
            "roles.assigned",
            target=("user", user_id),
            before={"roles": sorted(before)},
            after={"roles": sorted(set(roles))},
        )
    session.expire_all()
    return await get_user_with_roles(session, user_id)


async def refuse_reaching_over(session: AsyncSession, user_id: UUID, held: Grants) -> None:
    """What is done to somebody by those who may is not done to those who hold more. Oneself one always reaches, without
    the second factor that a role takes, too. Refused: GRANT_NOT_HELD."""
    if held.holder != user_id:
        _refuse_reaching_over(await get_grants(session, user_id), held)


def _refuse_reaching_over(theirs: Grants, held: Grants) -> None:
    if lacking := missing(held.permissions, theirs.permissions):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    _refuse_names(theirs.roles, held)


def _refuse_names(names: Iterable[str], held: Grants) -> None:
    if not_theirs := sorted(name for name in names if not held.may_give_role(name)):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": not_theirs})


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


async def _keep_an_admin(session: AsyncSession, *, without: UUID) -> None:
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


async def get_role(session: AsyncSession, role_id: UUID) -> RoleResponse:
    """Refused: ROLE_NOT_FOUND."""
    role = await session.get(Role, role_id)
    if role is None:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND)
    return _role_letter(role, await _permissions_of(session, {role.name}))


async def create_role(session: AsyncSession, request: CreateRoleRequest, *, held: Grants) -> RoleResponse:
    """Refused: PERMISSION_UNKNOWN, GRANT_NOT_HELD, ROLE_NAME_TAKEN, INVALID_TOKEN."""
    await queue_up(session, held)
    permissions = set(request.permissions)
    _refuse_grants(permissions, held)
    _refuse_names([request.name], held)
    role = Role(name=request.name, description=request.description)
    try:
        async with session.begin_nested():
            session.add(role)
    except IntegrityError:
        raise BusinessException(ErrorCode.ROLE_NAME_TAKEN) from None
    session.add_all(RolePermission(role_id=role.id, permission=permission) for permission in permissions)
    created = _role_letter(role, permissions)
    await audit.record(session, "role.created", target=("role", role.id), after=_role_facts(created))
    return created


async def update_role(
    session: AsyncSession, role_id: UUID, changes: UpdateRoleRequest, *, held: Grants
) -> RoleResponse:
    """Refused: ROLE_NOT_FOUND, SYSTEM_ROLE, PERMISSION_UNKNOWN, GRANT_NOT_HELD, ROLE_NAME_TAKEN, INVALID_TOKEN."""
    await queue_up(session, held)
    role, before = await _own_role(session, role_id)
    after = before if changes.permissions is None else set(changes.permissions)
    _refuse_grants(before ^ after, held)
    if changes.name not in (None, role.name):
        # Roles are given by name: under another one it would be given by mistake.
        _refuse_reaching_over(Grants(frozenset({role.name, str(changes.name)}), frozenset(before)), held)
    was = _role_facts(_role_letter(role, before))
    values = changes.model_dump(exclude_none=True, exclude={"permissions"})
    try:
        async with session.begin_nested():
            await session.execute(update(Role).where(col(Role.id) == role_id).values(updated_at=utc_now(), **values))
    except IntegrityError:
        raise BusinessException(ErrorCode.ROLE_NAME_TAKEN) from None
    await session.execute(delete(RolePermission).where(col(RolePermission.role_id) == role_id))
    session.add_all(RolePermission(role_id=role_id, permission=permission) for permission in after)
    if before - after:
        await _end_tokens_of_members(session, role_id)
    await session.flush()
    await session.refresh(role)
    updated = _role_letter(role, after)
    gone, new = audit.changes(was, _role_facts(updated))
    if new:
        await audit.record(session, "role.updated", target=("role", role_id), before=gone, after=new)
    return updated


def _role_facts(role: RoleResponse) -> Facts:
    return {"name": role.name, "description": role.description, "permissions": role.permissions}


async def require_second_factor(session: AsyncSession, role_id: UUID, *, required: bool, held: Grants) -> RoleResponse:
    """Of whoever has the role, a system role too. Refused: ROLE_NOT_FOUND, GRANT_NOT_HELD, INVALID_TOKEN."""
    await queue_up(session, held)
    role = await session.get(Role, role_id)
    if role is None:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND)
    permissions = await _permissions_of(session, {role.name})
    _refuse_reaching_over(Grants(frozenset({role.name}), frozenset(permissions)), held)
    if role.requires_second_factor is not required:
        role.requires_second_factor = required
        if required:
            await _end_tokens_of_members(session, role_id)
        await audit.record(
            session,
            "role.second_factor_required" if required else "role.second_factor_waived",
            target=("role", role_id),
            after={"name": role.name},
        )
    return _role_letter(role, permissions)


async def delete_role(session: AsyncSession, role_id: UUID, *, held: Grants) -> None:
    """Its members lose what they had through it. Refused: ROLE_NOT_FOUND, SYSTEM_ROLE, GRANT_NOT_HELD, INVALID_TOKEN."""
    await queue_up(session, held)
    role, before = await _own_role(session, role_id)
    _refuse_reaching_over(Grants(frozenset({role.name}), frozenset(before)), held)
    await _end_tokens_of_members(session, role_id)
    await session.delete(role)
    await audit.record(
        session, "role.deleted", target=("role", role_id), before=_role_facts(_role_letter(role, before))
    )


async def _own_role(session: AsyncSession, role_id: UUID) -> tuple[Role, set[str]]:
    """A role that is not the house's."""
    role = await session.get(Role, role_id)
    if role is None:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND)
    if role.is_system:
        raise BusinessException(ErrorCode.SYSTEM_ROLE)
    return role, set(await _permissions_of(session, {role.name}))


def _refuse_grants(changed: set[str], held: Grants) -> None:
    if no_such := unknown(changed):
        raise BusinessException(ErrorCode.PERMISSION_UNKNOWN, data={"unknown": no_such})
    if lacking := missing(held.permissions, changed):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})


async def _end_tokens_of_members(session: AsyncSession, role_id: UUID) -> None:
    members = select(UserRole.user_id).where(UserRole.role_id == role_id)
    await session.execute(
        update(User).where(col(User.id).in_(members)).values(auth_epoch=User.auth_epoch + 1),
        execution_options={"synchronize_session": False},
    )


def _role_letter(role: Role, permissions: Iterable[str]) -> RoleResponse:
    return RoleResponse(
        id=role.id,
        name=role.name,
        description=role.description,
        is_system=role.is_system,
        requires_second_factor=role.requires_second_factor,
        permissions=sorted(permissions),
    )


async def list_roles(session: AsyncSession) -> list[RoleResponse]:
    permissions: dict[UUID, list[str]] = {}
    for role_id, permission in await session.execute(
        select(RolePermission.role_id, RolePermission.permission).order_by(RolePermission.permission)
    ):
        permissions.setdefault(role_id, []).append(permission)
    roles = (await session.execute(select(Role).order_by(Role.name))).scalars()
    return [_role_letter(role, permissions.get(role.id, ())) for role in roles]


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

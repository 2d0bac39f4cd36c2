"""Roles: giving them, and what they are."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.audit.services import Facts
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.users.models import Role, RolePermission, User, UserRole
from src.users.permissions import PERMISSIONS, Grants, missing, unknown
from src.users.schemas import (
    CreateRoleRequest,
    PermissionResponse,
    RoleResponse,
    UpdateRoleRequest,
    UserWithRolesResponse,
)
from src.users.services.finding import get_user, get_user_with_roles
from src.users.services.rights import (
    ADMIN,
    end_all_tokens,
    get_grants,
    keep_an_admin,
    permissions_of,
    queue_up,
    refuse_names,
    refuse_what_is_not_held,
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
    wanted = await find_role_ids(session, roles)
    changed = before ^ set(roles)
    lacking = missing(held.permissions, await permissions_of(session, changed))
    if lacking:
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    refuse_names(changed, held)
    if ADMIN in before and ADMIN not in roles:
        await keep_an_admin(session, without=user_id)
    await session.execute(delete(UserRole).where(col(UserRole.user_id) == user_id))
    await link_roles(session, user_id, wanted)
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


async def find_role_ids(session: AsyncSession, names: Sequence[str]) -> list[UUID]:
    rows = await session.execute(select(Role.name, Role.id).where(col(Role.name).in_(names)))
    found = {name: role_id for name, role_id in rows}  # noqa: C416 - rows are not pairs to the type checker
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND, data={"missing": unknown})
    return sorted(found.values())


async def link_roles(session: AsyncSession, user_id: UUID, role_ids: Sequence[UUID]) -> None:
    if role_ids:
        await session.execute(insert(UserRole), [{"user_id": user_id, "role_id": role_id} for role_id in role_ids])


async def get_role(session: AsyncSession, role_id: UUID) -> RoleResponse:
    """Refused: ROLE_NOT_FOUND."""
    role = await session.get(Role, role_id)
    if role is None:
        raise BusinessException(ErrorCode.ROLE_NOT_FOUND)
    return _role_letter(role, await permissions_of(session, {role.name}))


async def create_role(session: AsyncSession, request: CreateRoleRequest, *, held: Grants) -> RoleResponse:
    """Refused: PERMISSION_UNKNOWN, GRANT_NOT_HELD, ROLE_NAME_TAKEN, INVALID_TOKEN."""
    await queue_up(session, held)
    permissions = set(request.permissions)
    _refuse_grants(permissions, held)
    refuse_names([request.name], held)
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
        refuse_what_is_not_held(Grants(frozenset({role.name, str(changes.name)}), frozenset(before)), held)
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
    permissions = await permissions_of(session, {role.name})
    refuse_what_is_not_held(Grants(frozenset({role.name}), frozenset(permissions)), held)
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
    refuse_what_is_not_held(Grants(frozenset({role.name}), frozenset(before)), held)
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
    return role, set(await permissions_of(session, {role.name}))


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

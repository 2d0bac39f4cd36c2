"""Accounts, roles and the caller's own profile."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate

from src.auth import require_permissions
from src.auth import services as auth
from src.auth.dependencies import CurrentGrants, CurrentSessionId, CurrentUser, DeviceDep, ForPeople
from src.auth.schemas import ConfirmRequest, CreateUserRequest
from src.http.idempotency import Idempotent
from src.shared.database import SessionDep
from src.shared.types import Id
from src.users import services as users
from src.users.schemas import (
    CreateRoleRequest,
    PermissionResponse,
    RequireSecondFactorRequest,
    RoleResponse,
    SetRolesRequest,
    UpdateProfileRequest,
    UpdateRoleRequest,
    UpdateUserRequest,
    UserFilters,
    UserResponse,
    UserWithRolesResponse,
)

router = APIRouter()


@router.get("/profile")
async def get_profile(user: CurrentUser, session: SessionDep) -> UserWithRolesResponse:
    return await users.get_user_with_roles(session, user.id)


@router.patch("/profile", dependencies=[ForPeople, Idempotent])
async def update_profile(
    request: UpdateProfileRequest, user: CurrentUser, grants: CurrentGrants, session: SessionDep
) -> UserWithRolesResponse:
    changes = UpdateUserRequest(**request.model_dump(exclude_unset=True))
    return await users.update_user(session, user.id, changes, held=grants)


@router.post("/profile/deactivate", dependencies=[ForPeople])
async def deactivate_profile(request: ConfirmRequest, user: CurrentUser, device: DeviceDep) -> None:
    """Ends all sessions; an administrator can let the account in again."""
    await auth.deactivate_own(user.id, request, device)


@router.post("/profile/delete", dependencies=[ForPeople])
async def delete_profile(request: ConfirmRequest, user: CurrentUser, device: DeviceDep) -> None:
    """For good. Orders and the audit log stay, without a name."""
    await auth.delete_own(user.id, request, device)


@router.get("/users", response_model=Page[UserResponse], dependencies=[Depends(require_permissions("user:read"))])
async def list_users(filters: Annotated[UserFilters, Query()], session: SessionDep) -> Any:  # Any: as apaginate has it
    return await apaginate(session, users.select_users(filters))


async def _prepared(request: CreateUserRequest) -> auth.NewAccount:
    return await auth.prepare_account(request)


@router.post("/users", status_code=201, dependencies=[Depends(require_permissions("user:create"))])
async def create_user(
    account: Annotated[auth.NewAccount, Depends(_prepared)],
    # Behind the account: no lock is held while its password is hashed.
    _claimed: Annotated[None, Idempotent],
    grants: CurrentGrants,
    session: SessionDep,
) -> UserWithRolesResponse:
    return await auth.open_account(session, account, held=grants)


@router.get("/users/{user_id}", dependencies=[Depends(require_permissions("user:read"))])
async def get_user(user_id: Id, session: SessionDep) -> UserWithRolesResponse:
    return await users.get_user_with_roles(session, user_id)


@router.patch("/users/{user_id}", dependencies=[Depends(require_permissions("user:update")), Idempotent])
async def update_user(
    user_id: Id, request: UpdateUserRequest, grants: CurrentGrants, session: SessionDep
) -> UserWithRolesResponse:
    return await auth.update_user(session, user_id, request, held=grants)


@router.delete("/users/{user_id}", dependencies=[Depends(require_permissions("user:delete")), Idempotent])
async def delete_user(user_id: Id, grants: CurrentGrants, session: SessionDep) -> None:
    await auth.delete_user(session, user_id, held=grants)


@router.delete("/users/{user_id}/sessions", dependencies=[Depends(require_permissions("user:update")), Idempotent])
async def end_sessions(user_id: Id, grants: CurrentGrants, session: SessionDep) -> None:
    """Log somebody out everywhere: a device was lost, say."""
    await auth.end_sessions_of(session, user_id, held=grants)


@router.delete("/users/{user_id}/api-keys", dependencies=[Depends(require_permissions("user:update")), Idempotent])
async def revoke_api_keys(user_id: Id, grants: CurrentGrants, session: SessionDep) -> None:
    """All of somebody's: one was found where it does not belong, say."""
    await auth.revoke_api_keys_of(session, user_id, held=grants)


@router.delete(
    "/users/{user_id}/second-factors", dependencies=[Depends(require_permissions("user:update")), Idempotent]
)
async def reset_second_factors(
    user_id: Id, current: CurrentSessionId, grants: CurrentGrants, session: SessionDep
) -> None:
    """For somebody who lost them: the password is all again. Ends their sessions, and tells them."""
    await auth.reset_second_factors(session, user_id, held=grants, session_id=current)


@router.post(
    "/users/{user_id}/invitation",
    status_code=202,
    dependencies=[Depends(require_permissions("user:create")), Idempotent],
)
async def invite_again(user_id: Id, session: SessionDep) -> None:
    """A new mail for an account that was made without a password; the code of the one before is void."""
    await auth.invite_again(session, user_id)


@router.put("/users/{user_id}/roles", dependencies=[Depends(require_permissions("role:assign")), Idempotent])
async def set_roles(
    user_id: Id, request: SetRolesRequest, grants: CurrentGrants, session: SessionDep
) -> UserWithRolesResponse:
    return await users.set_roles(session, user_id, request.roles, held=grants)


@router.get("/roles", dependencies=[Depends(require_permissions("role:read"))])
async def list_roles(session: SessionDep) -> list[RoleResponse]:
    return await users.list_roles(session)


@router.post("/roles", status_code=201, dependencies=[Depends(require_permissions("role:create")), Idempotent])
async def create_role(request: CreateRoleRequest, grants: CurrentGrants, session: SessionDep) -> RoleResponse:
    return await users.create_role(session, request, held=grants)


@router.get("/roles/{role_id}", dependencies=[Depends(require_permissions("role:read"))])
async def get_role(role_id: Id, session: SessionDep) -> RoleResponse:
    return await users.get_role(session, role_id)


@router.patch("/roles/{role_id}", dependencies=[Depends(require_permissions("role:update")), Idempotent])
async def update_role(
    role_id: Id, request: UpdateRoleRequest, grants: CurrentGrants, session: SessionDep
) -> RoleResponse:
    return await users.update_role(session, role_id, request, held=grants)


@router.put("/roles/{role_id}/second-factor", dependencies=[Depends(require_permissions("role:update")), Idempotent])
async def require_second_factor(
    role_id: Id,
    request: RequireSecondFactorRequest,
    current: CurrentSessionId,
    grants: CurrentGrants,
    session: SessionDep,
) -> RoleResponse:
    """Whether the role counts only where a second factor was proven; a system role's, too."""
    return await auth.require_second_factor(
        session, role_id, required=request.required, held=grants, session_id=current
    )


@router.delete("/roles/{role_id}", dependencies=[Depends(require_permissions("role:delete")), Idempotent])
async def delete_role(role_id: Id, grants: CurrentGrants, session: SessionDep) -> None:
    await users.delete_role(session, role_id, held=grants)


@router.get("/permissions", dependencies=[Depends(require_permissions("role:read"))])
async def list_permissions() -> list[PermissionResponse]:
    return users.list_permissions()

"""Patterns, Authentication and authorization: routes are protected by dependencies."""

# Typed as the document has it:
# ruff: noqa: B008, FAST002
# mypy: disable-error-code="no-untyped-def, type-arg"

from uuid import UUID

from fastapi import APIRouter, Depends

from src.auth import current_user, owner_or_perm, require_permissions, require_roles
from src.users import User

router = APIRouter()


# Require login
@router.get("/profile")
async def get_profile(user: User = Depends(current_user)):
    return user


# Require permission
@router.post("/users", dependencies=[Depends(require_permissions("user:create"))])
async def create_user(data: dict):
    pass


# Require role
@router.get("/admin/stats", dependencies=[Depends(require_roles("admin"))])
async def admin_stats():
    pass


@router.get("/any", dependencies=[Depends(require_permissions("user:create", "user:read", match="any"))])
async def any_of_two() -> str:
    return "either will do"


async def get_owner_id(owner_id: UUID) -> UUID:
    return owner_id


@router.get("/diaries/{owner_id}", dependencies=[Depends(owner_or_perm(get_owner_id, "user:read"))])
async def read_diary(owner_id: UUID) -> str:
    return f"Dear {owner_id}"

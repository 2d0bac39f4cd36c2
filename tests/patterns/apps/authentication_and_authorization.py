"""Patterns, Authentication and authorization: routes are protected by dependencies."""

# Typed as the document has it:
# ruff: noqa: B008, FAST002
# mypy: disable-error-code="no-untyped-def, type-arg"

from fastapi import APIRouter, Depends

from src.auth import current_user, require_permissions, require_roles
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

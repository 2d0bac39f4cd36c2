"""Authorization beyond the patterns: one of several permissions, and the owner of a thing."""

from uuid import UUID

from fastapi import APIRouter, Depends

from src.auth import owner_or_perm, require_permissions

router = APIRouter()


@router.get("/any", dependencies=[Depends(require_permissions("user:create", "user:read", match="any"))])
async def any_of_two() -> str:
    return "either will do"


async def get_owner_id(owner_id: UUID) -> UUID:
    return owner_id


@router.get("/diaries/{owner_id}", dependencies=[Depends(owner_or_perm(get_owner_id, "user:read"))])
async def read_diary(owner_id: UUID) -> str:
    return f"Dear {owner_id}"

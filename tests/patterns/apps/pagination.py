"""Patterns, Pagination: `Page[User]` and a query are all that a route says to be paged."""

# Typed as the document has it:
# ruff: noqa: B008, FAST002
# mypy: disable-error-code="no-untyped-def"

from fastapi import APIRouter, Depends
from fastapi_pagination import Page
from fastapi_pagination.ext.sqlalchemy import apaginate
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.shared.database import get_session
from src.users import User

router = APIRouter(tags=["pagination"])


@router.get("/users", response_model=Page[User])
async def list_users(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User))

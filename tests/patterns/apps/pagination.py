"""Patterns, Pagination: `Page`, and the two other pages of fastapi-pagination in its place."""

# Typed as the document has it:
# ruff: noqa: B008, FAST002
# mypy: disable-error-code="no-untyped-def"

from fastapi import APIRouter, Depends
from fastapi_pagination import LimitOffsetPage, Page
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import apaginate
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.shared.database import get_session
from src.users import User

router = APIRouter(tags=["pagination"])


@router.get("/users", response_model=Page[User])
async def list_users(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User))


@router.get("/users/by-offset", response_model=LimitOffsetPage[User])
async def list_users_by_offset(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User))


@router.get("/users/by-cursor", response_model=CursorPage[User])
async def list_users_by_cursor(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User).order_by(User.created_at, User.id))

"""Pagination beyond the patterns: the two other pages of fastapi-pagination, typed alike."""

from typing import Any

from fastapi import APIRouter
from fastapi_pagination import LimitOffsetPage
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import apaginate
from sqlmodel import col, select

from src.shared.database import SessionDep
from src.users import User

router = APIRouter(tags=["other pages"])


@router.get("/users/by-offset", response_model=LimitOffsetPage[User])
async def list_users_by_offset(session: SessionDep) -> Any:  # Any: as apaginate has it
    return await apaginate(session, select(User))


@router.get("/users/by-cursor", response_model=CursorPage[User])
async def list_users_by_cursor(session: SessionDep) -> Any:  # Any: as above
    return await apaginate(session, select(User).order_by(col(User.created_at), col(User.id)))


@router.get("/users/by-cursor-of-email", response_model=CursorPage[User])
async def list_users_by_cursor_of_email(session: SessionDep, from_the_end: int = 0) -> Any:  # Any: as above
    order = col(User.email_key).desc() if from_the_end else col(User.email_key)
    return await apaginate(session, select(User).order_by(order))

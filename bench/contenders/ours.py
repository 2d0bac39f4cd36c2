"""The service itself with everything on, and the benchmark's routes typed as its patterns have them."""

import signal
import sys

import uvicorn
from fastapi import APIRouter, Depends
from fastapi_pagination import Page
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.ext.sqlalchemy import apaginate
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from bench.contenders import given as names
from bench.contenders.deep import deep_router
from src.auth import current_user, require_permissions
from src.cache import CacheProtocol, get_cache
from src.config import get_settings
from src.exceptions import BusinessException
from src.http.app import create_app
from src.http.server import server_options
from src.shared.database import get_session
from src.shared.errors import ErrorCode
from src.shared.types import Id
from src.users import User


class Greeting(BaseModel):
    message: str


class Badge(BaseModel):
    id: Id


class Cached(BaseModel):
    greeting: str
    numbers: list[int]


given = names.read()
router = APIRouter(prefix="/bench")


async def static() -> Greeting:
    return Greeting(message=names.GREETING)


router.get("/static")(static)


@router.get("/me", response_model=Badge)
async def me(user: User = Depends(current_user)):
    return user


@router.get("/users", response_model=Page[User], dependencies=[Depends(require_permissions(names.PERMISSION))])
async def list_users(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User))


@router.get(
    "/users-by-cursor", response_model=CursorPage[User], dependencies=[Depends(require_permissions(names.PERMISSION))]
)
async def list_users_by_cursor(session: AsyncSession = Depends(get_session)):
    return await apaginate(session, select(User).order_by(col(User.id)))


@router.get("/users/{user_id}", response_model=User, dependencies=[Depends(require_permissions(names.PERMISSION))])
async def get_user(user_id: Id, session: AsyncSession = Depends(get_session)):
    user = await session.get(User, user_id)
    if user is None:
        raise BusinessException(ErrorCode.USER_NOT_FOUND)
    return user


@router.get("/cached", response_model=Cached, dependencies=[Depends(current_user)])
async def cached(cache: CacheProtocol = Depends(get_cache)):
    found = await cache.get(names.CACHE_KEY)
    if found:
        return found
    await cache.set(names.CACHE_KEY, names.CACHED, ttl=names.CACHE_TTL_SECONDS)
    return names.CACHED


app = create_app()
if given.deep_routes:
    router.include_router(deep_router(given.deep_routes, static))
app.include_router(router)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = server_options(get_settings())
    del options["workers"]  # of an app that is no name there is one
    uvicorn.run(app, **options)

"""FastAPI as its tutorial teaches it, with SQLAlchemy's AsyncSession, and no other pattern."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Generic, TypeVar
from uuid import UUID

import jwt
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.contenders import given as names
from bench.contenders import tables
from bench.contenders.deep import deep_router

T = TypeVar("T")
given = names.read()
engine = create_async_engine(
    given.db_url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=names.POOL_SIZE, max_overflow=0
)
open_session = async_sessionmaker(engine, expire_on_commit=False)
redis = Redis.from_url(given.cache_url)
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token", scopes={names.PERMISSION: "Read accounts"})


class Envelope(BaseModel, Generic[T]):
    code: int = 200
    msg: str = "success"
    data: T


class Greeting(BaseModel):
    message: str


class Badge(BaseModel):
    id: UUID
    scopes: list[str] = Field(exclude=True)


class User(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    username: str | None
    is_active: bool
    is_verified: bool
    created_at: datetime
    updated_at: datetime


class UserPage(BaseModel):
    items: list[User]
    total: int
    page: int
    size: int
    pages: int


class OrderItem(BaseModel):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=10_000)]


class PlaceOrder(BaseModel):
    items: Annotated[list[OrderItem], Field(min_length=1, max_length=100)]


class OrderLine(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


class Order(BaseModel):
    id: UUID
    number: str
    status: str
    items: list[OrderLine]
    total_minor: int
    currency: str
    version: int
    created_at: datetime


class Cached(BaseModel):
    greeting: str
    numbers: list[int]


async def get_session() -> AsyncIterator[AsyncSession]:
    async with open_session() as session:
        yield session


async def get_redis() -> Redis:
    return redis


async def current_user(security_scopes: SecurityScopes, token: Annotated[str, Depends(oauth2_scheme)]) -> Badge:
    try:
        claims = jwt.decode(
            token, given.secret, algorithms=[names.ALGORITHM], audience=names.AUDIENCE, issuer=names.ISSUER
        )
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"}) from None
    badge = Badge(id=claims["sub"], scopes=claims["scopes"])
    for scope in security_scopes.scopes:
        if scope not in badge.scopes:
            raise HTTPException(403, "Not enough permissions")
    return badge


SessionDep = Annotated[AsyncSession, Depends(get_session)]
RedisDep = Annotated[Redis, Depends(get_redis)]
CurrentUser = Annotated[Badge, Depends(current_user)]
Reader = Annotated[Badge, Security(current_user, scopes=[names.PERMISSION])]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()
    await redis.aclose()


app = FastAPI(lifespan=lifespan)
router = APIRouter()


async def static() -> Envelope[Greeting]:
    return Envelope(data=Greeting(message=names.GREETING))


for prefix, paths in names.filler_groups(given.filler_routes):
    filler = APIRouter(prefix=prefix)
    for path in paths:
        filler.get(path)(static)
    app.include_router(filler)

router.get("/static")(static)


@router.get("/me")
async def me(user: CurrentUser) -> Envelope[Badge]:
    return Envelope(data=user)


@router.get("/users")
async def list_users(
    _reader: Reader,
    session: SessionDep,
    page: Annotated[int, Query(ge=1)] = 1,
    size: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Envelope[UserPage]:
    total, rows = await tables.list_users(session, page, size)
    users = [User.model_validate(row) for row in rows]
    return Envelope(data=UserPage(items=users, total=total, page=page, size=size, pages=-(-total // size)))


@router.get("/users/{user_id}")
async def get_user(_reader: Reader, user_id: UUID, session: SessionDep) -> Envelope[User]:
    user = await session.get(tables.User, user_id)
    if user is None:
        raise HTTPException(404, "User not found")
    return Envelope(data=User.model_validate(user))


@router.post("/orders", status_code=201)
async def place_order(request: PlaceOrder, user: CurrentUser, session: SessionDep) -> Envelope[Order]:
    basket: dict[UUID, int] = {}
    for item in request.items:
        basket[item.product_id] = basket.get(item.product_id, 0) + item.quantity
    try:
        placed = await tables.place_order(session, basket, customer_id=user.id)
    except tables.NotEnoughError:
        raise HTTPException(409, "Not enough in stock") from None
    await session.commit()
    order = placed.order
    return Envelope(
        code=201,
        data=Order(
            id=order.id,
            number=order.number,
            status=order.status,
            items=[OrderLine.model_validate(line) for line in placed.lines],
            total_minor=order.total_minor,
            currency=order.currency,
            version=order.version,
            created_at=order.created_at,
        ),
    )


@router.get("/cached")
async def cached(_user: CurrentUser, redis: RedisDep) -> Envelope[Cached]:
    found = await redis.get(names.CACHE_KEY)
    if found is not None:
        return Envelope(data=Cached.model_validate_json(found))
    value = Cached.model_validate(names.CACHED)
    await redis.set(names.CACHE_KEY, value.model_dump_json(), ex=names.CACHE_TTL_SECONDS)
    return Envelope(data=value)


if given.deep_routes:
    router.include_router(deep_router(given.deep_routes, static))
app.include_router(router, prefix="/bench")

"""Litestar with what its documentation teaches: JWTAuth, guards, msgspec, its SQLAlchemy plugin, its Redis store."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from litestar import Litestar, Request, Router, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler
from litestar.params import Parameter
from litestar.plugins.sqlalchemy import AsyncSessionConfig, EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemyInitPlugin
from litestar.security.jwt import JWTAuth, Token
from litestar.stores.redis import RedisStore
from sqlalchemy.ext.asyncio import AsyncSession

from bench.contenders import given as names
from bench.contenders import tables

T = TypeVar("T")
given = names.read()
database = SQLAlchemyAsyncConfig(
    connection_string=given.db_url.replace("postgresql://", "postgresql+asyncpg://"),
    engine_config=EngineConfig(pool_size=names.POOL_SIZE, max_overflow=0),
    session_config=AsyncSessionConfig(expire_on_commit=False),
    create_all=False,
)
store = RedisStore.with_client(url=given.cache_url)


class Envelope(msgspec.Struct, Generic[T]):
    code: int
    msg: str
    data: T


class Greeting(msgspec.Struct):
    message: str


class Badge(msgspec.Struct):
    id: UUID


class User(msgspec.Struct):
    id: UUID
    email: str
    username: str | None
    is_active: bool
    is_verified: bool
    created_at: datetime
    updated_at: datetime


class UserPage(msgspec.Struct):
    items: list[User]
    total: int
    page: int
    size: int
    pages: int


class OrderItem(msgspec.Struct):
    product_id: UUID
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class PlaceOrder(msgspec.Struct):
    items: Annotated[list[OrderItem], msgspec.Meta(min_length=1, max_length=100)]


class OrderLine(msgspec.Struct):
    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


class Order(msgspec.Struct):
    id: UUID
    number: str
    status: str
    items: list[OrderLine]
    total_minor: int
    currency: str
    version: int
    created_at: datetime


class Cached(msgspec.Struct):
    greeting: str
    numbers: list[int]


# Any: Litestar's own type variables.
async def retrieve_user(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> tables.User | None:
    session = database.provide_session(connection.app.state, connection.scope)
    return await session.get(tables.User, UUID(token.sub))


def may_read(connection: ASGIConnection[Any, Any, Token, Any], _handler: BaseRouteHandler) -> None:
    if names.PERMISSION not in connection.auth.extras["scopes"]:
        raise PermissionDeniedException


jwt_auth = JWTAuth[tables.User](
    retrieve_user_handler=retrieve_user,
    token_secret=given.secret,
    algorithm=names.ALGORITHM,
    accepted_audiences=[names.AUDIENCE],
    accepted_issuers=[names.ISSUER],
)


def envelope(data: T, code: int = 200) -> Envelope[T]:
    return Envelope(code, "success", data)


@get("/static", exclude_from_auth=True)
async def static() -> Envelope[Greeting]:
    return envelope(Greeting(names.GREETING))


@get("/me")
async def me(request: Request[tables.User, Token, Any]) -> Envelope[Badge]:
    return envelope(Badge(request.user.id))


@get("/users", guards=[may_read])
async def list_users(
    db_session: AsyncSession,
    page: Annotated[int, Parameter(ge=1)] = 1,
    size: Annotated[int, Parameter(ge=1, le=100)] = 50,
) -> Envelope[UserPage]:
    total, rows = await tables.list_users(db_session, page, size)
    return envelope(UserPage([user_from(row) for row in rows], total, page, size, -(-total // size)))


@get("/users/{user_id:uuid}", guards=[may_read])
async def get_user(user_id: UUID, db_session: AsyncSession) -> Envelope[User]:
    row = await db_session.get(tables.User, user_id)
    if row is None:
        raise NotFoundException
    return envelope(user_from(row))


def user_from(row: tables.User) -> User:
    return User(row.id, row.email, row.username, row.is_active, row.is_verified, row.created_at, row.updated_at)


@post("/orders")
async def place_order(
    data: PlaceOrder, request: Request[tables.User, Token, Any], db_session: AsyncSession
) -> Envelope[Order]:
    basket: dict[UUID, int] = {}
    for item in data.items:
        basket[item.product_id] = basket.get(item.product_id, 0) + item.quantity
    try:
        placed = await tables.place_order(db_session, basket, customer_id=request.user.id)
    except tables.NotEnoughError:
        raise HTTPException("Not enough in stock", status_code=409) from None
    await db_session.commit()
    order = placed.order
    lines = [
        OrderLine(line.product_id, line.sku, line.name, line.unit_price_minor, line.quantity) for line in placed.lines
    ]
    return envelope(
        Order(
            order.id,
            order.number,
            order.status,
            lines,
            order.total_minor,
            order.currency,
            order.version,
            order.created_at,
        ),
        201,
    )


@get("/cached")
async def cached() -> Envelope[Cached]:
    found = await store.get(names.CACHE_KEY)
    if found is not None:
        return envelope(msgspec.json.decode(found, type=Cached))
    value = msgspec.convert(names.CACHED, Cached)
    await store.set(names.CACHE_KEY, msgspec.json.encode(value), expires_in=names.CACHE_TTL_SECONDS)
    return envelope(value)


def filler(path: str) -> Any:  # Any: a handler, as Litestar's decorator makes it
    if "{" in path:

        @get(path.replace("{thing_id}", "{thing_id:str}"))
        async def one(thing_id: str) -> Envelope[Greeting]:
            return envelope(Greeting(thing_id))

        return one

    @get(path)
    async def many() -> Envelope[Greeting]:
        return envelope(Greeting(names.GREETING))

    return many


async def close_store() -> None:
    await store._shutdown()  # noqa: SLF001 - what Litestar calls for the stores that it knows


app = Litestar(
    route_handlers=[
        *(
            Router(prefix, route_handlers=[filler(path) for path in paths])
            for prefix, paths in names.filler_groups(given.filler_routes)
        ),
        Router("/bench", route_handlers=[static, me, list_users, get_user, place_order, cached]),
    ],
    plugins=[SQLAlchemyInitPlugin(config=database)],
    on_app_init=[jwt_auth.on_app_init],
    on_shutdown=[close_store],
)

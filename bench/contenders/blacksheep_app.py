"""BlackSheep with its own authentication, policies and injection, an asyncpg pool, and orjson in place of json."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

import asyncpg
import orjson
from blacksheep import Application, FromJSON, Response, Router, json
from blacksheep.server.authentication.jwt import JWTBearerAuthentication
from blacksheep.server.authorization import allow_anonymous, auth
from blacksheep.settings.json import json_settings
from essentials.secrets import Secret
from guardpost import AuthorizationContext, Identity, Policy
from guardpost.authorization import Requirement
from redis.asyncio import Redis

from bench.contenders import given as names
from bench.contenders.identifiers import new_id, new_number

T = TypeVar("T")
given = names.read()
MAX_QUANTITY = 10_000


def dumps(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()


json_settings.use(loads=orjson.loads, dumps=dumps)
router = Router()
app = Application(router=router)


@dataclass(slots=True)
class Envelope(Generic[T]):
    code: int
    msg: str
    data: T


@dataclass(slots=True)
class Greeting:
    message: str


@dataclass(slots=True)
class Badge:
    id: UUID


@dataclass(slots=True)
class User:
    id: str
    email: str
    username: str | None
    is_active: bool
    is_verified: bool
    created_at: datetime
    updated_at: datetime


@dataclass(slots=True)
class UserPage:
    items: list[User]
    total: int
    page: int
    size: int
    pages: int


@dataclass(slots=True)
class OrderItem:
    product_id: UUID
    quantity: int


@dataclass(slots=True)
class PlaceOrder:
    items: list[OrderItem]


@dataclass(slots=True)
class OrderLine:
    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


@dataclass(slots=True)
class Order:
    id: UUID
    number: str
    status: str
    items: list[OrderLine]
    total_minor: int
    currency: str
    version: int
    created_at: datetime


class Scope(Requirement):
    def __init__(self, name: str) -> None:
        self._name = name

    def handle(self, context: AuthorizationContext) -> None:
        identity = context.identity
        if identity is not None and self._name in identity.claims.get("scopes", ()):
            context.succeed(self)


app.use_authentication().add(
    JWTBearerAuthentication(
        valid_audiences=[names.AUDIENCE],
        valid_issuers=[names.ISSUER],
        secret_key=Secret(given.secret, direct_value=True),
    )
)
app.use_authorization().add(Policy("read", Scope(names.PERMISSION)))


@app.lifespan
async def database():  # type: ignore[no-untyped-def] # an async generator, as BlackSheep documents it
    async with asyncpg.create_pool(given.db_url, min_size=names.POOL_SIZE, max_size=names.POOL_SIZE) as pool:
        app.services.register(asyncpg.Pool, instance=pool)
        yield


@app.lifespan
async def cache():  # type: ignore[no-untyped-def] # as above
    async with Redis.from_url(given.cache_url) as client:
        app.services.register(Redis, instance=client)
        yield


def answer(data: object, status: int = 200) -> Response:
    return json(Envelope(status, "success", data), status)


def refusal(status: int, message: str) -> Response:
    return json(Envelope(status, message, None), status)


async def filler() -> Response:
    return answer(Greeting(names.GREETING))


async def filler_with_parameter(thing_id: str) -> Response:
    return answer(Greeting(thing_id))


for prefix, paths in names.filler_groups(given.filler_routes):
    for path in paths:
        router.add_get(prefix + path, filler_with_parameter if "{" in path else filler)


@allow_anonymous()
@router.get("/bench/static")
async def static() -> Response:
    return answer(Greeting(names.GREETING))


@auth()
@router.get("/bench/me")
async def me(identity: Identity) -> Response:
    return answer(Badge(UUID(identity.sub)))


COLUMNS = "id, email, username, is_active, is_verified, created_at, updated_at"


@auth("read")
@router.get("/bench/users")
async def list_users(pool: asyncpg.Pool, page: int = 1, size: int = 50) -> Response:
    if page < 1 or not 1 <= size <= 100:
        return refusal(400, "No such page")
    async with pool.acquire() as connection:
        total = await connection.fetchval("SELECT count(*) FROM users")
        rows = await connection.fetch(
            f"SELECT {COLUMNS} FROM users ORDER BY id LIMIT $1 OFFSET $2",
            size,
            (page - 1) * size,
        )
    return answer(UserPage([User(str(row[0]), *row[1:]) for row in rows], total, page, size, -(-total // size)))


@auth("read")
@router.get("/bench/users/{user_id}")
async def get_user(pool: asyncpg.Pool, user_id: UUID) -> Response:
    row = await pool.fetchrow(f"SELECT {COLUMNS} FROM users WHERE id = $1", user_id)
    return refusal(404, "User not found") if row is None else answer(User(str(row[0]), *row[1:]))


TAKE = """
UPDATE products SET reserved = reserved + $2, updated_at = now()
WHERE id = $1 AND status = 'active' AND on_hand - reserved >= $2
RETURNING sku, name, price_minor, currency
"""
PLACE = """
INSERT INTO orders (id, number, customer_id, status, total_minor, currency, version, expires_at, created_at, updated_at)
VALUES ($1, $2, $3, 'placed', $4, $5, 1, now() + interval '1 day', now(), now())
RETURNING created_at
"""
LINE = """
INSERT INTO order_lines (order_id, product_id, sku, name, unit_price_minor, quantity) VALUES ($1, $2, $3, $4, $5, $6)
"""
EVENT = "INSERT INTO order_events (order_id, version, status, actor_id, created_at) VALUES ($1, 1, 'placed', $2, now())"
MOVEMENT = """
INSERT INTO stock_movements (id, product_id, kind, quantity, reserved, reason, reference, actor_id, created_at)
VALUES ($1, $2, 'reservation', 0, $3, '', $4, $5, now())
"""


@auth()
@router.post("/bench/orders")
async def place_order(pool: asyncpg.Pool, data: FromJSON[PlaceOrder], identity: Identity) -> Response:
    basket: dict[UUID, int] = {}
    for item in data.value.items:
        if not 1 <= item.quantity <= MAX_QUANTITY:
            return refusal(400, "No such quantity")
        basket[item.product_id] = basket.get(item.product_id, 0) + item.quantity
    if not basket:
        return refusal(400, "An empty basket")
    order_id, number = new_id(), new_number()
    lines, currency = [], ""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for product_id in sorted(basket):
                row = await connection.fetchrow(TAKE, product_id, basket[product_id])
                if row is None:
                    await transaction.rollback()
                    return refusal(409, "Not enough in stock")
                currency = row["currency"]
                lines.append(OrderLine(product_id, row["sku"], row["name"], row["price_minor"], basket[product_id]))
            total = sum(line.unit_price_minor * line.quantity for line in lines)
            created_at = await connection.fetchval(PLACE, order_id, number, UUID(identity.sub), total, currency)
            await connection.executemany(
                LINE,
                [
                    (order_id, line.product_id, line.sku, line.name, line.unit_price_minor, line.quantity)
                    for line in lines
                ],
            )
            await connection.execute(EVENT, order_id, UUID(identity.sub))
            await connection.executemany(
                MOVEMENT,
                [(new_id(), line.product_id, line.quantity, f"order:{order_id}", UUID(identity.sub)) for line in lines],
            )
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()
    return answer(Order(order_id, number, "placed", lines, total, currency, 1, created_at), 201)


@auth()
@router.get("/bench/cached")
async def cached(redis: Redis) -> Response:
    found = await redis.get(names.CACHE_KEY)
    if found is not None:
        return answer(orjson.loads(found))
    await redis.set(names.CACHE_KEY, orjson.dumps(names.CACHED), ex=names.CACHE_TTL_SECONDS)
    return answer(names.CACHED)

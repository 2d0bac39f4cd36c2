"""The floor: raw ASGI, a driver and hand-made JSON, and no pattern of the service but the work itself."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

import jwt
import orjson

from bench.contenders import given as names
from bench.contenders.given import read

# Any: an ASGI message, and what JSON can hold.
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = tuple[int, bytes]
Handler = Callable[[Scope, Receive], Awaitable[Answer]]


class Store(Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def list_users(self, page: int, size: int) -> bytes:
        """The page as JSON."""

    async def find_user(self, user_id: str) -> bytes | None:
        """The user as JSON."""

    async def place_order(self, customer_id: UUID, product_id: str, quantity: int) -> bytes | None:
        """The order as JSON, or None when there is not enough in stock."""


given = read()
store: Store
if given.db_url.startswith("sqlite"):
    from bench.contenders.floor_sqlite import SQLiteStore

    store = SQLiteStore(given.db_url)
else:
    from bench.contenders.floor_postgres import PostgresStore

    store = PostgresStore(given.db_url)

OK, CREATED = b'{"code":200,"msg":"success","data":', b'{"code":201,"msg":"success","data":'
NOT_AUTHENTICATED: Answer = 401, b'{"code":401,"msg":"Not authenticated","data":null}'
NOT_ALLOWED: Answer = 403, b'{"code":403,"msg":"Not allowed","data":null}'
NOT_FOUND: Answer = 404, b'{"code":404,"msg":"Not found","data":null}'
NOT_ENOUGH: Answer = 409, b'{"code":409,"msg":"Not enough in stock","data":null}'
NOT_VALID: Answer = 422, b'{"code":422,"msg":"Not valid","data":null}'

_verified: dict[bytes, tuple[float, str, UUID, frozenset[str]]] = {}
_cache: dict[str, bytes] = {names.CACHE_KEY: orjson.dumps(names.CACHED)}


def caller(scope: Scope) -> tuple[float, str, UUID, frozenset[str]] | None:
    """Expiry, id and permissions of a verified token; a signature is checked once."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            known = _verified.get(value) or _verify(value)
            return known if known is not None and known[0] > time.time() else None
    return None


def _verify(header: bytes) -> tuple[float, str, UUID, frozenset[str]] | None:
    if not header.startswith(b"Bearer "):
        return None
    try:
        claims = jwt.decode(
            header[7:], given.secret, algorithms=[names.ALGORITHM], audience=names.AUDIENCE, issuer=names.ISSUER
        )
    except jwt.InvalidTokenError:
        return None
    known = _verified[header] = (claims["exp"], claims["sub"], UUID(claims["sub"]), frozenset(claims["scopes"]))
    return known


async def static(_scope: Scope, _receive: Receive) -> Answer:
    return 200, OK + orjson.dumps({"message": names.GREETING}) + b"}"


async def me(scope: Scope, _receive: Receive) -> Answer:
    known = caller(scope)
    if known is None:
        return NOT_AUTHENTICATED
    return 200, b'%b{"id":"%b"}}' % (OK, known[1].encode())


async def cached(scope: Scope, _receive: Receive) -> Answer:
    if caller(scope) is None:
        return NOT_AUTHENTICATED
    return 200, OK + _cache[names.CACHE_KEY] + b"}"


async def users(scope: Scope, _receive: Receive) -> Answer:
    known = caller(scope)
    if known is None:
        return NOT_AUTHENTICATED
    if names.PERMISSION not in known[3]:
        return NOT_ALLOWED
    page, size = 1, 50
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if name in {b"page", b"size"}:
            if not value.isdigit():
                return NOT_VALID
            if name == b"page":
                page = int(value)
            else:
                size = int(value)
    if page < 1 or not 1 <= size <= 100:
        return NOT_VALID
    return 200, OK + await store.list_users(page, size) + b"}"


async def user(scope: Scope, _receive: Receive) -> Answer:
    known = caller(scope)
    if known is None:
        return NOT_AUTHENTICATED
    if names.PERMISSION not in known[3]:
        return NOT_ALLOWED
    try:
        found = await store.find_user(scope["path"][len(USERS) :])
    except ValueError:
        return NOT_VALID
    return NOT_FOUND if found is None else (200, OK + found + b"}")


async def order(scope: Scope, receive: Receive) -> Answer:
    """An order of one line: the floor needs to know no more."""
    known = caller(scope)
    if known is None:
        return NOT_AUTHENTICATED
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    try:
        (item,) = orjson.loads(body)["items"]
        product_id, quantity = item["product_id"], item["quantity"]
        if type(quantity) is not int or not 1 <= quantity <= 10_000:
            return NOT_VALID
        placed = await store.place_order(known[2], product_id, quantity)
    except (ValueError, TypeError, KeyError):
        return NOT_VALID
    return NOT_ENOUGH if placed is None else (201, CREATED + placed + b"}")


USERS = "/bench/users/"
GET: dict[str, Handler] = {
    prefix + path: static for prefix, paths in names.filler_groups(given.filler_routes) for path in paths
}
GET |= {"/bench/static": static, "/bench/me": me, "/bench/users": users, "/bench/cached": cached}
POST: dict[str, Handler] = {"/bench/orders": order}
ROUTES = {"GET": GET, "POST": POST}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await _live(receive, send)
        return
    path, method = scope["path"], scope["method"]
    handler = ROUTES.get(method, {}).get(path)
    if handler is None and method == "GET" and path.startswith(USERS):
        handler = user
    status, body = NOT_FOUND if handler is None else await handler(scope, receive)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await store.open()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await store.close()
            await send({"type": "lifespan.shutdown.complete"})
            return

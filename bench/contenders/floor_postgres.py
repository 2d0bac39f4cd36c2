"""The floor's PostgreSQL: asyncpg, prepared statements, one round trip a job."""

import asyncio
from collections import deque
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson

from bench.contenders.given import POOL_SIZE
from bench.contenders.identifiers import new_id, new_number

_COLUMNS = "id, email, username, is_active, is_verified, created_at, updated_at"
_PAGE = f"SELECT {_COLUMNS}, (SELECT count(*) FROM users) AS total FROM users ORDER BY id LIMIT $1 OFFSET $2"
_USER = f"SELECT {_COLUMNS} FROM users WHERE id = $1"
_ORDER = """
WITH taken AS (
    UPDATE products SET reserved = reserved + $2, updated_at = $6::timestamptz
    WHERE id = $1 AND status = 'active' AND on_hand - reserved >= $2
    RETURNING id, sku, name, price_minor, currency
), placed AS (
    INSERT INTO orders
        (id, number, customer_id, status, total_minor, currency, version, expires_at, created_at, updated_at)
    SELECT $3, $4, $5, 'placed', price_minor * $2, currency, 1, $6 + interval '1 day', $6, $6 FROM taken
), line AS (
    INSERT INTO order_lines (order_id, product_id, sku, name, unit_price_minor, quantity)
    SELECT $3, id, sku, name, price_minor, $2 FROM taken
), event AS (
    INSERT INTO order_events (order_id, version, status, actor_id, created_at)
    SELECT $3, 1, 'placed', $5, $6 FROM taken
), movement AS (
    INSERT INTO stock_movements (id, product_id, kind, quantity, reserved, reason, reference, actor_id, created_at)
    SELECT $7, id, 'reservation', 0, $2, '', $8, $5, $6 FROM taken
)
SELECT sku, name, price_minor, currency FROM taken
"""


class _Line:
    """A connection with its statements prepared: they change no state of it, so nothing needs to reset it."""

    async def open(self, url: str) -> None:
        self._connection = await asyncpg.connect(url)
        self.page = await self._connection.prepare(_PAGE)
        self.user = await self._connection.prepare(_USER)
        self.order = await self._connection.prepare(_ORDER)
        self.count = await self._connection.prepare("SELECT count(*) FROM users")

    async def close(self) -> None:
        await self._connection.close()


class _Free:
    """The line that was used last, or the first that comes back."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._waiting: deque[asyncio.Future[_Line]] = deque()

    async def take(self) -> _Line:
        if self._lines:
            return self._lines.pop()
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return await place

    def give_back(self, line: _Line) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(line)
                return
        self._lines.append(line)


class PostgresStore:
    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._free = _Free()
        self._lines = [_Line() for _ in range(POOL_SIZE)]
        for line in self._lines:
            await line.open(self._url)
            self._free.give_back(line)

    async def close(self) -> None:
        for line in self._lines:
            await line.close()

    async def list_users(self, page: int, size: int) -> bytes:
        line = await self._free.take()
        try:
            rows = await line.page.fetch(size, (page - 1) * size)
            total = rows[0][-1] if rows else await line.count.fetchval()
        finally:
            self._free.give_back(line)
        return orjson.dumps(
            {
                "items": [_user(row) for row in rows],
                "total": total,
                "page": page,
                "size": size,
                "pages": -(-total // size),
            },
            option=orjson.OPT_UTC_Z,
        )

    async def find_user(self, user_id: str) -> bytes | None:
        wanted, line = UUID(user_id), await self._free.take()
        try:
            row = await line.user.fetchrow(wanted)
        finally:
            self._free.give_back(line)
        return None if row is None else orjson.dumps(_user(row), option=orjson.OPT_UTC_Z)

    async def place_order(self, customer_id: UUID, product_id: str, quantity: int) -> bytes | None:
        order_id, number, now = new_id(), new_number(), datetime.now(UTC)
        product, line = UUID(product_id), await self._free.take()
        try:
            row = await line.order.fetchrow(
                product, quantity, order_id, number, customer_id, now, new_id(), f"order:{order_id}"
            )
        finally:
            self._free.give_back(line)
        if row is None:
            return None
        sku, name, price_minor, currency = row
        return orjson.dumps(
            {
                "id": order_id,
                "number": number,
                "status": "placed",
                "items": [
                    {
                        "product_id": product,
                        "sku": sku,
                        "name": name,
                        "unit_price_minor": price_minor,
                        "quantity": quantity,
                    }
                ],
                "total_minor": price_minor * quantity,
                "currency": currency,
                "version": 1,
                "created_at": now,
            },
            option=orjson.OPT_UTC_Z,
        )


def _user(row: asyncpg.Record) -> dict[str, object]:
    user_id, email, username, is_active, is_verified, created_at, updated_at, *_ = row
    # The driver's UUID is a subclass that orjson does not know.
    return {
        "id": str(user_id),
        "email": email,
        "username": username,
        "is_active": is_active,
        "is_verified": is_verified,
        "created_at": created_at,
        "updated_at": updated_at,
    }

"""The floor's SQLite: the standard library's driver in the thread of the event loop, where a read takes microseconds."""

import sqlite3
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from bench.contenders.identifiers import new_id, new_number

_COLUMNS = "id, email, username, is_active, is_verified, created_at, updated_at"
_PAGE = f"SELECT {_COLUMNS}, (SELECT count(*) FROM users) AS total FROM users ORDER BY id LIMIT ? OFFSET ?"
_USER = f"SELECT {_COLUMNS} FROM users WHERE id = ?"
_TAKE = """
UPDATE products SET reserved = reserved + ?, updated_at = ?
WHERE id = ? AND status = 'active' AND on_hand - reserved >= ?
RETURNING sku, name, price_minor, currency
"""
_PLACE = """
INSERT INTO orders (id, number, customer_id, status, total_minor, currency, version, expires_at, created_at, updated_at)
VALUES (?, ?, ?, 'placed', ?, ?, 1, ?, ?, ?)
"""
_LINE = "INSERT INTO order_lines VALUES (?, ?, ?, ?, ?, ?)"
_EVENT = "INSERT INTO order_events (order_id, version, status, actor_id, created_at) VALUES (?, 1, 'placed', ?, ?)"
_MOVEMENT = """
INSERT INTO stock_movements (id, product_id, kind, quantity, reserved, reason, reference, actor_id, created_at)
VALUES (?, ?, 'reservation', 0, ?, '', ?, ?, ?)
"""


class SQLiteStore:
    def __init__(self, url: str) -> None:
        self._path = url.split(":///", 1)[1]

    async def open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, cached_statements=64)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")

    async def close(self) -> None:
        self._db.close()

    async def list_users(self, page: int, size: int) -> bytes:
        rows = self._db.execute(_PAGE, (size, (page - 1) * size)).fetchall()
        total = rows[0][-1] if rows else self._db.execute("SELECT count(*) FROM users").fetchone()[0]
        return orjson.dumps(
            {
                "items": [_user(row) for row in rows],
                "total": total,
                "page": page,
                "size": size,
                "pages": -(-total // size),
            }
        )

    async def find_user(self, user_id: str) -> bytes | None:
        row = self._db.execute(_USER, (UUID(user_id).hex,)).fetchone()
        return None if row is None else orjson.dumps(_user(row))

    async def place_order(self, customer_id: UUID, product_id: str, quantity: int) -> bytes | None:
        order_id, number, now = new_id(), new_number(), datetime.now(UTC)
        stored, due = (
            moment.replace(tzinfo=None).isoformat(" ", "microseconds") for moment in (now, now + timedelta(days=1))
        )
        run, product = self._db.execute, UUID(product_id).hex
        run("BEGIN IMMEDIATE")
        try:
            taken = run(_TAKE, (quantity, stored, product, quantity)).fetchone()
            if taken is None:
                run("ROLLBACK")
                return None
            sku, name, price_minor, currency = taken
            total = price_minor * quantity
            run(_PLACE, (order_id.hex, number, customer_id.hex, total, currency, due, stored, stored))
            run(_LINE, (order_id.hex, product, sku, name, price_minor, quantity))
            run(_EVENT, (order_id.hex, customer_id.hex, stored))
            run(_MOVEMENT, (new_id().hex, product, quantity, f"order:{order_id}", customer_id.hex, stored))
            run("COMMIT")
        except sqlite3.Error:
            run("ROLLBACK")
            raise
        return orjson.dumps(
            {
                "id": order_id,
                "number": number,
                "status": "placed",
                "items": [
                    {
                        "product_id": UUID(product_id),
                        "sku": sku,
                        "name": name,
                        "unit_price_minor": price_minor,
                        "quantity": quantity,
                    }
                ],
                "total_minor": total,
                "currency": currency,
                "version": 1,
                "created_at": now,
            },
            option=orjson.OPT_UTC_Z,
        )


def _user(row: tuple[str, str, str | None, int, int, str, str]) -> dict[str, object]:
    user_id, email, username, is_active, is_verified, created_at, updated_at, *_ = row
    return {
        "id": f"{user_id[:8]}-{user_id[8:12]}-{user_id[12:16]}-{user_id[16:20]}-{user_id[20:]}",
        "email": email,
        "username": username,
        "is_active": is_active == 1,
        "is_verified": is_verified == 1,
        "created_at": _moment(created_at),
        "updated_at": _moment(updated_at),
    }


def _moment(stored: str) -> str:
    return f"{stored[:10]}T{stored[11:]}Z"

"""The databases that all contenders share: migrated by the service, filled with the same rows each time."""

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg

from tests.support.server import run_command

T = TypeVar("T")
USERS: Final = 1_000
PRODUCTS: Final = 1_000
ADMIN_EMAIL: Final = "admin@example.com"
ADMIN_PASSWORD: Final = "a quiet floor of oak and stone"
_DAY_ONE: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STOCK: Final = 10**12
_USER_COLUMNS: Final = (
    "id", "email", "email_key", "username", "username_key", "is_active", "is_verified", "auth_epoch",
    "created_at", "updated_at",
)  # fmt: skip
_PRODUCT_COLUMNS: Final = (
    "id", "sku", "sku_key", "name", "description", "price_minor", "currency", "status", "on_hand", "reserved",
    "version", "created_at", "updated_at",
)  # fmt: skip
_BUSY: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
)
_ADD_USERS: Final = (
    "INSERT INTO users (id, email, email_key, is_active, is_verified, auth_epoch, created_at, updated_at)"
    " SELECT gen_random_uuid(), email, email, $2, $3, 0, now(), now() FROM unnest($1::text[]) email"
)
_ADD_CREDENTIALS: Final = (
    "INSERT INTO credentials (user_id, password_hash, created_at, updated_at)"
    " SELECT u.id, c.password_hash, now(), now() FROM users u, credentials c"
    " WHERE u.email = ANY ($1) AND c.user_id = $2"
)
_ADD_SESSIONS: Final = (
    "INSERT INTO auth_sessions (id, user_id, created_at, last_used_at, expires_at, address, user_agent)"
    " SELECT gen_random_uuid(), id, now(), now(), now() + interval '90 days', place, ''"
    " FROM users, unnest($2::text[]) place WHERE email = ANY ($1)"
)
Row = tuple[Any, ...]  # Any: values of several columns


@dataclass(frozen=True, slots=True)
class Database:
    url: str
    admin_id: UUID

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")


def seeded_id(kind: int, n: int) -> UUID:
    """A UUID of version 7 that is the same in each run: `n` milliseconds after the first day of 2026."""
    milliseconds = int(_DAY_ONE.timestamp() * 1000) + n
    scattered = (n * 0x9E3779B97F4A7C15 + kind) & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 0x7 << 76 | kind << 64 | 0b10 << 62 | scattered)


def user_rows(first: int, end: int) -> Iterator[Row]:
    for n in range(first, end):
        # Microseconds are never 0: JSON libraries disagree about how to write that.
        made = _DAY_ONE + timedelta(seconds=n, microseconds=n * 7919 % 999_999 + 1)
        email, name = f"user{n}@example.com", f"user{n}" if n % 3 else None
        yield seeded_id(1, n), email, email, name, name, n % 50 != 7, n % 5 != 2, 0, made, made + timedelta(days=n % 90)


def product_rows() -> Iterator[Row]:
    for n in range(PRODUCTS):
        sku, made = f"BENCH-{n:04}", _DAY_ONE + timedelta(seconds=n, microseconds=1)
        price = 100 + n * 37 % 9_900
        yield seeded_id(2, n), sku, sku.casefold(), f"Product {n}", "", price, "EUR", "active", _STOCK, 0, 1, made, made


def make_postgres(server_url: str, place: Path) -> Database:
    """A database of one's own on the server."""
    name = f"undercroft_bench_{uuid4().hex[:12]}"
    _run(server_url, lambda c: c.execute(f'CREATE DATABASE "{name}"'))
    return _migrated(urlsplit(server_url)._replace(path=f"/{name}").geturl(), place)


def drop_postgres(server_url: str, database: Database) -> None:
    name = urlsplit(database.url).path.removeprefix("/")
    _run(server_url, lambda c: c.execute(f'DROP DATABASE "{name}" WITH (FORCE)'))


def make_sqlite(place: Path) -> Database:
    return _migrated(f"sqlite+aiosqlite:///{place / 'bench.sqlite'}", place)


def _migrated(url: str, place: Path) -> Database:
    env = {"DB__URL": url}
    for arguments, stdin in ((["migrate"], ""), (["create-admin", "--email", ADMIN_EMAIL], ADMIN_PASSWORD + "\n")):
        ended = run_command(*arguments, env=env, cwd=place, stdin=stdin)
        if ended.returncode:
            raise subprocess.CalledProcessError(ended.returncode, arguments, ended.stdout, ended.stderr)
    database = Database(url, UUID(str(_select(url, "SELECT id FROM users")[0][0])))
    add_users(database, 0, USERS - 1)
    _insert(database, "products", _PRODUCT_COLUMNS, product_rows())
    tidy(database)
    return database


def add_users(database: Database, first: int, end: int) -> None:
    _insert(database, "users", _USER_COLUMNS, user_rows(first, end))


def add_accounts(
    database: Database, emails: list[str], *, is_active: bool, is_verified: bool, used_from: list[str]
) -> None:
    """That log in with the administrator's password, and did so from those places. Only on PostgreSQL."""

    async def add(connection: asyncpg.Connection) -> None:
        await connection.execute(_ADD_USERS, emails, is_active, is_verified)
        await connection.execute(_ADD_CREDENTIALS, emails, database.admin_id)
        await connection.execute(_ADD_SESSIONS, emails, used_from)

    _run(database.url, add)


def password_hash(database: Database) -> str:
    """Of the administrator."""
    return str(_select(database.url, "SELECT password_hash FROM credentials")[0][0])


def tidy(database: Database) -> None:
    if not database.is_sqlite:
        _run(database.url, lambda c: c.execute("VACUUM ANALYZE"))


_OF_ORDERS = (
    *("payments", "order_lines", "order_events", "orders"),
    *("stock_movements", "outbox_events", "idempotency_records"),
)


def forget_orders(database: Database) -> None:
    """Before each run of orders: the same empty tables for everyone."""
    if database.is_sqlite:
        with sqlite3.connect(_path(database.url)) as connection:
            connection.execute("DROP TRIGGER IF EXISTS stock_movements_no_delete")  # append-only
            for table in _OF_ORDERS:
                connection.execute(f"DELETE FROM {table}")
        connection.close()
        return

    async def forget(connection: asyncpg.Connection) -> None:
        # What was in flight when the last load ended.
        while await connection.fetchval(_BUSY):
            await asyncio.sleep(0.02)
        await connection.execute("ALTER TABLE stock_movements DISABLE TRIGGER USER")  # append-only
        await connection.execute(f"TRUNCATE {', '.join(_OF_ORDERS)}")
        await connection.execute("VACUUM ANALYZE products")

    _run(database.url, forget)


def orders_agree(database: Database) -> bool:
    """Whether each order has all that belongs to it: line, history and ledger."""
    rows = _select(
        database.url,
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_lines),"
        " (SELECT count(*) FROM order_events), (SELECT count(*) FROM stock_movements),"
        " (SELECT count(*) FROM orders o JOIN order_lines l ON l.order_id = o.id"
        " WHERE o.total_minor = l.unit_price_minor * l.quantity)",
    )
    orders, *others = rows[0]
    return bool(orders > 0 and all(count == orders for count in others))


def _insert(database: Database, table: str, columns: tuple[str, ...], rows: Iterator[Row]) -> None:
    if not database.is_sqlite:
        _run(database.url, lambda c: c.copy_records_to_table(table, columns=columns, records=rows))
        return
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    with sqlite3.connect(_path(database.url)) as connection:
        connection.executemany(statement, (tuple(map(_for_sqlite, row)) for row in rows))
    connection.close()


def _for_sqlite(value: object) -> object:
    """As the service's tables store it there."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    return value


def _path(url: str) -> str:
    return url.split(":///", 1)[1]


def _run(url: str, work: Callable[[asyncpg.Connection], Coroutine[Any, Any, T]]) -> T:  # Any: coroutines have it so
    async def run() -> T:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def _select(url: str, query: str) -> list[Row]:
    if url.startswith("sqlite"):
        with sqlite3.connect(_path(url)) as connection:
            rows: list[Row] = connection.execute(query).fetchall()
        connection.close()
        return rows
    return [tuple(row) for row in _run(url, lambda c: c.fetch(query))]


# --- what the right answers are ---------------------------------------------------------------------------------------


def user_json(row: Row) -> dict[str, object]:
    user_id, email, _, username, _, is_active, is_verified, _, created_at, updated_at = row
    return {
        "id": str(user_id),
        "email": email,
        "username": username,
        "is_active": is_active,
        "is_verified": is_verified,
        "created_at": _utc(created_at),
        "updated_at": _utc(updated_at),
    }


def _utc(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def envelope(data: object, code: int = 200) -> bytes:
    body = {"code": code, "msg": "success", "data": data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()

"""All rows of a database, to be compared: whether anything at all was changed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from tests.support.postgres import execute

# What the service writes by itself, in its own time; and the audit log, which has the refusals too.
PASSING = {
    *("cache_leases", "outbox_events", "one_time_tokens", "audit_entries", "audit_head"),
    *("webhook_deliveries", "webhook_attempts"),
}
# Of an API key all but when it was last used: that is noted for who is refused, too. Of a webhook what its owner says.
COLUMNS = {
    "api_keys": "id, user_id, name, permissions, expires_at, revoked_at",
    "webhook_endpoints": "id, owner_id, second_factor, url, description, event_types, secret, is_enabled",
}


def snapshot(url: str) -> dict[str, list[str]]:
    """The rows of each table, in an order of their own."""
    rows = _of_file(url.partition(":///")[2]) if url.startswith("sqlite") else _of_postgres(url)
    tables: dict[str, list[str]] = {}
    for table, row in rows:
        tables.setdefault(table, []).append(row)
    assert tables.keys() >= {"users", "roles"}
    return {table: sorted(rows) for table, rows in tables.items() if table not in PASSING}


def _of_file(path: str) -> Iterator[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT {COLUMNS.get(table, "*")} FROM "{table}"'):
                yield table, repr(row)


def _of_postgres(url: str) -> Iterator[tuple[str, str]]:
    tables = [row[0] for row in execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    rows = {table: f"({COLUMNS[table]})" if table in COLUMNS else f'"{table}"' for table in tables}
    parts = [f"SELECT '{table}' AS t, {row}::text AS row FROM \"{table}\"" for table, row in rows.items()]
    for row in execute(url, " UNION ALL ".join(parts)):
        yield row["t"], row["row"]


def changed(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """The rows that came, went or became others: table and row."""
    return [
        f"{table}: {row}"
        for table in sorted(before.keys() | after.keys())
        for row in sorted(set(before.get(table, [])) ^ set(after.get(table, [])))
    ]

"""Runs the revisions on the database of the settings."""

import asyncio
import pkgutil
from importlib import import_module
from typing import Any

from alembic import context
from sqlalchemy import Connection, event, text

import src
from src.config import get_settings
from src.shared.database import create_engine, metadata

# Each domain keeps its tables in a module of this name: a new one is found without a line here.
for module in pkgutil.walk_packages(src.__path__, "src."):
    if module.name.endswith(".models"):
        import_module(module.name)
import_module("src.shared.leases")  # a table of the house's own


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata(),
        # SQLite cannot alter a table: alembic builds it anew.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def leave_references(connection: Any, _record: object) -> None:  # Any: the driver's connection, adapted
    """A table that is built anew is dropped on the way, and what refers to it would be deleted with its rows."""
    connection.cursor().execute("PRAGMA foreign_keys = OFF")


async def migrate() -> None:
    engine = create_engine(get_settings())
    on_sqlite = engine.dialect.name == "sqlite"
    if on_sqlite:
        event.listen(engine.sync_engine, "connect", leave_references)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            if on_sqlite and (broken := (await connection.execute(text("PRAGMA foreign_key_check"))).all()):
                raise RuntimeError(f"References that lead nowhere: {broken[:10]}")
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(migrate())

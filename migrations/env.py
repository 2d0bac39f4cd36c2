"""Runs the revisions on the database of the settings."""

import asyncio
import pkgutil
from importlib import import_module

from alembic import context
from sqlalchemy import Connection

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


async def migrate() -> None:
    engine = create_engine(get_settings())
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(migrate())

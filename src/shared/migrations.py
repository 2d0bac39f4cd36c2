"""Bringing the tables of a database to this version, and telling whether they are there."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import text

from src.shared.database import transaction

SCRIPTS = Path(__file__).parents[2] / "migrations"


def config() -> Config:
    alembic = Config()
    alembic.set_main_option("script_location", str(SCRIPTS))
    return alembic


def upgrade() -> None:
    """Not within an event loop: the script starts its own."""
    command.upgrade(config(), "head")


def downgrade(revision: str) -> None:
    command.downgrade(config(), revision)


def write(message: str) -> Path:
    """A new revision for the difference between the tables and the models, on a database that is at the newest one."""
    number = f"{len(list((SCRIPTS / 'versions').glob('*.py'))) + 1:04}"
    script = command.revision(config(), message, autogenerate=True, rev_id=number)
    assert isinstance(script, Script)
    return Path(script.path)


@cache
def newest() -> str | None:
    return ScriptDirectory.from_config(config()).get_current_head()


async def is_current() -> bool:
    """Whether the tables are those of this version. A table that is not there is an error of the database."""
    async with transaction() as session:
        found = await session.execute(text("SELECT version_num FROM alembic_version"))
        return found.scalars().all() == [newest()]

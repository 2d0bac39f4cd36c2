"""Whether this process should be sent traffic."""

from typing import Annotated

from fastapi import Depends
from loguru import logger

from src.shared import migrations
from src.shared.database import DATABASE_ERRORS


class Readiness:
    """Asks the database with each call; that its tables are of this version is remembered once it was true."""

    def __init__(self) -> None:
        self.draining = False

    async def problem(self) -> str | None:
        """Why not, for people; None when ready."""
        if self.draining:
            return "Shutting down"
        try:
            current = await migrations.is_current()
        except DATABASE_ERRORS as error:
            logger.bind(error=type(error).__name__).warning("Not ready: no database, or no tables in it")
            return "The database does not answer, or has no tables yet"
        return None if current else "The database's tables are of another version: run `python -m src migrate`"


_readiness = Readiness()


async def get_readiness() -> Readiness:
    return _readiness


ReadinessDep = Annotated[Readiness, Depends(get_readiness)]

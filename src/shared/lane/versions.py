"""The libraries whose inner workings the lane knows. With any other the service takes the ordinary path."""

from functools import lru_cache
from importlib.metadata import version

from loguru import logger

_KNOWN = {
    "sqlalchemy": ("2.1.",),
    "asyncpg": ("0.32.",),
    "aiosqlite": ("0.22.",),
    "fastapi-pagination": ("0.16.",),
}


@lru_cache(maxsize=1)
def libraries_known() -> bool:
    """Says so once if not."""
    strange = {name: found for name, known in _KNOWN.items() if not (found := version(name)).startswith(known)}
    if strange:
        logger.warning("The data lane is off: it does not know these versions", libraries=strange)
    return not strange

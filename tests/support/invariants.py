"""What is true of the tables after anything that anybody did: what `python -m src doctor` asks."""

from src.doctor import INVARIANTS
from tests.support.tables import execute_each


def check_books(database_url: str) -> None:
    """Call it when nobody writes: the sentences are checked one after another."""
    broken = execute_each(database_url, [invariant.query() for invariant in INVARIANTS])
    for invariant, rows in zip(INVARIANTS, broken, strict=True):
        assert rows == [], f"not true: {invariant.sentence}"

"""A shop with staff and buyers, whose books are checked after each race."""

from collections.abc import Iterator

import pytest

from tests.races.scenarios import Shop, open_shop
from tests.support.invariants import check_books
from tests.support.server import Server


@pytest.fixture(autouse=True)
def books(database_url: str) -> Iterator[None]:
    yield
    check_books(database_url)


@pytest.fixture(scope="session")
def shop(server: Server, database_url: str, admin_email: str) -> Shop:
    """Some people stand for many: an account's password costs a core for a while."""
    return open_shop([server.url], database_url, admin=admin_email, buyers=8)

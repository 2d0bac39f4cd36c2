"""Who is attacked: people with sessions."""

from tests.auth.conftest import open_session

__all__ = ["open_session"]

"""Who is attacked: people with sessions, and with second factors."""

from tests.auth.conftest import guard, open_session

__all__ = ["guard", "open_session"]

"""Who people are and what they may do: accounts, roles, permissions, the auth epoch; no secrets."""

from src.users.models import User

__all__ = ["User"]

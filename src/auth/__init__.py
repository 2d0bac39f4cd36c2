"""Who is calling: credentials, sessions, tokens, and the dependencies that guard routes."""

from src.auth.dependencies import current_user, owner_or_perm, require_mfa, require_permissions, require_roles

__all__ = ["current_user", "owner_or_perm", "require_mfa", "require_permissions", "require_roles"]

"""Tables of credentials, sessions and refresh tokens: secrets live here, hashed, and nowhere else."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin, utc_now
from src.shared.types import new_id


class Credential(SQLModel, TimestampMixin, table=True):
    __tablename__ = "credentials"

    user_id: UUID = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    password_hash: str = Field(max_length=255)


class AuthSession(SQLModel, table=True):
    """One log-in on one device: the family of its refresh tokens, and the row that each path locks."""

    __tablename__ = "auth_sessions"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    created_at: datetime = Field(default_factory=utc_now)
    last_used_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    """Absolute end, whatever is refreshed until then."""
    revoked_at: datetime | None = Field(default=None)
    address: str = Field(default="", max_length=45)
    user_agent: str = Field(default="", max_length=255)


class RefreshToken(SQLModel, table=True):
    __tablename__ = "refresh_tokens"

    token_hash: str = Field(primary_key=True, max_length=64)
    """SHA-256, hexadecimal: the token has 256 bits of its own, so it needs no slow hash."""
    session_id: UUID = Field(foreign_key="auth_sessions.id", index=True, ondelete="CASCADE")
    expires_at: datetime
    used_at: datetime | None = Field(default=None)
    """When it was exchanged for its successor."""

"""Tables of credentials, sessions and refresh tokens: secrets live here, hashed, and nowhere else."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Enum, Index, false
from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin, utc_now
from src.shared.types import new_id


class Credential(SQLModel, TimestampMixin, table=True):
    __tablename__ = "credentials"

    user_id: UUID = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    password_hash: str = Field(max_length=255)
    is_contested: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Somebody else registered the address too, before it was verified: only a new password, by mail, settles whose it is."""


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


class Purpose(StrEnum):
    VERIFY_ADDRESS = "verify_address"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - a name, no secret
    ACCEPT_INVITATION = "accept_invitation"
    CHANGE_ADDRESS = "change_address"


class OneTimeToken(SQLModel, table=True):
    """What a mail carries: good once, for one thing, until the next one of its kind is made."""

    __tablename__ = "one_time_tokens"
    __table_args__ = (Index("ix_one_time_tokens_user_id_purpose", "user_id", "purpose"),)

    token_hash: str = Field(primary_key=True, max_length=64)
    """As that of a refresh token."""
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    purpose: Purpose = Field(
        sa_type=Enum(
            Purpose,
            native_enum=False,
            create_constraint=True,
            length=32,
            name="one_time_purpose",
            values_callable=lambda kinds: [kind.value for kind in kinds],
        )
    )
    email: str = Field(max_length=320, index=True)
    """Where it was sent."""
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    used_at: datetime | None = Field(default=None)
    """Or when a newer one took its place."""


class SigningKey(SQLModel, table=True):
    """A key of access tokens. What it is follows from AUTH__SECRET and its id: nothing secret stands here."""

    __tablename__ = "signing_keys"

    id: str = Field(primary_key=True, max_length=64)
    """`kid` of the tokens' headers (RFC 7515 §4.1.4)."""
    algorithm: str = Field(max_length=16)
    created_at: datetime = Field(default_factory=utc_now)
    retired_at: datetime | None = Field(default=None)
    """From then on no token under it is accepted."""

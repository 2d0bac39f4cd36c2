"""Tables of credentials, factors, sessions and tokens: secrets live here, hashed or sealed, and nowhere else."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Enum, Index, UniqueConstraint, false
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
    second_factor_at: datetime | None = Field(default=None)
    """When a second factor was last proven in it."""
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
    LINK_PROVIDER = "link_provider"


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
    facts: dict[str, str] = Field(default_factory=dict, sa_type=JSON, sa_column_kwargs={"server_default": "{}"})
    """What it is about, where its purpose does not say all."""
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    used_at: datetime | None = Field(default=None)
    """Or when a newer one took its place."""


class SecondFactorMethod(StrEnum):
    TOTP = "totp"
    PASSKEY = "passkey"
    RECOVERY_CODE = "recovery_code"


class TotpFactor(SQLModel, TimestampMixin, table=True):
    """What an authenticator app has (RFC 6238)."""

    __tablename__ = "totp_factors"

    user_id: UUID = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    sealed_secret: bytes
    confirmed_at: datetime | None = Field(default=None)
    """Until then it protects nothing."""
    last_step: int = Field(default=0, sa_type=BigInteger)
    """The time step of the newest code that was taken: no code of it, or before it, is taken again (§5.2)."""
    last_used_at: datetime | None = Field(default=None)


class RecoveryCode(SQLModel, table=True):
    """Stands for a second factor that was lost, once."""

    __tablename__ = "recovery_codes"

    code_hash: str = Field(primary_key=True, max_length=64)
    """HMAC-SHA-256, hexadecimal, of its owner's id and itself."""
    user_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    created_at: datetime = Field(default_factory=utc_now)
    used_at: datetime | None = Field(default=None)


class Passkey(SQLModel, table=True):
    """A public key of an authenticator (Web Authentication): what stands here opens nothing."""

    __tablename__ = "passkeys"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    name: str = Field(max_length=64)
    credential_id: bytes = Field(max_length=1023, unique=True)
    public_key: bytes
    sign_count: int = Field(default=0, sa_type=BigInteger)
    """As the authenticator counts its uses; 0 of one that does not."""
    transports: list[str] = Field(sa_type=JSON)
    is_synced: bool
    created_at: datetime = Field(default_factory=utc_now)
    last_used_at: datetime | None = Field(default=None)


class PasskeyChallenge(SQLModel, table=True):
    """What an authenticator signs: good once, for what it was made for."""

    __tablename__ = "passkey_challenges"

    challenge_hash: str = Field(primary_key=True, max_length=64)
    bound_to: str = Field(max_length=128)
    """What for, and for whose session or log-in."""
    expires_at: datetime
    used_at: datetime | None = Field(default=None)


class LoginChallenge(SQLModel, table=True):
    """A log-in whose password was right, and whose second factor is waited for."""

    __tablename__ = "login_challenges"

    token_hash: str = Field(primary_key=True, max_length=64)
    """As that of a refresh token."""
    user_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    auth_epoch: int
    """The account's: what ends its sessions ends this, too."""
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    used_at: datetime | None = Field(default=None)


class ProviderLink(SQLModel, table=True):
    """Whom a provider (OpenID Connect) means by a subject. It never means anybody else by it."""

    __tablename__ = "provider_links"
    __table_args__ = (UniqueConstraint("issuer", "subject"), UniqueConstraint("user_id", "issuer"))

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    issuer: str = Field(max_length=512)
    subject: str = Field(max_length=255)
    created_at: datetime = Field(default_factory=utc_now)
    last_used_at: datetime | None = Field(default=None)


class ProviderErrand(SQLModel, table=True):
    """A browser that was sent to a provider: good once, for what it was sent for."""

    __tablename__ = "provider_errands"

    token_hash: str = Field(primary_key=True, max_length=64)
    """As that of a refresh token."""
    provider: str = Field(max_length=32)
    session_id: UUID | None = Field(default=None, foreign_key="auth_sessions.id", ondelete="CASCADE", index=True)
    """Whose account is to be linked; None of a log-in."""
    expires_at: datetime
    used_at: datetime | None = Field(default=None)


class ApiKey(SQLModel, table=True):
    """What a machine calls with, in the name of its owner."""

    __tablename__ = "api_keys"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    user_id: UUID = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    name: str = Field(max_length=64)
    key_hash: str = Field(max_length=64, unique=True)
    """As that of a refresh token."""
    last_letters: str = Field(max_length=4)
    """To be recognised by who has it at hand."""
    permissions: list[str] = Field(sa_type=JSON)
    """At most these, and of them what the owner holds when it is used."""
    second_factor: bool
    """Whether the session that made it had proven one: roles that require it count for its keys, too."""
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    revoked_at: datetime | None = Field(default=None)
    last_used_at: datetime | None = Field(default=None)
    last_used_address: str = Field(default="", max_length=45)


class SigningKey(SQLModel, table=True):
    """A key of access tokens. What it is follows from AUTH__SECRET and its id: nothing secret stands here."""

    __tablename__ = "signing_keys"

    id: str = Field(primary_key=True, max_length=64)
    """`kid` of the tokens' headers (RFC 7515 §4.1.4)."""
    algorithm: str = Field(max_length=16)
    created_at: datetime = Field(default_factory=utc_now)
    retired_at: datetime | None = Field(default=None)
    """From then on no token under it is accepted."""

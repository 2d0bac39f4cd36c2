"""The audit log, and where it ends."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Text
from sqlmodel import Field, SQLModel


class AuditEntry(SQLModel, table=True):
    """Triggers refuse to change or delete a row; each one's digest covers the one before."""

    __tablename__ = "audit_entries"

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    """Without gaps."""
    created_at: datetime = Field(index=True)
    action: str = Field(max_length=64, index=True)
    outcome: str = Field(max_length=16)
    actor_id: UUID | None = Field(default=None, index=True)
    """No foreign key: a row outlives whom it names."""
    source: str = Field(max_length=16)
    target_type: str = Field(max_length=32)
    target_id: str = Field(max_length=128, index=True)
    before: str = Field(sa_type=Text)
    after: str = Field(sa_type=Text)
    """JSON texts, as the digest covers them."""
    request_id: str = Field(max_length=128, index=True)
    address: str = Field(max_length=45)
    user_agent: str = Field(max_length=255)
    digest: str = Field(max_length=64)
    """HMAC-SHA256 under a key that is not in the database, of the digest before and all that stands above."""


class AuditHead(SQLModel, table=True):
    """One row, the lock of who adds to the log: a chain has one end."""

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    seq: int = Field(sa_type=BigInteger)
    digest: str = Field(max_length=64)

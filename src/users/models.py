"""Tables of people, roles and their links. None has a secret column: `return user` is safe."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, false
from sqlmodel import Field, SQLModel

from src.mixins import TimestampMixin
from src.shared.types import new_id


class User(SQLModel, TimestampMixin, table=True):
    __tablename__ = "users"
    __table_args__ = (Index("ix_users_created_at_id", "created_at", "id"),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    email: str = Field(max_length=320)
    username: str | None = Field(default=None, max_length=64)
    is_active: bool = Field(default=True)
    is_verified: bool = Field(default=False)
    email_key: str = Field(max_length=640, unique=True, exclude=True)
    """The address as it is compared: NFKC, case-folded, IDNA."""
    username_key: str | None = Field(default=None, max_length=256, unique=True, exclude=True)
    auth_epoch: int = Field(default=0, exclude=True)
    """Goes up with each change that takes a right away; tokens of an older epoch are void."""
    deleted_at: datetime | None = Field(default=None, exclude=True)


class Role(SQLModel, TimestampMixin, table=True):
    __tablename__ = "roles"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=64, unique=True)
    description: str = Field(default="", max_length=255)
    is_system: bool = Field(default=False)
    """Made by a migration; cannot be changed or deleted."""
    requires_second_factor: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Counts only in sessions that proved one."""


class RolePermission(SQLModel, table=True):
    __tablename__ = "role_permissions"
    __table_args__ = (CheckConstraint("permission <> ''", name="permission_not_empty"),)

    role_id: UUID = Field(foreign_key="roles.id", primary_key=True, ondelete="CASCADE")
    permission: str = Field(max_length=128, primary_key=True)
    """`module:action`, `module`, `module:*` or `*`."""


class UserRole(SQLModel, table=True):
    __tablename__ = "user_roles"
    __table_args__ = (UniqueConstraint("role_id", "user_id"),)

    user_id: UUID = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    role_id: UUID = Field(foreign_key="roles.id", primary_key=True, ondelete="CASCADE")

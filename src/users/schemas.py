"""Letters about accounts and roles."""

import unicodedata
from contextlib import suppress
from typing import Annotated, Literal
from uuid import UUID

import idna
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError

from src.shared.types import Line, LocalDatetime, QueryModel, RequestModel, ResponseModel

MAX_KEY_LENGTH = 256
"""The column's."""


def _valid_email(value: str) -> str:
    value = unicodedata.normalize("NFKC", value).strip()
    try:
        # Whether the domain takes mail is found out by sending one.
        return validate_email(
            value, check_deliverability=False, allow_quoted_local=False, test_environment=True
        ).normalized
    except (EmailNotValidError, UnicodeError):
        raise PydanticCustomError("email_invalid", "Not a valid e-mail address") from None


def email_key(address: str) -> str:
    """The address as it is compared, so that one mailbox is one account: NFKC, case-folded, IDNA."""
    local, _, domain = unicodedata.normalize("NFKC", address).strip().casefold().rpartition("@")
    # What is no domain was never registered with us; it is compared as it is.
    with suppress(idna.IDNAError):
        # Folded once more as Unicode: what `xn--` stands for was hidden from the first time.
        domain = idna.encode(idna.decode(domain, uts46=True).casefold(), uts46=True).decode()
    # Case folding can leave NFKC (U+0345): normalise again, as Unicode's NFKC_Casefold does.
    return f"{unicodedata.normalize('NFKC', local)}@{domain}"


def username_key(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _comparable(name: str) -> str:
    if any(unicodedata.category(letter) == "Cf" for letter in name):
        raise PydanticCustomError("username_invisible", "Invisible characters are not allowed")
    if len(username_key(name)) > MAX_KEY_LENGTH:  # one character can be eighteen in NFKC
        raise PydanticCustomError("username_too_long", "This name is too long to be compared")
    return name


Email = Annotated[Line, AfterValidator(_valid_email)]
Username = Annotated[
    str, StringConstraints(min_length=3, max_length=64, pattern=r"^[\w.-]+$"), AfterValidator(_comparable)
]
UserSort = Literal["created_at", "-created_at", "email", "-email"]


class UserFilters(QueryModel):
    """Filters of the list of users."""

    email: Annotated[Line | None, Field(description="Addresses that contain this")] = None
    is_active: bool | None = None
    is_verified: bool | None = None
    role: Annotated[Line | None, Field(description="Accounts with this role")] = None
    sort: UserSort = "created_at"


class UserResponse(ResponseModel):
    id: UUID
    email: str
    username: str | None
    is_active: bool
    is_verified: bool
    created_at: LocalDatetime


class UserWithRolesResponse(UserResponse):
    roles: list[str]


class UpdateProfileRequest(RequestModel):
    username: Username | None = None


class UpdateUserRequest(UpdateProfileRequest):
    is_active: StrictBool | None = None
    is_verified: StrictBool | None = None


class SetRolesRequest(RequestModel):
    roles: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=64)]], Field(max_length=32)]


RoleName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_-]*$")]
RolePermissions = Annotated[
    list[Annotated[Line, StringConstraints(min_length=1, max_length=128)]],
    Field(max_length=256, description="`module:action`, `module:*` or `*`"),
]


class CreateRoleRequest(RequestModel):
    name: RoleName
    description: Line = ""
    permissions: RolePermissions


class UpdateRoleRequest(RequestModel):
    """What is left out stays as it is."""

    name: RoleName | None = None
    description: Line | None = None
    permissions: RolePermissions | None = None


class RequireSecondFactorRequest(RequestModel):
    required: StrictBool


class RoleResponse(ResponseModel):
    id: UUID
    name: str
    description: str
    is_system: bool
    requires_second_factor: bool
    permissions: list[str]


class PermissionResponse(ResponseModel):
    name: str
    description: str


class UserStatsResponse(ResponseModel):
    total: int
    active: int
    verified: int

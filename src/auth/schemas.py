"""Letters about log-in and sessions."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, SecretStr, StringConstraints

from src.shared.types import Line, LocalDatetime, RequestModel, ResponseModel
from src.users.schemas import Email, Username

# NIST SP 800-63B §5.1.1.2 asks for room for long ones; 1024 bounds the work.
NewPassword = Annotated[SecretStr, Field(min_length=12, max_length=1024)]
# Whatever somebody types is an attempt: shorter ones are wrong, not malformed.
TypedPassword = Annotated[SecretStr, Field(max_length=1024)]
OpaqueToken = Annotated[SecretStr, Field(min_length=1, max_length=512)]


class RegisterRequest(RequestModel):
    email: Email
    password: NewPassword
    username: Username | None = None


class CreateUserRequest(RequestModel):
    email: Email
    password: Annotated[
        NewPassword | None, Field(description="Without one, the account's owner is invited by mail")
    ] = None
    username: Username | None = None
    is_verified: Annotated[bool | None, Field(description="Default: with a password true, else by the invitation")] = (
        None
    )
    roles: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=64)]], Field(max_length=32)] = (
        Field(default_factory=list)
    )


class LoginRequest(RequestModel):
    email: Annotated[Line, StringConstraints(max_length=320)]
    password: TypedPassword


class RefreshRequest(RequestModel):
    refresh_token: OpaqueToken


class ChangePasswordRequest(RequestModel):
    current_password: TypedPassword
    new_password: NewPassword


class MailRequest(RequestModel):
    email: Email


class OneTimeTokenRequest(RequestModel):
    token: OpaqueToken


class ResetPasswordRequest(OneTimeTokenRequest):
    new_password: NewPassword


class ConfirmRequest(RequestModel):
    """What cannot be taken back asks for the password once more."""

    current_password: TypedPassword


class ChangeEmailRequest(ConfirmRequest):
    new_email: Email


class TokenResponse(ResponseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's word, no secret
    expires_in: int
    """Seconds."""


OAuthError = Literal["invalid_request", "invalid_grant", "unsupported_grant_type"]


class TokenErrorResponse(ResponseModel):
    """RFC 6749 §5.2."""

    error: OAuthError


class KeySetResponse(ResponseModel):
    """RFC 7517 §5."""

    keys: list[dict[str, str]]


class SessionResponse(ResponseModel):
    id: UUID
    created_at: LocalDatetime
    last_used_at: LocalDatetime
    expires_at: LocalDatetime
    address: str
    user_agent: str
    current: bool

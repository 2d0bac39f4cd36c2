"""Letters about log-in and sessions."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, StringConstraints

from src.auth.models import SecondFactorMethod
from src.shared.types import Line, LocalDatetime, Name, RequestModel, ResponseModel
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
    is_verified: Annotated[
        StrictBool | None, Field(description="Default: with a password true, else by the invitation")
    ] = None
    roles: Annotated[list[Annotated[Line, StringConstraints(min_length=1, max_length=64)]], Field(max_length=32)] = (
        Field(default_factory=list)
    )


class LoginRequest(RequestModel):
    email: Annotated[Line, StringConstraints(max_length=320)]
    password: TypedPassword


class RefreshRequest(RequestModel):
    refresh_token: OpaqueToken


class ConfirmRequest(RequestModel):
    """What cannot be taken back asks for the password once more."""

    current_password: TypedPassword


class ChangePasswordRequest(RequestModel):
    current_password: TypedPassword
    new_password: NewPassword


class MailRequest(RequestModel):
    email: Email


class OneTimeTokenRequest(RequestModel):
    token: OpaqueToken


class ResetPasswordRequest(OneTimeTokenRequest):
    new_password: NewPassword


class ChangeEmailRequest(ConfirmRequest):
    new_email: Email


# What an app shows, with the spaces that it may show. Anything else is an attempt, too.
TypedCode = Annotated[SecretStr, Field(min_length=1, max_length=512)]


class SecondFactorRequest(RequestModel):
    """A code of an authenticator app, or one that was kept for when that is lost."""

    method: Literal[SecondFactorMethod.TOTP, SecondFactorMethod.RECOVERY_CODE]
    code: TypedCode


class FinishLoginRequest(SecondFactorRequest):
    mfa_token: OpaqueToken


class ConfirmTotpRequest(RequestModel):
    code: TypedCode


class TotpEnrolmentResponse(ResponseModel):
    """Told once; it counts when it is confirmed."""

    secret: str
    """Base32, to be typed into an app that sees no pictures."""
    otpauth_uri: str
    qr_svg: str
    """The same as an `<svg>` element."""


class RecoveryCodesResponse(ResponseModel):
    """Told once. Those before are void."""

    recovery_codes: list[str]


# Web Authentication §5.1: what `PublicKeyCredential.toJSON()` gives. What a browser says beyond it is not looked at.
_Base64Url = Annotated[str, StringConstraints(max_length=65_536, pattern=r"^[A-Za-z0-9_-]*$")]


class PasskeyAnswerParts(BaseModel):
    """Of `navigator.credentials.create` the first two, of `get` all but the second."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    clientDataJSON: _Base64Url  # noqa: N815 - the standard's name
    attestationObject: _Base64Url | None = None  # noqa: N815 - as above
    authenticatorData: _Base64Url | None = None  # noqa: N815 - as above
    signature: _Base64Url | None = None
    userHandle: _Base64Url | None = None  # noqa: N815 - as above
    transports: Annotated[list[Annotated[str, StringConstraints(max_length=32)]], Field(max_length=16)] | None = None


class PasskeyAnswer(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    id: _Base64Url
    rawId: _Base64Url  # noqa: N815 - as above
    type: Literal["public-key"]
    response: PasskeyAnswerParts

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        return self.model_dump(exclude_none=True)


PasskeyName = Annotated[Name, StringConstraints(max_length=64)]


class AddPasskeyRequest(RequestModel):
    name: PasskeyName
    credential: PasskeyAnswer


class RenamePasskeyRequest(RequestModel):
    name: PasskeyName


class BeginPasskeyLoginRequest(RequestModel):
    mfa_token: Annotated[OpaqueToken | None, Field(description="Of a log-in whose second factor this is")] = None


class PasskeyLoginRequest(BeginPasskeyLoginRequest):
    credential: PasskeyAnswer


class PasskeyStepUpRequest(RequestModel):
    credential: PasskeyAnswer


class PasskeyResponse(ResponseModel):
    id: UUID
    name: str
    is_synced: bool
    created_at: LocalDatetime
    last_used_at: LocalDatetime | None


class NewPasskeyResponse(PasskeyResponse):
    recovery_codes: list[str]
    """Told once, with the first factor; empty with others."""


ProviderName = Annotated[Line, StringConstraints(max_length=32)]


class ProviderResponse(ResponseModel):
    name: str
    title: str


class ProviderErrandResponse(ResponseModel):
    """Where a browser is sent, and what it keeps until it comes back."""

    authorization_url: str
    browser_token: str
    """For the page alone that goes on (`sessionStorage`): it never travels in an address."""
    expires_in: int
    """Seconds."""


_Issuer = Annotated[str, StringConstraints(max_length=512, pattern=r"^[\x20-\x7e]*$")]


class ProviderAnswerRequest(RequestModel):
    """What came back in the address, and what the browser kept."""

    browser_token: OpaqueToken
    state: OpaqueToken
    code: Annotated[SecretStr, Field(min_length=1, max_length=4096)]
    iss: Annotated[_Issuer | None, Field(description="RFC 9207, where it came back")] = None


class LinkProviderRequest(RequestModel):
    current_password: Annotated[
        TypedPassword | None, Field(description="Of whoever has one; others logged in within a quarter of an hour")
    ] = None


class ProviderLinkResponse(ResponseModel):
    id: UUID
    provider: str | None
    """Its name; null where it lets nobody in any more."""
    title: str
    created_at: LocalDatetime
    last_used_at: LocalDatetime | None


class CreateApiKeyRequest(ConfirmRequest):
    name: Annotated[Name, StringConstraints(max_length=64)]
    permissions: Annotated[
        list[Annotated[Line, StringConstraints(min_length=1, max_length=128)]],
        Field(
            max_length=64,
            description="`module:action`, `module:*` or `*`: at most what you hold; none for what takes no permission",
        ),
    ]
    expires_in_days: Annotated[int, Field(strict=True, ge=1, le=3650)] = 90


class ApiKeyResponse(ResponseModel):
    id: UUID
    name: str
    last_letters: str
    permissions: list[str]
    created_at: LocalDatetime
    expires_at: LocalDatetime
    last_used_at: LocalDatetime | None
    """Within a minute."""
    last_used_address: str


class NewApiKeyResponse(ApiKeyResponse):
    key: str
    """Told once."""


class TotpStatus(ResponseModel):
    enabled: bool
    confirmed_at: LocalDatetime | None
    last_used_at: LocalDatetime | None


class TokenResponse(ResponseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's word, no secret
    expires_in: int
    """Seconds."""


OAuthError = Literal["invalid_request", "invalid_grant", "unsupported_grant_type", "mfa_required"]


class TokenErrorResponse(ResponseModel):
    """RFC 6749 §5.2. With `mfa_required`, the one code of ours, the log-in goes on at `/auth/login/second-factor`."""

    # Where there is no token, nothing is said of one.
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    error: OAuthError
    mfa_token: str | None = None


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
    second_factor_at: LocalDatetime | None
    current: bool


class SecurityResponse(ResponseModel):
    """All that can log in as somebody."""

    has_password: bool
    totp: TotpStatus
    passkeys: list[PasskeyResponse]
    providers: list[ProviderLinkResponse]
    recovery_codes_left: int
    second_factor_required: bool
    """By one of the account's roles, which counts only where a factor was proven."""
    sessions: list[SessionResponse]
    api_keys: list[ApiKeyResponse]

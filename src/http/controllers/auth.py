"""Registration, log-in, refresh, log-out, sessions, second factors."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import SecretStr, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response as RawResponse

from src.auth import require_mfa
from src.auth import services as auth
from src.auth.dependencies import CurrentGrants, CurrentSessionId, CurrentUser, DeviceDep, ForPeople
from src.auth.schemas import (
    AddPasskeyRequest,
    ApiKeyResponse,
    BeginPasskeyLoginRequest,
    ChangeEmailRequest,
    ChangePasswordRequest,
    ConfirmRequest,
    ConfirmTotpRequest,
    CreateApiKeyRequest,
    FinishLoginRequest,
    KeySetResponse,
    LinkProviderRequest,
    LoginRequest,
    MailRequest,
    NewApiKeyResponse,
    NewPasskeyResponse,
    OAuthError,
    OneTimeTokenRequest,
    PasskeyLoginRequest,
    PasskeyResponse,
    PasskeyStepUpRequest,
    ProviderAnswerRequest,
    ProviderErrandResponse,
    ProviderLinkResponse,
    ProviderName,
    ProviderResponse,
    RecoveryCodesResponse,
    RefreshRequest,
    RegisterRequest,
    RenamePasskeyRequest,
    ResetPasswordRequest,
    SecondFactorRequest,
    SecurityResponse,
    SessionResponse,
    TokenErrorResponse,
    TokenResponse,
    TotpEnrolmentResponse,
)
from src.exceptions import BusinessException
from src.http.envelope import unwrapped
from src.http.idempotency import Idempotent
from src.http.response import Response
from src.shared.database import SessionDep
from src.shared.errors import ErrorCode
from src.shared.types import Id
from src.users.schemas import UserWithRolesResponse

router = APIRouter()
_recently_proven = require_mfa(max_age_seconds=auth.RECENT_SECONDS)


@router.post(
    "/register", status_code=201, responses={202: {"description": "Where e-mail addresses are verified first"}}
)
async def register(request: RegisterRequest, device: DeviceDep) -> UserWithRolesResponse | None:
    user = await auth.register(request, device)
    return user if user is not None else Response.success(msg="Accepted", code=202)  # type: ignore[return-value] # the envelope unwraps it


@router.post("/login")
async def login(request: LoginRequest, device: DeviceDep) -> TokenResponse:
    return await auth.log_in(request.email, request.password.get_secret_value(), device)


@router.post("/login/second-factor")
async def finish_login(request: FinishLoginRequest, device: DeviceDep) -> TokenResponse:
    """The second step, for accounts whose log-in takes two."""
    return await auth.finish_login(request, device)


@router.post("/step-up")
async def step_up(request: SecondFactorRequest, user: CurrentUser, current: CurrentSessionId) -> None:
    """Prove a second factor in a session that is under way: for what asks for one, or for one a moment ago."""
    await auth.step_up(user.id, current, request)


@router.post("/login/passkey/options")
async def begin_passkey_login(request: BeginPasskeyLoginRequest, device: DeviceDep) -> dict[str, Any]:  # Any: JSON
    """For `navigator.credentials.get`: with an `mfa_token` as the second factor, else instead of a password."""
    return await auth.begin_passkey_login(request, device)


@router.post("/login/passkey")
async def log_in_by_passkey(request: PasskeyLoginRequest, device: DeviceDep) -> TokenResponse:
    """What `navigator.credentials.get` gave."""
    return await auth.log_in_by_passkey(request, device)


@router.post("/step-up/passkey/options")
async def begin_passkey_step_up(
    user: CurrentUser, current: CurrentSessionId, session: SessionDep
) -> dict[str, Any]:  # Any: JSON
    return await auth.begin_passkey_step_up(session, user.id, current)


@router.post("/step-up/passkey")
async def step_up_by_passkey(request: PasskeyStepUpRequest, user: CurrentUser, current: CurrentSessionId) -> None:
    await auth.step_up_by_passkey(user.id, current, request.credential)


@router.get("/providers")
async def list_providers() -> list[ProviderResponse]:
    """Who else says who somebody is (OpenID Connect)."""
    return auth.list_providers()


@router.post("/providers/{provider}/begin")
async def begin_provider_login(provider: ProviderName, device: DeviceDep) -> ProviderErrandResponse:
    """Where the browser goes. What it keeps meanwhile comes back with the provider's answer."""
    return await auth.begin_provider_login(provider, device)


@router.post("/providers/{provider}/finish")
async def log_in_by_provider(
    provider: ProviderName, request: ProviderAnswerRequest, device: DeviceDep
) -> TokenResponse:
    """As the account that is linked, or as a new one."""
    return await auth.log_in_by_provider(provider, request, device)


@router.post("/provider-links/confirm")
async def confirm_provider_link(request: OneTimeTokenRequest, session: SessionDep, device: DeviceDep) -> None:
    """By the code of a mail: the account is theirs who signed in with the provider."""
    await auth.confirm_provider_link(session, request.token.get_secret_value(), device)


@unwrapped
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], device: DeviceDep) -> Any:  # Any: §5.1 or §5.2
    """OAuth2 password grant (RFC 6749 §4.3): what the Authorize button of the API docs uses."""
    try:
        typed = LoginRequest(email=form.username, password=SecretStr(form.password))
        letter = await auth.log_in(typed.email, typed.password.get_secret_value(), device)
    except ValidationError:
        return _oauth_error("invalid_request")
    except BusinessException as refusal:
        if refusal.code is ErrorCode.SECOND_FACTOR_REQUIRED:
            return _oauth_error("mfa_required", refusal.data)
        if refusal.code is not ErrorCode.INVALID_CREDENTIALS:
            raise
        return _oauth_error("invalid_grant")
    return JSONResponse(letter.model_dump(), headers=_NO_STORE)


_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _oauth_error(error: OAuthError, facts: object = None) -> JSONResponse:
    letter = TokenErrorResponse(error=error, mfa_token=facts["mfa_token"] if isinstance(facts, dict) else None)
    return JSONResponse(letter.model_dump(exclude_none=True), 400, _NO_STORE)


class _OAuthRoute(APIRoute):
    """RFC 6749 §5.2: a form that is not valid is refused in the standard's words too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, RawResponse]]:  # Any: as FastAPI has it
        handler = super().get_route_handler()

        async def handle(request: Request) -> RawResponse:
            try:
                form = await request.form()
                if len(form.multi_items()) > len(form):
                    return _oauth_error("invalid_request")  # §3.2: no parameter more than once
                return await handler(request)
            except RequestValidationError as refusal:
                grant_type = any("grant_type" in error["loc"] for error in refusal.errors())
                return _oauth_error("unsupported_grant_type" if grant_type else "invalid_request")
            except HTTPException as refusal:
                if refusal.status_code != HTTPStatus.BAD_REQUEST:
                    raise
                return _oauth_error("invalid_request")
            except UnicodeError:
                # Codecs that refuse in words of their own: `charset=undefined`.
                return _oauth_error("invalid_request")

        return handle


router.add_api_route(
    "/token",
    token,
    methods=["POST"],
    response_model=TokenResponse,
    responses={400: {"model": TokenErrorResponse, "description": "RFC 6749 §5.2: `{error: …}`"}},
    route_class_override=_OAuthRoute,
)


@router.post("/refresh")
async def refresh(request: RefreshRequest, device: DeviceDep) -> TokenResponse:
    return await auth.refresh(request.refresh_token.get_secret_value(), device)


@router.post("/logout")
async def logout(request: RefreshRequest, session: SessionDep) -> None:
    await auth.log_out(session, request.refresh_token.get_secret_value())


@router.post("/logout-all", dependencies=[ForPeople])
async def logout_all(user: CurrentUser, session: SessionDep) -> None:
    await auth.log_out_everywhere(session, user.id)


@router.post("/password/change", dependencies=[ForPeople])
async def change_password(request: ChangePasswordRequest, user: CurrentUser, device: DeviceDep) -> None:
    await auth.change_password(user.id, request, device)


@router.post("/password/forgot", status_code=202)
async def forget_password(request: MailRequest, session: SessionDep, device: DeviceDep) -> None:
    """A mail with a code, if there is such an account; the answer does not tell."""
    await auth.forget_password(session, request.email, device)


@router.post("/password/reset")
async def reset_password(request: ResetPasswordRequest, device: DeviceDep) -> None:
    """By the code of a mail, an invitation's too. Ends all sessions."""
    await auth.reset_password(request, device)


@router.post("/verify/request", status_code=202)
async def request_verification(request: MailRequest, session: SessionDep, device: DeviceDep) -> None:
    """A mail with a code, if there is such an account and its address is not verified; the answer does not tell."""
    await auth.request_verification(session, request.email, device)


@router.post("/verify")
async def verify_email(request: OneTimeTokenRequest, session: SessionDep, device: DeviceDep) -> None:
    """By the code of a mail. Ends all sessions."""
    await auth.verify_email(session, request.token.get_secret_value(), device)


@router.post("/email/change", status_code=202, dependencies=[ForPeople])
async def request_email_change(request: ChangeEmailRequest, user: CurrentUser, device: DeviceDep) -> None:
    """A mail with a code to the new address; the old one stays until it is confirmed."""
    await auth.request_email_change(user.id, request, device)


@router.post("/email/confirm")
async def confirm_email_change(request: OneTimeTokenRequest, session: SessionDep, device: DeviceDep) -> None:
    """By the code of a mail. Ends all sessions, and tells the old address."""
    await auth.confirm_email_change(session, request.token.get_secret_value(), device)


@router.get("/sessions")
async def list_sessions(user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> list[SessionResponse]:
    return await auth.list_sessions(session, user.id, current=current)


@router.delete("/sessions/{session_id}", dependencies=[ForPeople, Idempotent])
async def end_session(session_id: Id, user: CurrentUser, session: SessionDep) -> None:
    await auth.end_session(session, user.id, session_id)


security = APIRouter()


@security.get("")
async def get_security(user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> SecurityResponse:
    """What logs in as the caller: password, second factors, sessions."""
    return await auth.get_security(session, user.id, current=current)


@security.post("/totp", status_code=201)
async def begin_totp(
    request: ConfirmRequest, user: CurrentUser, current: CurrentSessionId, device: DeviceDep
) -> TotpEnrolmentResponse:
    """A secret for an authenticator app (RFC 6238). It counts when it is confirmed."""
    return await auth.begin_totp(user.id, current, request, device)


@security.post("/totp/confirm")
async def confirm_totp(
    request: ConfirmTotpRequest, user: CurrentUser, current: CurrentSessionId
) -> RecoveryCodesResponse:
    """By a code that the app shows. From now on a log-in takes one, too."""
    return await auth.confirm_totp(user.id, current, request.code.get_secret_value())


@security.delete("/totp", dependencies=[Depends(_recently_proven)])
async def remove_totp(user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> None:
    """Takes a second factor that was proven within a quarter of an hour."""
    await auth.remove_totp(session, user.id, current)


@security.post("/recovery-codes", dependencies=[Depends(_recently_proven)])
async def renew_recovery_codes(
    user: CurrentUser, current: CurrentSessionId, session: SessionDep
) -> RecoveryCodesResponse:
    """Ten new ones; those before are void. Takes a second factor that was proven within a quarter of an hour."""
    return await auth.renew_recovery_codes(session, user.id, current)


@security.post("/passkey-options")
async def begin_passkey(
    request: ConfirmRequest, user: CurrentUser, current: CurrentSessionId, device: DeviceDep
) -> dict[str, Any]:  # Any: JSON
    """For `navigator.credentials.create`."""
    return await auth.begin_passkey(user.id, current, request, device)


@security.post("/passkeys", status_code=201)
async def add_passkey(request: AddPasskeyRequest, user: CurrentUser, current: CurrentSessionId) -> NewPasskeyResponse:
    """What `navigator.credentials.create` gave. Recovery codes come with the first factor."""
    return await auth.add_passkey(user.id, current, request)


@security.get("/passkeys", dependencies=[ForPeople])
async def list_passkeys(user: CurrentUser, session: SessionDep) -> list[PasskeyResponse]:
    return await auth.list_passkeys(session, user.id)


@security.patch("/passkeys/{passkey_id}", dependencies=[ForPeople, Idempotent])
async def rename_passkey(
    passkey_id: Id, request: RenamePasskeyRequest, user: CurrentUser, session: SessionDep
) -> PasskeyResponse:
    return await auth.rename_passkey(session, user.id, passkey_id, request.name)


@security.delete("/passkeys/{passkey_id}", dependencies=[Depends(_recently_proven), Idempotent])
async def remove_passkey(passkey_id: Id, user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> None:
    """Takes a second factor that was proven within a quarter of an hour."""
    await auth.remove_passkey(session, user.id, current, passkey_id)


@security.get("/providers", dependencies=[ForPeople])
async def list_provider_links(user: CurrentUser, session: SessionDep) -> list[ProviderLinkResponse]:
    return await auth.list_provider_links(session, user.id)


@security.post("/providers/{provider}/begin")
async def begin_provider_link(
    provider: ProviderName,
    request: LinkProviderRequest,
    user: CurrentUser,
    current: CurrentSessionId,
    device: DeviceDep,
) -> ProviderErrandResponse:
    """Where the browser goes to link the account there with this one."""
    return await auth.begin_provider_link(user.id, current, provider, request, device)


@security.post("/providers/{provider}/finish", status_code=201)
async def link_provider(
    provider: ProviderName, request: ProviderAnswerRequest, user: CurrentUser, current: CurrentSessionId
) -> ProviderLinkResponse:
    return await auth.link_provider(user.id, current, provider, request)


@security.delete("/providers/{link_id}", dependencies=[Idempotent])
async def unlink_provider(link_id: Id, user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> None:
    """Takes a second factor that was proven within a quarter of an hour, or a log-in within one where there is none."""
    await auth.unlink_provider(session, user.id, current, link_id)


@security.post("/api-keys", status_code=201)
async def create_api_key(
    request: CreateApiKeyRequest,
    user: CurrentUser,
    current: CurrentSessionId,
    grants: CurrentGrants,
    device: DeviceDep,
) -> NewApiKeyResponse:
    """For a machine that acts in the caller's name. The key is told once."""
    return await auth.create_api_key(user.id, current, request, device, held=grants)


@security.get("/api-keys", dependencies=[ForPeople])
async def list_api_keys(user: CurrentUser, session: SessionDep) -> list[ApiKeyResponse]:
    return await auth.list_api_keys(session, user.id)


@security.delete("/api-keys/{key_id}", dependencies=[ForPeople, Idempotent])
async def revoke_api_key(key_id: Id, user: CurrentUser, session: SessionDep) -> None:
    await auth.revoke_api_key(session, user.id, key_id)


well_known = APIRouter()


@unwrapped
async def get_key_set(session: SessionDep) -> KeySetResponse:
    """The public keys of access tokens (RFC 7517 §5); none where AUTH__TOKEN_ALGORITHM is symmetric."""
    return await auth.get_key_set(session)


well_known.add_api_route("/jwks.json", get_key_set)

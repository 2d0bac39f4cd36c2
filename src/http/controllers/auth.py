"""Registration, log-in, refresh, log-out, sessions."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.security import OAuth2PasswordRequestForm
from starlette.responses import JSONResponse

from src.auth import services as auth
from src.auth.dependencies import CurrentSessionId, CurrentUser, DeviceDep
from src.auth.schemas import (
    ChangePasswordRequest,
    LoginRequest,
    RefreshRequest,
    RegisterRequest,
    SessionResponse,
    TokenErrorResponse,
    TokenResponse,
)
from src.exceptions import BusinessException
from src.http.envelope import unwrapped
from src.http.response import Response
from src.shared.database import SessionDep
from src.shared.errors import ErrorCode
from src.shared.types import Id
from src.users.schemas import UserWithRolesResponse

router = APIRouter()


@router.post(
    "/register", status_code=201, responses={202: {"description": "Where e-mail addresses are verified first"}}
)
async def register(request: RegisterRequest, device: DeviceDep) -> UserWithRolesResponse | None:
    user = await auth.register(request, device)
    return user if user is not None else Response.success(msg="Look into your mail", code=202)  # type: ignore[return-value] # the envelope unwraps it


@router.post("/login")
async def login(request: LoginRequest, device: DeviceDep) -> TokenResponse:
    return await auth.log_in(request.email, request.password.get_secret_value(), device)


@router.post(
    "/token",
    response_model=TokenResponse,
    responses={400: {"model": TokenErrorResponse, "description": "RFC 6749 §5.2: `{error: …}`"}},
)
@unwrapped
async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], device: DeviceDep) -> Any:  # Any: §5.1 or §5.2
    """OAuth2 password grant (RFC 6749 §4.3): what the Authorize button of the API docs uses."""
    try:
        letter = await auth.log_in(form.username, form.password, device)
    except BusinessException as refusal:
        if refusal.code is not ErrorCode.INVALID_CREDENTIALS:
            raise
        return JSONResponse({"error": "invalid_grant"}, 400, _NO_STORE)
    return JSONResponse(letter.model_dump(), headers=_NO_STORE)


_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@router.post("/refresh")
async def refresh(request: RefreshRequest, device: DeviceDep) -> TokenResponse:
    return await auth.refresh(request.refresh_token.get_secret_value(), device)


@router.post("/logout")
async def logout(request: RefreshRequest, session: SessionDep) -> None:
    await auth.log_out(session, request.refresh_token.get_secret_value())


@router.post("/logout-all")
async def logout_all(user: CurrentUser, session: SessionDep) -> None:
    await auth.log_out_everywhere(session, user.id)


@router.post("/password/change")
async def change_password(request: ChangePasswordRequest, user: CurrentUser, device: DeviceDep) -> None:
    await auth.change_password(user.id, request, device)


@router.get("/sessions")
async def list_sessions(user: CurrentUser, current: CurrentSessionId, session: SessionDep) -> list[SessionResponse]:
    return await auth.list_sessions(session, user.id, current=current)


@router.delete("/sessions/{session_id}")
async def end_session(session_id: Id, user: CurrentUser, session: SessionDep) -> None:
    await auth.end_session(session, user.id, session_id)

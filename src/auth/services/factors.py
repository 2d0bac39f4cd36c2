"""Second factors, as their owner sets them up and takes them away, and as an administrator resets them."""

from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import totp
from src.auth.models import AuthSession, Credential, RecoveryCode, SecondFactorMethod, TotpFactor
from src.auth.schemas import (
    ConfirmRequest,
    RecoveryCodesResponse,
    SecondFactorRequest,
    SecurityResponse,
    TotpEnrolmentResponse,
    TotpStatus,
)
from src.auth.services import proving
from src.auth.services.accounts import confirm_password, end_sessions, lock_account, refuse_changed_password
from src.auth.services.api_keys import list_api_keys
from src.auth.services.devices import Device
from src.auth.services.proving import Proof
from src.auth.services.sessions import list_sessions
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import services as users
from src.users.permissions import Grants

_RECOVERY_CODES: Final = 10


async def begin_totp(user_id: UUID, request: ConfirmRequest, device: Device) -> TotpEnrolmentResponse:
    """A secret for an authenticator app; one that was begun before is void.

    Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, TOTP_ALREADY_ENABLED.
    """
    user, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    secret = totp.new_secret()
    async with transaction() as session:
        await lock_account(session, user_id)
        await refuse_changed_password(session, user_id, stored)
        factor = await session.get(TotpFactor, user_id, with_for_update=True)
        if factor is not None and factor.confirmed_at is not None:
            raise BusinessException(ErrorCode.TOTP_ALREADY_ENABLED)
        sealed = proving.seal_secret(secret)
        if factor is None:
            session.add(TotpFactor(user_id=user_id, sealed_secret=sealed))
        else:
            factor.sealed_secret = sealed
        await audit.record(session, "totp.begun", target=("user", user_id))
    uri = totp.key_uri(secret, user.email)
    return TotpEnrolmentResponse(secret=secret, otpauth_uri=uri, qr_svg=totp.qr_svg(uri))


async def confirm_totp(user_id: UUID, session_id: UUID, code: str) -> RecoveryCodesResponse:
    """From now on a log-in takes a code of the app, too. This session has proven it.

    Refused: TOO_MANY_ATTEMPTS, TOTP_NOT_BEGUN, INVALID_SECOND_FACTOR.
    """
    codes: list[str] = []
    async with proving.attempt(user_id, SecondFactorMethod.TOTP) as attempt, transaction() as session:
        await lock_account(session, user_id)
        factor = await session.get(TotpFactor, user_id, with_for_update=True)
        if factor is None or factor.confirmed_at is not None:
            raise BusinessException(ErrorCode.TOTP_NOT_BEGUN)
        attempt.verdict = proving.accept(factor, code)
        if attempt.succeeded:
            factor.confirmed_at = utc_now()
            codes = await _make_recovery_codes(session, user_id)
            await _mark_proven(session, user_id, session_id)
            await audit.record(session, "totp.enabled", target=("user", user_id))
            await proving.tell(session, user_id, "second_factor_added")
    return RecoveryCodesResponse(recovery_codes=codes)


async def _make_recovery_codes(session: AsyncSession, user_id: UUID) -> list[str]:
    await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    codes = [totp.new_recovery_code() for _ in range(_RECOVERY_CODES)]
    session.add_all(RecoveryCode(code_hash=totp.recovery_hashes(user_id, code)[0], user_id=user_id) for code in codes)
    await audit.record(session, "recovery_codes.made", target=("user", user_id), after={"count": len(codes)})
    return codes


async def renew_recovery_codes(session: AsyncSession, user_id: UUID) -> RecoveryCodesResponse:
    """Refused: NO_SECOND_FACTOR."""
    await lock_account(session, user_id)
    if SecondFactorMethod.TOTP not in await proving.list_methods(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    return RecoveryCodesResponse(recovery_codes=await _make_recovery_codes(session, user_id))


async def remove_totp(session: AsyncSession, user_id: UUID) -> None:
    """The password is all again, and what a role gives only with a second factor is gone.

    Refused: NO_SECOND_FACTOR.
    """
    await lock_account(session, user_id)
    if not await _delete_factors(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    await session.execute(
        update(AuthSession)
        .where(col(AuthSession.user_id) == user_id, col(AuthSession.second_factor_at).is_not(None))
        .values(second_factor_at=None)
    )
    await audit.record(session, "totp.disabled", target=("user", user_id))
    await proving.tell(session, user_id, "second_factor_removed")


async def reset_second_factors(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """Of somebody who lost them: ends all sessions, and tells the owner.

    Refused: USER_NOT_FOUND, GRANT_NOT_HELD, NO_SECOND_FACTOR, INVALID_TOKEN.
    """
    await users.queue_up(session, held)
    await users.get_user(session, user_id)
    await users.refuse_reaching_over(session, user_id, held)
    await lock_account(session, user_id)
    if not await _delete_factors(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    await end_sessions(session, user_id)
    await audit.record(session, "second_factors.reset", target=("user", user_id))
    await proving.tell(session, user_id, "second_factor_reset")


async def _delete_factors(session: AsyncSession, user_id: UUID) -> bool:
    """Whether there was one that counted."""
    await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    gone = await session.execute(
        delete(TotpFactor).where(col(TotpFactor.user_id) == user_id).returning(col(TotpFactor.confirmed_at))
    )
    return gone.scalar_one_or_none() is not None


async def step_up(user_id: UUID, session_id: UUID, request: SecondFactorRequest) -> None:
    """For what asks for a factor that was proven a moment ago. Refused: TOO_MANY_ATTEMPTS, INVALID_SECOND_FACTOR."""
    proof = Proof(request.method, request.code.get_secret_value())
    async with proving.attempt(user_id, proof.method) as attempt, transaction() as session:
        await lock_account(session, user_id)
        attempt.verdict = await proving.take(session, user_id, proof)
        if attempt.succeeded:
            await _mark_proven(session, user_id, session_id)
            await proving.note_taken(session, user_id, proof.method)
            await audit.record(
                session, "second_factor.proven", target=("user", user_id), after={"method": proof.method.value}
            )


async def _mark_proven(session: AsyncSession, user_id: UUID, session_id: UUID) -> None:
    await session.execute(
        update(AuthSession)
        .where(
            col(AuthSession.id) == session_id,
            col(AuthSession.user_id) == user_id,
            col(AuthSession.revoked_at).is_(None),
        )
        .values(second_factor_at=utc_now())
    )


async def get_security(session: AsyncSession, user_id: UUID, *, current: UUID) -> SecurityResponse:
    has_password = await session.get(Credential, user_id) is not None
    factor = await session.get(TotpFactor, user_id)
    confirmed_at = None if factor is None else factor.confirmed_at
    left = select(func.count()).where(RecoveryCode.user_id == user_id, col(RecoveryCode.used_at).is_(None))
    grants = await users.get_grants_now(session, user_id, second_factor=False)
    return SecurityResponse(
        has_password=has_password,
        totp=TotpStatus(
            enabled=confirmed_at is not None,
            confirmed_at=confirmed_at,
            last_used_at=None if factor is None else factor.last_used_at,
        ),
        recovery_codes_left=(await session.execute(left)).scalar_one(),
        second_factor_required=grants.withheld is not None,
        sessions=await list_sessions(session, user_id, current=current),
        api_keys=await list_api_keys(session, user_id),
    )

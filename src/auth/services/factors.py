"""Second factors, as their owner sets them up and takes them away, and as an administrator resets them."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src.audit import services as audit
from src.auth import throttle, totp
from src.auth.models import ApiKey, AuthSession, Passkey, RecoveryCode, SecondFactorMethod, TotpFactor
from src.auth.schemas import (
    ConfirmRequest,
    RecoveryCodesResponse,
    SecondFactorRequest,
    TotpEnrolmentResponse,
)
from src.auth.services import api_keys, proving
from src.auth.services.accounts import (
    confirm_password,
    end_links,
    end_sessions,
    lock_account,
    lock_session,
    refuse_changed_password,
)
from src.auth.services.devices import Device
from src.auth.services.proving import Proof
from src.auth.throttle import Guessing
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import User
from src.users import services as users
from src.users.permissions import Grants
from src.users.schemas import RoleResponse

_RECOVERY_CODES: Final = 10
_BEGUN_FOR: Final = timedelta(hours=1)


async def begin_totp(user_id: UUID, session_id: UUID, request: ConfirmRequest, device: Device) -> TotpEnrolmentResponse:
    """A secret for an authenticator app; one that was begun before is void.

    Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, TOTP_ALREADY_ENABLED, INVALID_TOKEN;
    STEP_UP_REQUIRED, of who has a passkey and did not prove it within a quarter of an hour.
    """
    user, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    secret = totp.new_secret()
    async with transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        await refuse_changed_password(session, user_id, stored)
        factor = await session.get(TotpFactor, user_id, with_for_update=True)
        if factor is not None and factor.confirmed_at is not None:
            raise BusinessException(ErrorCode.TOTP_ALREADY_ENABLED)
        await proving.refuse_stale(session, caller)
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

    Refused: TOO_MANY_ATTEMPTS, TOTP_NOT_BEGUN, INVALID_SECOND_FACTOR, INVALID_TOKEN; STEP_UP_REQUIRED, as `begin_totp`.
    """
    codes: list[str] = []
    of = proving.attempt(user_id, SecondFactorMethod.TOTP, guessing=Guessing.SET_UP)
    async with of as attempt, transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        factor = await session.get(TotpFactor, user_id, with_for_update=True)
        if factor is None or factor.confirmed_at is not None or factor.updated_at < utc_now() - _BEGUN_FOR:
            raise BusinessException(ErrorCode.TOTP_NOT_BEGUN)
        # What was begun before there was a factor is not a way around it.
        await proving.refuse_stale(session, caller)
        attempt.verdict = proving.accept(factor, code)
        if attempt.succeeded:
            factor.confirmed_at = utc_now()
            codes = await make_first_recovery_codes(session, user_id)
            caller.second_factor_at = utc_now()
            await audit.record(session, "totp.enabled", target=("user", user_id))
            await proving.tell(session, user_id, "second_factor_added")
    return RecoveryCodesResponse(recovery_codes=codes)


async def make_first_recovery_codes(session: AsyncSession, user_id: UUID) -> list[str]:
    """Those that come with the first factor; none when there are some that were not used."""
    if SecondFactorMethod.RECOVERY_CODE in await proving.list_methods(session, user_id):
        return []
    return await _make_recovery_codes(session, user_id)


async def _make_recovery_codes(session: AsyncSession, user_id: UUID) -> list[str]:
    await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    codes = [totp.new_recovery_code() for _ in range(_RECOVERY_CODES)]
    session.add_all(RecoveryCode(code_hash=totp.recovery_hashes(user_id, code)[0], user_id=user_id) for code in codes)
    await audit.record(session, "recovery_codes.made", target=("user", user_id), after={"count": len(codes)})
    return codes


async def renew_recovery_codes(session: AsyncSession, user_id: UUID, session_id: UUID) -> RecoveryCodesResponse:
    """Refused: TOO_MANY_ATTEMPTS, NO_SECOND_FACTOR, INVALID_TOKEN."""
    await throttle.spend_recovery_codes(user_id)
    await lock_session(session, user_id, session_id)
    if not await _has_factor(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    return RecoveryCodesResponse(recovery_codes=await _make_recovery_codes(session, user_id))


async def _has_factor(session: AsyncSession, user_id: UUID) -> bool:
    return any(
        method is not SecondFactorMethod.RECOVERY_CODE for method in await proving.list_methods(session, user_id)
    )


async def remove_totp(session: AsyncSession, user_id: UUID, session_id: UUID) -> None:
    """Refused: NO_SECOND_FACTOR, INVALID_TOKEN."""
    await lock_session(session, user_id, session_id)
    if not await _delete_totp(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    await audit.record(session, "totp.disabled", target=("user", user_id))
    await settle_removal(session, user_id)


async def settle_removal(session: AsyncSession, user_id: UUID) -> None:
    """Once the last factor is gone the password is all again, and what a role gives only with a second factor is gone."""
    await proving.tell(session, user_id, "second_factor_removed")
    if not await _has_factor(session, user_id):
        await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
        await _forget_proofs(session, user_id)


async def _forget_proofs(session: AsyncSession, user_id: UUID) -> None:
    """Of sessions, and of the keys that were made in them."""
    await session.execute(
        update(AuthSession)
        .where(col(AuthSession.user_id) == user_id, col(AuthSession.second_factor_at).is_not(None))
        .values(second_factor_at=None)
    )
    await session.execute(
        update(ApiKey).where(col(ApiKey.user_id) == user_id, col(ApiKey.second_factor)).values(second_factor=False)
    )


async def forget_strangers(session: AsyncSession, user: User) -> None:
    """Before somebody proves an address for the first time: who set up factors, keys and links to providers until then did
    not have to be its owner, as who opened a session did not."""
    if not user.is_verified:
        await end_links(session, user.id)
        await _delete_factors(session, user.id)
        await api_keys.revoke_all(session, user.id)


async def reset_second_factors(session: AsyncSession, user_id: UUID, *, held: Grants, session_id: UUID) -> None:
    """Of somebody who lost them: ends all sessions, and tells the owner.

    Refused: USER_NOT_FOUND, GRANT_NOT_HELD, NO_SECOND_FACTOR, INVALID_TOKEN; STEP_UP_REQUIRED, of an administrator who
    has a second factor and did not prove it within a quarter of an hour.
    """
    await users.queue_up(session, held)
    await _refuse_stale(session, held, session_id)
    await users.get_user(session, user_id)
    await users.refuse_reaching_over(session, user_id, held)
    await lock_account(session, user_id)
    if not await _delete_factors(session, user_id):
        raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    await _forget_proofs(session, user_id)
    await end_sessions(session, user_id)
    await audit.record(session, "second_factors.reset", target=("user", user_id))
    await proving.tell(session, user_id, "second_factor_reset")


async def _refuse_stale(session: AsyncSession, held: Grants, session_id: UUID) -> None:
    assert held.holder is not None
    await proving.refuse_stale(session, await lock_session(session, held.holder, session_id))


async def require_second_factor(
    session: AsyncSession, role_id: UUID, *, required: bool, held: Grants, session_id: UUID
) -> RoleResponse:
    """Refused: ROLE_NOT_FOUND, GRANT_NOT_HELD, INVALID_TOKEN; STEP_UP_REQUIRED, as a reset."""
    changed = await users.require_second_factor(session, role_id, required=required, held=held)
    # Behind the queue of those who change rights: accounts are locked after it.
    await _refuse_stale(session, held, session_id)
    return changed


async def _delete_factors(session: AsyncSession, user_id: UUID) -> bool:
    """Whether there was one that counted."""
    await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    keys = await session.execute(delete(Passkey).where(col(Passkey.user_id) == user_id).returning(col(Passkey.id)))
    had_keys = keys.first() is not None
    return await _delete_totp(session, user_id) or had_keys


async def _delete_totp(session: AsyncSession, user_id: UUID) -> bool:
    gone = await session.execute(
        delete(TotpFactor).where(col(TotpFactor.user_id) == user_id).returning(col(TotpFactor.confirmed_at))
    )
    return gone.scalar_one_or_none() is not None


async def step_up(user_id: UUID, session_id: UUID, request: SecondFactorRequest) -> None:
    """For what asks for a factor that was proven a moment ago.

    Refused: NO_SECOND_FACTOR, TOO_MANY_ATTEMPTS, INVALID_SECOND_FACTOR, INVALID_TOKEN.
    """
    proof = Proof(request.method, request.code.get_secret_value())
    async with transaction() as session:
        if not await _has_factor(session, user_id):
            raise BusinessException(ErrorCode.NO_SECOND_FACTOR)
    async with proving.attempt(user_id, proof.method) as attempt, transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        attempt.verdict = await proving.take(session, user_id, proof)
        if attempt.succeeded:
            await mark_proven(session, caller, proof.method)
            await proving.note_taken(session, user_id, proof.method)


async def mark_proven(session: AsyncSession, caller: AuthSession, method: SecondFactorMethod) -> None:
    caller.second_factor_at = utc_now()
    await audit.record(session, "second_factor.proven", target=("user", caller.user_id), after={"method": method.value})

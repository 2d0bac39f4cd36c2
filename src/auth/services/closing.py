"""How accounts end: disabled or deleted, by an administrator or by their owner."""

from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src.auth.models import (
    ApiKey,
    AuthSession,
    Credential,
    LoginChallenge,
    OneTimeToken,
    Passkey,
    ProviderLink,
    RecoveryCode,
    TotpFactor,
)
from src.auth.schemas import ConfirmRequest
from src.auth.services import api_keys, one_time
from src.auth.services.accounts import confirm_password, refuse_changed_password, revoke_sessions
from src.auth.services.devices import Device
from src.idempotency import services as idempotency
from src.shared.database import transaction
from src.users import services as users
from src.users.permissions import Grants
from src.users.schemas import UpdateUserRequest, UserWithRolesResponse
from src.webhooks import services as webhooks


async def update_user(
    session: AsyncSession, user_id: UUID, changes: UpdateUserRequest, *, held: Grants
) -> UserWithRolesResponse:
    """A disabled account has no sessions and no API keys, so that none comes back when it is enabled again.

    Refused: USER_NOT_FOUND, USERNAME_TAKEN, LAST_ADMIN, GRANT_NOT_HELD.
    """
    updated = await users.update_user(session, user_id, changes, held=held)
    if not updated.is_active:
        await revoke_sessions(session, user_id)
        await api_keys.revoke_all(session, user_id)
        await one_time.end_all(session, user_id)
    return updated


async def delete_user(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """What others need of it stays, without a name: orders and the audit log.

    Refused: USER_NOT_FOUND, LAST_ADMIN, GRANT_NOT_HELD.
    """
    await users.delete_user(session, user_id, held=held)
    await _delete_traces(session, user_id)


async def _delete_traces(session: AsyncSession, user_id: UUID) -> None:
    await session.execute(delete(Credential).where(col(Credential.user_id) == user_id))
    await session.execute(delete(AuthSession).where(col(AuthSession.user_id) == user_id))
    await session.execute(delete(OneTimeToken).where(col(OneTimeToken.user_id) == user_id))
    await session.execute(delete(ApiKey).where(col(ApiKey.user_id) == user_id))
    await session.execute(delete(Passkey).where(col(Passkey.user_id) == user_id))
    await session.execute(delete(ProviderLink).where(col(ProviderLink.user_id) == user_id))
    await session.execute(delete(TotpFactor).where(col(TotpFactor.user_id) == user_id))
    await session.execute(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    await session.execute(delete(LoginChallenge).where(col(LoginChallenge.user_id) == user_id))
    await webhooks.delete_all(session, user_id)
    # Kept answers say who somebody was.
    await idempotency.forget(session, user_id)


async def deactivate_own(user_id: UUID, request: ConfirmRequest, device: Device) -> None:
    """Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, LAST_ADMIN."""
    _, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    async with transaction() as session:
        own = await users.get_grants(session, user_id)
        await update_user(session, user_id, UpdateUserRequest(is_active=False), held=own)
        await refuse_changed_password(session, user_id, stored)


async def delete_own(user_id: UUID, request: ConfirmRequest, device: Device) -> None:
    """Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, LAST_ADMIN."""
    _, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    async with transaction() as session:
        await users.delete_user(session, user_id, held=await users.get_grants(session, user_id))
        # The account's lock first, as a change of the password takes them.
        await refuse_changed_password(session, user_id, stored)
        await _delete_traces(session, user_id)

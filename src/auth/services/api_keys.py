"""API keys: machines that act for somebody, with a part of what they may do."""

import asyncio
from datetime import timedelta
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy import ColumnElement, delete, func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import tokens
from src.auth.models import ApiKey
from src.auth.schemas import ApiKeyResponse, CreateApiKeyRequest, NewApiKeyResponse
from src.auth.services import proving
from src.auth.services.accounts import confirm_password, lock_session, refuse_changed_password
from src.auth.services.devices import Device
from src.config import get_settings
from src.exceptions import BusinessException
from src.mail import services as mail
from src.mixins import utc_now
from src.shared.database import DATABASE_ERRORS, transaction
from src.shared.errors import ErrorCode
from src.shared.watching import steady_seconds
from src.users import services as users
from src.users.permissions import Grants, missing, unknown

_KEPT_FOR: Final = timedelta(days=30)
_NOTED_EVERY_SECONDS: Final = 60
_REMEMBERED_KEYS: Final = 10_000


async def create_api_key(
    user_id: UUID, session_id: UUID, request: CreateApiKeyRequest, device: Device, *, held: Grants
) -> NewApiKeyResponse:
    """Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, PERMISSION_UNKNOWN, GRANT_NOT_HELD,
    TOO_MANY_API_KEYS, INVALID_REQUEST, INVALID_TOKEN; STEP_UP_REQUIRED, of who has a second factor and did not prove it
    within a quarter of an hour."""
    settings, wanted = get_settings().auth, sorted(set(request.permissions))
    if no_such := unknown(wanted):
        raise BusinessException(ErrorCode.PERMISSION_UNKNOWN, data={"unknown": no_such})
    if lacking := missing(held.permissions, wanted):
        raise BusinessException(ErrorCode.GRANT_NOT_HELD, data={"missing": lacking})
    _refuse_too_long(request.expires_in_days, settings.api_key_max_days)
    user, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    key, now = tokens.new_api_key(), utc_now()
    async with transaction() as session:
        # Locked: of many at once none is one too many.
        caller = await lock_session(session, user_id, session_id)
        await refuse_changed_password(session, user_id, stored)
        await proving.refuse_stale(session, caller)
        alive = select(func.count()).select_from(ApiKey).where(col(ApiKey.user_id) == user_id, *_good())
        if (await session.execute(alive)).scalar_one() >= settings.api_keys_per_account:
            raise BusinessException(ErrorCode.TOO_MANY_API_KEYS, data={"limit": settings.api_keys_per_account})
        made = ApiKey(
            user_id=user_id,
            name=request.name,
            key_hash=tokens.hash_opaque_token(key),
            last_letters=key[-4:],
            permissions=wanted,
            second_factor=caller.second_factor_at is not None,
            created_at=now,
            expires_at=now + timedelta(days=request.expires_in_days),
        )
        session.add(made)
        await session.flush()
        await audit.record(
            session, "api_key.created", target=("user", user_id), after={"key_id": str(made.id), "permissions": wanted}
        )
        # Not its name: whoever made the key chose it, and the mailbox may be somebody else's.
        await mail.write(
            session,
            "api_key_created",
            to=user.email,
            is_proven=user.is_verified,
            sort="factors",
            last_letters=made.last_letters,
        )
        return NewApiKeyResponse(**ApiKeyResponse.model_validate(made).model_dump(), key=key)


def _refuse_too_long(days: int, most: int) -> None:
    if days > most:
        wrong = {"field": "expires_in_days", "message": f"At most {most} days", "type": "less_than_equal"}
        raise BusinessException(ErrorCode.INVALID_REQUEST, data={"errors": [wrong]})


async def list_api_keys(session: AsyncSession, user_id: UUID) -> list[ApiKeyResponse]:
    alive = select(ApiKey).where(ApiKey.user_id == user_id, *_good()).order_by(col(ApiKey.created_at), col(ApiKey.id))
    return [ApiKeyResponse.model_validate(key) for key in (await session.execute(alive)).scalars()]


async def revoke_api_key(session: AsyncSession, user_id: UUID, key_id: UUID) -> None:
    """Refused: API_KEY_NOT_FOUND, also for somebody else's."""
    if not await _revoke(session, user_id, col(ApiKey.id) == key_id):
        raise BusinessException(ErrorCode.API_KEY_NOT_FOUND)


async def revoke_api_keys_of(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """Of somebody else, all of them. Refused: USER_NOT_FOUND, GRANT_NOT_HELD."""
    await users.get_user(session, user_id)
    await users.refuse_reaching_over(session, user_id, held)
    await revoke_all(session, user_id)
    # A request of theirs that waits to change what somebody may do asks for this.
    await users.end_all_tokens(session, user_id)


async def revoke_all(session: AsyncSession, user_id: UUID) -> None:
    await _revoke(session, user_id)


async def _revoke(session: AsyncSession, user_id: UUID, *which: ColumnElement[bool]) -> int:
    """How many there were."""
    revoked = await session.execute(
        update(ApiKey)
        .where(col(ApiKey.user_id) == user_id, *which, *_good())
        .values(revoked_at=utc_now())
        .returning(col(ApiKey.id))
    )
    ids = [str(key_id) for key_id in revoked.scalars()]
    for key_id in ids:
        await audit.record(session, "api_key.revoked", target=("user", user_id), after={"key_id": key_id})
    return len(ids)


def _good() -> tuple[ColumnElement[bool], ...]:
    return (col(ApiKey.revoked_at).is_(None), col(ApiKey.expires_at) > utc_now())


_noted: dict[UUID, float] = {}
_notes: set[asyncio.Task[None]] = set()


def note_use(key_id: UUID, address: str) -> None:
    """Once a minute, behind the request: no answer waits for it, and none fails with it."""
    now = steady_seconds()
    if now - _noted.get(key_id, float("-inf")) < _NOTED_EVERY_SECONDS:
        return
    if len(_noted) >= _REMEMBERED_KEYS:
        del _noted[next(iter(_noted))]
    _noted[key_id] = now
    note = asyncio.create_task(_write_use(key_id, address))
    _notes.add(note)
    note.add_done_callback(_notes.discard)


async def _write_use(key_id: UUID, address: str) -> None:
    try:
        async with transaction() as session:
            # These columns and this row alone: nobody has to look again whose key it is.
            await session.execute(
                update(ApiKey)
                .where(col(ApiKey.id) == key_id)
                .values(last_used_at=utc_now(), last_used_address=address[:45])
            )
    except DATABASE_ERRORS as error:
        logger.bind(key_id=str(key_id), error=type(error).__name__).warning("The use of an API key could not be noted")


async def sweep(session: AsyncSession) -> int:
    """Forget keys that ended a month ago; how many there were."""
    old = utc_now() - _KEPT_FOR
    swept = await session.execute(
        delete(ApiKey).where(or_(col(ApiKey.expires_at) < old, col(ApiKey.revoked_at) < old)).returning(col(ApiKey.id))
    )
    return len(swept.all())

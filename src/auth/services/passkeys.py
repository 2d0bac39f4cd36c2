"""Passkeys: setting them up, and logging in with one, alone or as the second factor."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from loguru import logger
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import passkeys, throttle, tokens
from src.auth.models import AuthSession, Passkey, PasskeyChallenge, SecondFactorMethod
from src.auth.passkeys import InvalidPasskeyError, Json, Known
from src.auth.schemas import (
    AddPasskeyRequest,
    BeginPasskeyLoginRequest,
    ConfirmRequest,
    NewPasskeyResponse,
    PasskeyAnswer,
    PasskeyLoginRequest,
    PasskeyResponse,
    TokenResponse,
)
from src.auth.services import challenges, factors, proving
from src.auth.services.accounts import (
    confirm_password,
    lock_account,
    lock_session,
    owner_may_log_in,
    refuse_changed_password,
    refuse_without_way_in,
)
from src.auth.services.devices import Device
from src.auth.services.sessions import open_session
from src.config import get_settings
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import User

_MOST: Final = 20
_LONGEST_ID: Final = 1023
"""Of a credential (§5.1.3): the column's, too."""
_KEPT_FOR: Final = timedelta(days=1)
_LOGIN: Final = "login"


class _Wrong(StrEnum):
    """Why an answer was refused, for the audit log."""

    REPLAYED = "replayed"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    CLONED = "cloned"
    KNOWN = "known"


def _refuse_without_domain() -> None:
    if not get_settings().passkey_domain:
        raise BusinessException(ErrorCode.PASSKEYS_OFF)


# Challenges: each is good once, for what it was made for


async def _make_challenge(session: AsyncSession, bound_to: str) -> bytes:
    challenge = passkeys.new_challenge()
    ends = utc_now() + timedelta(seconds=get_settings().auth.login_challenge_ttl_seconds)
    session.add(PasskeyChallenge(challenge_hash=_hash(challenge), bound_to=bound_to, expires_at=ends))
    return challenge


def _hash(challenge: bytes) -> str:
    return tokens.hash_opaque_token(challenge.hex())


async def _redeem_challenge(session: AsyncSession, answer: PasskeyAnswer, bound_to: str) -> bytes | None:
    """Spent, whatever else is wrong with the answer: none is looked at twice."""
    try:
        challenge = passkeys.challenge_of(answer.as_json())
    except InvalidPasskeyError:
        return None
    spent = await session.execute(
        update(PasskeyChallenge)
        .where(
            col(PasskeyChallenge.challenge_hash) == _hash(challenge),
            col(PasskeyChallenge.bound_to) == bound_to,
            col(PasskeyChallenge.used_at).is_(None),
            col(PasskeyChallenge.expires_at) > utc_now(),
        )
        .values(used_at=utc_now())
        .returning(col(PasskeyChallenge.challenge_hash))
    )
    return challenge if spent.first() is not None else None


async def sweep(session: AsyncSession) -> int:
    """Forget challenges of yesterday; how many there were."""
    swept = await session.execute(
        delete(PasskeyChallenge)
        .where(col(PasskeyChallenge.expires_at) < utc_now() - _KEPT_FOR)
        .returning(col(PasskeyChallenge.challenge_hash))
    )
    return len(swept.all())


# One's own


async def begin_passkey(user_id: UUID, session_id: UUID, request: ConfirmRequest, device: Device) -> Json:
    """What the browser is asked for a new one.

    Refused: PASSKEYS_OFF, TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, TOO_MANY_PASSKEYS, INVALID_TOKEN;
    STEP_UP_REQUIRED, of who has a second factor and did not prove it within a quarter of an hour.
    """
    _refuse_without_domain()
    user, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    async with transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        await refuse_changed_password(session, user_id, stored)
        await proving.refuse_stale(session, caller)
        known = await _refuse_one_more(session, user_id)
        challenge = await _make_challenge(session, f"register:{session_id}")
    return passkeys.creation_options(challenge, user_id=user_id, user_name=user.email, known=known)


async def _refuse_one_more(session: AsyncSession, user_id: UUID) -> list[Known]:
    """Than an account may have; those that it has."""
    known = await _known(session, user_id)
    if len(known) >= _MOST:
        raise BusinessException(ErrorCode.TOO_MANY_PASSKEYS, data={"limit": _MOST})
    return known


async def _known(session: AsyncSession, user_id: UUID) -> list[Known]:
    return [Known(row.credential_id, row.transports) for row in await _all_of(session, user_id)]


async def _all_of(session: AsyncSession, user_id: UUID) -> Iterable[Passkey]:
    mine = select(Passkey).where(Passkey.user_id == user_id).order_by(col(Passkey.created_at))
    return (await session.execute(mine)).scalars()


async def add_passkey(user_id: UUID, session_id: UUID, request: AddPasskeyRequest) -> NewPasskeyResponse:
    """Refused: PASSKEYS_OFF, INVALID_PASSKEY, PASSKEY_KNOWN, TOO_MANY_PASSKEYS, INVALID_TOKEN, STEP_UP_REQUIRED."""
    _refuse_without_domain()
    made: NewPasskeyResponse | _Wrong = _Wrong.REPLAYED
    async with transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        # What was asked for before there was a factor is not a way around it.
        await proving.refuse_stale(session, caller)
        challenge = await _redeem_challenge(session, request.credential, f"register:{session_id}")
        if challenge is not None:
            made = await _register(session, caller, request, challenge)
    if isinstance(made, _Wrong):
        await _note_refusal(user_id, made, by=str(user_id))
        raise BusinessException(ErrorCode.PASSKEY_KNOWN if made is _Wrong.KNOWN else ErrorCode.INVALID_PASSKEY)
    return made


async def _register(
    session: AsyncSession, caller: AuthSession, request: AddPasskeyRequest, challenge: bytes
) -> NewPasskeyResponse | _Wrong:
    try:
        registered = passkeys.verify_registration(request.credential.as_json(), challenge)
    except InvalidPasskeyError as error:
        logger.bind(reason=str(error)[:200]).info("A passkey was refused")
        return _Wrong.INVALID
    if len(registered.credential_id) > _LONGEST_ID:
        return _Wrong.INVALID
    await _refuse_one_more(session, caller.user_id)
    row = Passkey(
        user_id=caller.user_id,
        name=request.name,
        credential_id=registered.credential_id,
        public_key=registered.public_key,
        sign_count=registered.sign_count,
        transports=registered.transports,
        is_synced=registered.is_synced,
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return _Wrong.KNOWN
    codes = await factors.make_first_recovery_codes(session, row.user_id)
    caller.second_factor_at = utc_now()
    await audit.record(session, "passkey.added", target=("user", row.user_id), after={"passkey_id": str(row.id)})
    await proving.tell(session, row.user_id, "second_factor_added")
    return NewPasskeyResponse(**PasskeyResponse.model_validate(row).model_dump(), recovery_codes=codes)


async def list_passkeys(session: AsyncSession, user_id: UUID) -> list[PasskeyResponse]:
    return [PasskeyResponse.model_validate(row) for row in await _all_of(session, user_id)]


async def rename_passkey(session: AsyncSession, user_id: UUID, passkey_id: UUID, name: str) -> PasskeyResponse:
    """Refused: PASSKEY_NOT_FOUND, also for somebody else's."""
    row = await _own(session, user_id, passkey_id)
    row.name = name
    await audit.record(session, "passkey.renamed", target=("user", user_id), after={"passkey_id": str(passkey_id)})
    return PasskeyResponse.model_validate(row)


async def remove_passkey(session: AsyncSession, user_id: UUID, session_id: UUID, passkey_id: UUID) -> None:
    """Refused: PASSKEY_NOT_FOUND, also for somebody else's; LAST_WAY_IN, INVALID_TOKEN."""
    await lock_session(session, user_id, session_id)
    await session.delete(await _own(session, user_id, passkey_id))
    await session.flush()
    await audit.record(session, "passkey.removed", target=("user", user_id), after={"passkey_id": str(passkey_id)})
    await refuse_without_way_in(session, user_id)
    await factors.settle_removal(session, user_id)


async def _own(session: AsyncSession, user_id: UUID, passkey_id: UUID) -> Passkey:
    found: Passkey | None = (
        await session.execute(
            select(Passkey).where(Passkey.id == passkey_id, Passkey.user_id == user_id).with_for_update()
        )
    ).scalar_one_or_none()
    if found is None:
        raise BusinessException(ErrorCode.PASSKEY_NOT_FOUND)
    return found


# Using one


async def begin_passkey_login(request: BeginPasskeyLoginRequest, device: Device) -> Json:
    """With an `mfa_token` one of that account's; without one, any that the browser has for this domain.

    Refused: PASSKEYS_OFF, TOO_MANY_ATTEMPTS, INVALID_LOGIN_CHALLENGE.
    """
    _refuse_without_domain()
    await throttle.spend_login(device.address)
    token = request.mfa_token and request.mfa_token.get_secret_value()
    async with transaction() as session:
        known = await _known(session, await challenges.find_challenged(session, token)) if token else []
        challenge = await _make_challenge(session, _second_step(token) if token else _LOGIN)
    return passkeys.request_options(challenge, known=known, user_verified=not token)


def _second_step(mfa_token: str) -> str:
    return f"second:{tokens.hash_opaque_token(mfa_token)}"


async def log_in_by_passkey(request: PasskeyLoginRequest, device: Device) -> TokenResponse:
    """Alone it is two factors, since the authenticator asked who is holding it.

    Refused: PASSKEYS_OFF, TOO_MANY_ATTEMPTS, INVALID_PASSKEY, INVALID_LOGIN_CHALLENGE.
    """
    _refuse_without_domain()
    await throttle.spend_login(device.address)
    token = request.mfa_token and request.mfa_token.get_secret_value()
    opened: TokenResponse | None = None
    async with transaction() as session:
        owner = await challenges.find_challenged(session, token) if token else None
        use = await _use(session, request.credential, _second_step(token) if token else _LOGIN, owner)
        if use.wrong is None and use.user is not None and owner_may_log_in(use.user):
            if token:
                await challenges.lock_challenged(session, token)
                await challenges.redeem(session, token)
            opened = await open_session(session, use.user, device, second_factor=SecondFactorMethod.PASSKEY)
    if opened is None:
        await _note_refusal(use.user_id, use.wrong or _Wrong.UNKNOWN, by=device.address)
        raise BusinessException(ErrorCode.INVALID_PASSKEY)
    return opened


async def begin_passkey_step_up(session: AsyncSession, user_id: UUID, session_id: UUID) -> Json:
    """Refused: PASSKEYS_OFF, TOO_MANY_ATTEMPTS."""
    _refuse_without_domain()
    await throttle.spend_confirmation(str(user_id))
    known = await _known(session, user_id)
    challenge = await _make_challenge(session, f"step_up:{session_id}")
    return passkeys.request_options(challenge, known=known, user_verified=False)


async def step_up_by_passkey(user_id: UUID, session_id: UUID, answer: PasskeyAnswer) -> None:
    """Refused: PASSKEYS_OFF, INVALID_PASSKEY, INVALID_TOKEN."""
    _refuse_without_domain()
    async with transaction() as session:
        use = await _use(session, answer, f"step_up:{session_id}", user_id)
        if use.wrong is None:
            caller = await lock_session(session, user_id, session_id)
            await factors.mark_proven(session, caller, SecondFactorMethod.PASSKEY)
    if use.wrong is not None:
        await _note_refusal(user_id, use.wrong, by=str(user_id))
        raise BusinessException(ErrorCode.INVALID_PASSKEY)


@dataclass(frozen=True, slots=True)
class _Use:
    wrong: _Wrong | None
    user: User | None = None
    """Locked."""
    user_id: UUID | None = None


async def _use(session: AsyncSession, answer: PasskeyAnswer, bound_to: str, owner: UUID | None) -> _Use:
    """`owner`: whose it has to be, where a password or a session said so; else the passkey says who it is."""
    challenge = await _redeem_challenge(session, answer, bound_to)
    if challenge is None:
        return _Use(_Wrong.REPLAYED, user_id=owner)
    credential = answer.as_json()
    row = await _find(session, credential)
    if row is None or (owner is not None and row.user_id != owner):
        return _Use(_Wrong.UNKNOWN, user_id=owner)
    try:
        used = passkeys.verify_use(credential, challenge, row.public_key, user_verified=owner is None)
    except InvalidPasskeyError as error:
        logger.bind(reason=str(error)[:200]).info("A passkey was refused")
        return _Use(_Wrong.INVALID, user_id=row.user_id)
    if used.user_handle not in (None, row.user_id):
        return _Use(_Wrong.INVALID, user_id=row.user_id)
    user = await lock_account(session, row.user_id)
    if not await _count(session, row, used.sign_count):
        return _Use(_Wrong.CLONED, user_id=row.user_id)
    return _Use(None, user, row.user_id)


async def _find(session: AsyncSession, credential: Mapping[str, Any]) -> Passkey | None:
    try:
        credential_id = passkeys.id_of(dict(credential))
    except InvalidPasskeyError:
        return None
    found: Passkey | None = (
        await session.execute(select(Passkey).where(Passkey.credential_id == credential_id))
    ).scalar_one_or_none()
    return found


async def _count(session: AsyncSession, row: Passkey, sign_count: int) -> bool:
    """False when the counter did not go up (§7.2): there are two of them. Authenticators that do not count say 0."""
    never_counted = col(Passkey.sign_count) == 0
    goes_up = never_counted if sign_count == 0 else col(Passkey.sign_count) < sign_count
    counted = await session.execute(
        update(Passkey)
        .where(col(Passkey.id) == row.id, goes_up)
        .values(sign_count=sign_count, last_used_at=utc_now())
        .returning(col(Passkey.id))
    )
    return counted.first() is not None


async def _note_refusal(user_id: UUID | None, wrong: _Wrong, *, by: str) -> None:
    """`by`: whoever tries, an address or an account."""
    if not await throttle.may_note("passkey", by):
        return
    await audit.record_alone(
        "passkey.refused",
        target=("user", user_id) if user_id is not None else ("passkey", "unknown"),
        after={"reason": wrong.value},
    )

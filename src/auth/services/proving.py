"""Second factors, when they are proven: what is taken, and that it is taken once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from loguru import logger
from sqlalchemy import exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src.audit import services as audit
from src.auth import throttle, totp
from src.auth.models import AuthSession, Passkey, RecoveryCode, SecondFactorMethod, TotpFactor
from src.auth.throttle import Guessing
from src.exceptions import BusinessException
from src.mail import services as mail
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import UnsealableError, seal, unseal
from src.users import services as users

RECENT_SECONDS: Final = 900
"""So long ago a factor may have been proven where factors and keys are changed."""
_SEALED_AS: Final = "totp-secret"


@dataclass(frozen=True, slots=True)
class Proof:
    method: SecondFactorMethod
    code: str


class Verdict(Enum):
    TAKEN = auto()
    WRONG = auto()
    REPLAYED = auto()
    """It was right, once."""


async def list_methods(session: AsyncSession, user_id: UUID) -> list[SecondFactorMethod]:
    """What the account can prove itself with; none: the password is all."""
    app = exists().where(col(TotpFactor.user_id) == user_id, col(TotpFactor.confirmed_at).is_not(None))
    passkey = exists().where(col(Passkey.user_id) == user_id)
    kept = exists().where(col(RecoveryCode.user_id) == user_id, col(RecoveryCode.used_at).is_(None))
    has = (await session.execute(select(app, passkey, kept))).one()
    return [method for method, there in zip(SecondFactorMethod, has, strict=True) if there]


async def refuse_stale(session: AsyncSession, caller: AuthSession) -> None:
    """Who has a second factor proves it for what changes how somebody logs in. Refused: STEP_UP_REQUIRED."""
    proven_at, oldest = caller.second_factor_at, datetime.now(UTC) - timedelta(seconds=RECENT_SECONDS)
    if (proven_at is None or proven_at < oldest) and await list_methods(session, caller.user_id):
        raise BusinessException(ErrorCode.STEP_UP_REQUIRED, data={"max_age_seconds": RECENT_SECONDS})


async def refuse_old(session: AsyncSession, caller: AuthSession) -> None:
    """As `refuse_stale`; who has no second factor logged in a moment ago. Refused: STEP_UP_REQUIRED."""
    await refuse_stale(session, caller)
    latest = max(caller.created_at, caller.second_factor_at or caller.created_at)
    if latest < datetime.now(UTC) - timedelta(seconds=RECENT_SECONDS):
        raise BusinessException(ErrorCode.STEP_UP_REQUIRED, data={"max_age_seconds": RECENT_SECONDS})


@dataclass(slots=True)
class Attempt:
    verdict: Verdict | None = None
    """None until the code was looked at."""

    @property
    def succeeded(self) -> bool:
        return self.verdict is Verdict.TAKEN


@asynccontextmanager
async def attempt(
    user_id: UUID, method: SecondFactorMethod, *, guessing: Guessing = Guessing.FACTOR
) -> AsyncIterator[Attempt]:
    """Around the transaction that looks at a code: it is counted before, so that a thousand guesses at once are not a
    thousand guesses, and what was no wrong guess is given back. What is written of a refusal no refusal rolls back.

    Recovery codes are looked at however many were wrong: nobody guesses 80 bits, and whoever found out the password would
    keep the owner out. What is written of them has the same limit.

    Refused: TOO_MANY_ATTEMPTS, INVALID_SECOND_FACTOR.
    """
    counts, made = method is SecondFactorMethod.TOTP, Attempt()
    is_last = counts and await throttle.spend_guess(guessing, user_id)
    try:
        yield made
    finally:
        if counts and made.verdict in (None, Verdict.TAKEN):
            await throttle.give_back_guess(guessing, user_id)
    if not made.succeeded:
        if counts or await throttle.may_note("recovery-code", str(user_id)):
            await _note_refusal(user_id, method, made, tell_of=guessing if is_last else None)
        raise BusinessException(ErrorCode.INVALID_SECOND_FACTOR)


async def _note_refusal(user_id: UUID, method: SecondFactorMethod, made: Attempt, *, tell_of: Guessing | None) -> None:
    async with transaction() as session:
        await audit.record(
            session,
            "second_factor.refused",
            target=("user", user_id),
            after={
                "method": method.value,
                "replayed": made.verdict is Verdict.REPLAYED,
                "limit_reached": tell_of is not None,
            },
            outcome="refused",
        )
        # Who sets one up guesses at nothing that is in use.
        if tell_of is Guessing.FACTOR:
            await tell(session, user_id, "second_factor_guessed")


async def take(session: AsyncSession, user_id: UUID, proof: Proof) -> Verdict:
    """In the session's transaction: of many at once one is taken."""
    if proof.method is SecondFactorMethod.TOTP:
        return await _take_totp(session, user_id, proof.code)
    return await _take_recovery_code(session, user_id, proof.code)


async def _take_totp(session: AsyncSession, user_id: UUID, code: str) -> Verdict:
    factor = await session.get(TotpFactor, user_id, with_for_update=True)
    if factor is None or factor.confirmed_at is None:
        return Verdict.WRONG
    return accept(factor, code)


def accept(factor: TotpFactor, code: str) -> Verdict:
    """Of a locked row."""
    try:
        secret = open_secret(factor)
    except UnsealableError:
        # The secret that sealed it is in the settings no more: an administrator can reset the factor.
        logger.bind(user_id=str(factor.user_id)).error("An authenticator app's secret cannot be unsealed")
        return Verdict.WRONG
    now = datetime.now(UTC)
    step = totp.matching_step(secret, code, now.timestamp())
    if step is None:
        return Verdict.WRONG
    if step <= factor.last_step:
        return Verdict.REPLAYED
    factor.last_step, factor.last_used_at = step, now
    # Under the current secret, so that a previous one is needed only until then.
    factor.sealed_secret = seal_secret(secret)
    return Verdict.TAKEN


def seal_secret(secret: str) -> bytes:
    return seal(_SEALED_AS, secret.encode())


def open_secret(factor: TotpFactor) -> str:
    return unseal(_SEALED_AS, factor.sealed_secret).decode()


async def _take_recovery_code(session: AsyncSession, user_id: UUID, code: str) -> Verdict:
    its_own = (
        col(RecoveryCode.user_id) == user_id,
        col(RecoveryCode.code_hash).in_(totp.recovery_hashes(user_id, code)),
    )
    taken = await session.execute(
        update(RecoveryCode)
        .where(*its_own, col(RecoveryCode.used_at).is_(None))
        .values(used_at=datetime.now(UTC))
        .returning(col(RecoveryCode.code_hash))
    )
    if taken.first() is not None:
        return Verdict.TAKEN
    used = (await session.execute(select(func.count()).select_from(RecoveryCode).where(*its_own))).scalar_one()
    return Verdict.REPLAYED if used else Verdict.WRONG


async def note_taken(session: AsyncSession, user_id: UUID, method: SecondFactorMethod) -> None:
    """A recovery code is told of: it is the one factor that whoever found a sheet of paper has."""
    if method is SecondFactorMethod.RECOVERY_CODE:
        # Of a sort of its own: however many they are, they leave room for what comes of them.
        await tell(session, user_id, "recovery_code_used", sort="recovery")


async def tell(session: AsyncSession, user_id: UUID, template: str, *, sort: str = "factors", **values: str) -> None:
    owner = await users.get_user(session, user_id)
    await mail.write(session, template, to=owner.email, is_proven=owner.is_verified, sort=sort, **values)

"""Log-ins that wait for their second factor."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import tokens
from src.auth.models import LoginChallenge, SecondFactorMethod
from src.auth.services.accounts import lock_account, owner_may_log_in
from src.config import get_settings
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.users import User

_KEPT_FOR: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a right password gives where it is not all."""

    mfa_token: str
    methods: list[SecondFactorMethod]

    def facts(self) -> dict[str, str | int | list[str]]:
        return {
            "mfa_token": self.mfa_token,
            "methods": [method.value for method in self.methods],
            "expires_in": get_settings().auth.login_challenge_ttl_seconds,
        }


async def open_challenge(session: AsyncSession, user: User, methods: list[SecondFactorMethod]) -> Challenge:
    token, now = tokens.new_opaque_token(), utc_now()
    session.add(
        LoginChallenge(
            token_hash=tokens.hash_opaque_token(token),
            user_id=user.id,
            auth_epoch=user.auth_epoch,
            created_at=now,
            expires_at=now + timedelta(seconds=get_settings().auth.login_challenge_ttl_seconds),
        )
    )
    await audit.record(session, "login.challenged", target=("user", user.id), actor_id=user.id)
    return Challenge(token, methods)


async def find_challenged(session: AsyncSession, token: str) -> UUID:
    """Whose log-in it is. Refused: INVALID_LOGIN_CHALLENGE."""
    found: UUID | None = (
        await session.execute(select(LoginChallenge.user_id).where(*_good(token)))
    ).scalar_one_or_none()
    if found is None:
        raise BusinessException(ErrorCode.INVALID_LOGIN_CHALLENGE)
    return found


async def lock_challenged(session: AsyncSession, token: str) -> User:
    """The account whose log-in it is. Refused: INVALID_LOGIN_CHALLENGE."""
    user = await lock_account(session, await find_challenged(session, token))
    # Behind the lock: what ended all its sessions meanwhile, as a new password does, ended this.
    epoch = (await session.execute(select(LoginChallenge.auth_epoch).where(*_good(token)))).scalar_one_or_none()
    if user is None or epoch != user.auth_epoch or not owner_may_log_in(user):
        raise BusinessException(ErrorCode.INVALID_LOGIN_CHALLENGE)
    return user


async def redeem(session: AsyncSession, token: str) -> None:
    """Of many at once one succeeds. Refused: INVALID_LOGIN_CHALLENGE."""
    used = await session.execute(
        update(LoginChallenge).where(*_good(token)).values(used_at=utc_now()).returning(col(LoginChallenge.user_id))
    )
    if used.scalar_one_or_none() is None:
        raise BusinessException(ErrorCode.INVALID_LOGIN_CHALLENGE)


def _good(token: str) -> tuple[ColumnElement[bool], ...]:
    return (
        col(LoginChallenge.token_hash) == tokens.hash_opaque_token(token),
        col(LoginChallenge.used_at).is_(None),
        col(LoginChallenge.expires_at) > utc_now(),
    )


async def sweep(session: AsyncSession) -> int:
    """Forget those of yesterday; how many there were."""
    swept = await session.execute(
        delete(LoginChallenge)
        .where(col(LoginChallenge.expires_at) < utc_now() - _KEPT_FOR)
        .returning(col(LoginChallenge.token_hash))
    )
    return len(swept.all())

"""One-time tokens: sent by mail, good once, the newest of its kind alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.auth import tokens
from src.auth.models import OneTimeToken, Purpose
from src.auth.services.accounts import lock_account
from src.config import get_settings
from src.exceptions import BusinessException
from src.mail import services as mail
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.users import User

_COUNTED: Final = timedelta(hours=1)
_TEMPLATES: Final = {
    Purpose.VERIFY_ADDRESS: "verify_address",
    Purpose.RESET_PASSWORD: "reset_password",
    Purpose.ACCEPT_INVITATION: "invitation",
    Purpose.CHANGE_ADDRESS: "confirm_new_address",
    Purpose.LINK_PROVIDER: "confirm_provider",
}


@dataclass(frozen=True, slots=True)
class Redeemed:
    user: User
    """Locked."""
    purpose: Purpose
    email: str
    """Where the token was sent: whoever has it reads mail there."""
    facts: Mapping[str, str]


async def send(  # noqa: PLR0913 - a mail has these parts
    session: AsyncSession,
    user_id: UUID,
    purpose: Purpose,
    *,
    to: str,
    template: str | None = None,
    facts: Mapping[str, str] | None = None,
    provider: str = "",
) -> bool:
    """Whether a mail goes out: not to an account that was closed, not to an address that it has no more, and not when
    many were sent within the hour, since anybody can ask for them."""
    auth, now = get_settings().auth, utc_now()
    # Locked: two at once would not see each other's, and both would be the newest. Judged behind the lock: what was
    # read before it may be of before a change of the address, which ended all codes.
    user = await lock_account(session, user_id)
    if user is None or not user.is_active or (to != user.email and purpose is not Purpose.CHANGE_ADDRESS):
        return False
    recent = select(func.count()).where(
        # To that mailbox too, whoever asked: nobody's is filled by many who want to move there.
        or_(col(OneTimeToken.user_id) == user_id, col(OneTimeToken.email) == to),
        col(OneTimeToken.purpose) == purpose,
        col(OneTimeToken.created_at) > now - _COUNTED,
    )
    if (await session.execute(recent)).scalar_one() >= auth.mails_per_account:
        return False
    invited = purpose is Purpose.ACCEPT_INVITATION
    seconds = auth.invitation_ttl_seconds if invited else auth.one_time_token_ttl_seconds
    token = tokens.new_opaque_token()
    written = await mail.write(
        session,
        template or _TEMPLATES[purpose],
        to=to,
        token=token,
        minutes=str(seconds // 60),
        hours=str(seconds // 3600),
        provider=provider,
    )
    if not written:
        return False  # the mailbox got too many: the code that is there stays good
    await end(session, user_id, purpose)
    session.add(
        OneTimeToken(
            token_hash=tokens.hash_opaque_token(token),
            user_id=user_id,
            purpose=purpose,
            email=to,
            facts=dict(facts or {}),
            created_at=now,
            expires_at=now + timedelta(seconds=seconds),
        )
    )
    return True


async def find_owner(session: AsyncSession, token: str, *purposes: Purpose) -> UUID:
    """Of a token that could be redeemed now. Refused: INVALID_ONE_TIME_TOKEN."""
    query = select(OneTimeToken.user_id).where(*_good(token, purposes))
    owner: UUID | None = (await session.execute(query)).scalar_one_or_none()
    if owner is None:
        raise BusinessException(ErrorCode.INVALID_ONE_TIME_TOKEN)
    return owner


async def redeem(session: AsyncSession, token: str, *purposes: Purpose) -> Redeemed:
    """Of many at once one succeeds. Refused: INVALID_ONE_TIME_TOKEN."""
    # The account before the token, as whoever sends one locks them.
    user = await lock_account(session, await find_owner(session, token, *purposes))
    used = await session.execute(
        update(OneTimeToken)
        .where(*_good(token, purposes))
        .values(used_at=utc_now())
        .returning(col(OneTimeToken.purpose), col(OneTimeToken.email), col(OneTimeToken.facts))
    )
    row = used.one_or_none()
    if row is None or user is None or not user.is_active:
        raise BusinessException(ErrorCode.INVALID_ONE_TIME_TOKEN)
    redeemed = Redeemed(user, row[0], row[1], row[2])
    if redeemed.email != user.email and redeemed.purpose is not Purpose.CHANGE_ADDRESS:
        raise BusinessException(ErrorCode.INVALID_ONE_TIME_TOKEN)
    return redeemed


def _good(token: str, purposes: tuple[Purpose, ...]) -> tuple[ColumnElement[bool], ...]:
    return (
        col(OneTimeToken.token_hash) == tokens.hash_opaque_token(token),
        col(OneTimeToken.purpose).in_(purposes),
        col(OneTimeToken.used_at).is_(None),
        col(OneTimeToken.expires_at) > utc_now(),
    )


async def end_all(session: AsyncSession, user_id: UUID) -> None:
    """What was sent before a password or an address changed, or the account was closed, must not undo it."""
    await end(session, user_id, *Purpose)


async def end(session: AsyncSession, user_id: UUID, *purposes: Purpose) -> None:
    await session.execute(
        update(OneTimeToken)
        .where(
            col(OneTimeToken.user_id) == user_id,
            col(OneTimeToken.purpose).in_(purposes),
            col(OneTimeToken.used_at).is_(None),
        )
        .values(used_at=utc_now()),
        execution_options={"synchronize_session": False},
    )


async def sweep(session: AsyncSession) -> int:
    """Forget what expired a day ago; how many there were."""
    old = utc_now() - timedelta(days=1)
    swept = await session.execute(
        delete(OneTimeToken).where(col(OneTimeToken.expires_at) < old).returning(col(OneTimeToken.token_hash))
    )
    return len(swept.all())

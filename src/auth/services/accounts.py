"""What the verbs share: the account's lock, its password, the end of its sessions."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, delete, exists, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.audit.services import Facts
from src.auth import passwords, throttle
from src.auth.models import AuthSession, Credential, Passkey, ProviderLink
from src.auth.services.devices import Device
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import User
from src.users import services as users
from src.users.schemas import email_key


def linked(user_id: SQLColumnExpression[UUID] | UUID) -> ColumnElement[bool]:
    """To a provider that the settings have: others let nobody in."""
    issuers = [provider.issuer for provider in get_settings().auth.providers]
    return exists().where(col(ProviderLink.user_id) == user_id, col(ProviderLink.issuer).in_(issuers))


def has_password(user_id: SQLColumnExpression[UUID] | UUID) -> ColumnElement[bool]:
    return exists().where(col(Credential.user_id) == user_id)


# An account that was invited, say, administers nothing yet.
users.count_as_able(lambda: or_(has_password(col(User.id)), linked(col(User.id))))


async def refuse_without_way_in(session: AsyncSession, user_id: UUID) -> None:
    """What was taken away just now was not all that logs in to the account. Refused: LAST_WAY_IN."""
    passkey = exists().where(col(Passkey.user_id) == user_id)
    ways = [has_password(user_id), linked(user_id), *([passkey] if get_settings().passkey_domain else [])]
    if not (await session.execute(select(or_(*ways)))).scalar_one():
        raise BusinessException(ErrorCode.LAST_WAY_IN)


def may_log_in(*, is_active: bool, is_verified: bool) -> bool:
    return is_active and (is_verified or not get_settings().verified_email_required)


def owner_may_log_in(user: User) -> bool:
    return may_log_in(is_active=user.is_active, is_verified=user.is_verified)


async def lock_account(session: AsyncSession, user_id: UUID) -> User | None:
    """The row as it is now; whoever waits for the lock sees what was done meanwhile."""
    locked = select(User).where(User.id == user_id).with_for_update(key_share=True)
    return (await session.execute(locked, execution_options={"populate_existing": True})).scalar_one_or_none()


async def lock_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> AuthSession:
    """The session of who calls, its account locked: what ended either of them while the request was under way ends that, too.

    Refused: INVALID_TOKEN.
    """
    user = await lock_account(session, user_id)
    query = select(AuthSession).where(
        AuthSession.id == session_id,
        AuthSession.user_id == user_id,
        col(AuthSession.revoked_at).is_(None),
        AuthSession.expires_at > datetime.now(UTC),
    )
    row: AuthSession | None = (
        await session.execute(query, execution_options={"populate_existing": True})
    ).scalar_one_or_none()
    if user is None or not user.is_active or row is None:
        raise BusinessException(ErrorCode.INVALID_TOKEN)
    return row


async def hash_password(password: str, *, email: str, username: str | None) -> str:
    """Refused: WEAK_PASSWORD."""
    known = (email, *email.split("@"), username or "", get_settings().app.name)
    return await passwords.hash_password(password, known_about_user=known)


async def confirm_password(user_id: UUID, typed: str, device: Device) -> tuple[User, str | None]:
    """The account and its stored hash, if the password is right. No transaction is open while argon2 runs.

    Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS.
    """
    async with transaction() as session:
        user = await users.get_user(session, user_id)
        credential = await session.get(Credential, user_id)
    stored = credential.password_hash if credential else None
    account = email_key(user.email)
    await throttle.spend_confirmation(account)
    async with passwords.turn():
        # Not by what the world does: who has a session was let in before.
        await throttle.refuse_exhausted_login(account, device.address)
        right, _ = await passwords.verify_password(typed, stored)
        reached = [] if right else await throttle.count_failed_login(account, device.address)
    if not right:
        await audit.record_alone(
            "password.not_confirmed",
            target=("user", user_id),
            after={"limits_reached": reached} if reached else None,
        )
        raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
    return user, stored


async def refuse_changed_password(session: AsyncSession, user_id: UUID, stored: str | None) -> Credential:
    """Locked. Refused: CONFLICTING_WRITE, when it is not what `confirm_password` found."""
    current = await session.get(Credential, user_id, with_for_update=True)
    if current is None or current.password_hash != stored:
        # Somebody changed it since it was checked: the old password decides nothing any more.
        raise BusinessException(ErrorCode.CONFLICTING_WRITE)
    return current


async def even_out(began: float) -> None:
    """What is refused, or answered alike, for one reason or another leaves at the same time after it began (`monotonic`),
    in steps of AUTH__EVEN_SECONDS: some reasons take a row or a statement more."""
    step = get_settings().auth.even_seconds
    if step:
        await asyncio.sleep(step - (monotonic() - began) % step)


def later_than_anybody_measures() -> timedelta:
    """Not behind the answer at once: whoever asked for a mail would see by their next request whether there is work to do."""
    return timedelta(seconds=random.uniform(0, get_settings().auth.mail_delay_seconds))  # noqa: S311 - no secret


async def end_links(session: AsyncSession, user_id: UUID) -> None:
    """To all providers, whoever made them, by the owner of the address."""
    ended = await session.execute(
        delete(ProviderLink)
        .where(col(ProviderLink.user_id) == user_id)
        .returning(col(ProviderLink.id), col(ProviderLink.issuer))
    )
    for link_id, issuer in ended.all():
        facts: Facts = {"link_id": str(link_id), "issuer": issuer}
        await audit.record(session, "provider.unlinked", target=("user", user_id), after=facts, actor_id=user_id)


async def revoke_sessions(session: AsyncSession, user_id: UUID) -> None:
    await session.execute(
        update(AuthSession)
        .where(col(AuthSession.user_id) == user_id, col(AuthSession.revoked_at).is_(None))
        .values(revoked_at=datetime.now(UTC))
    )


async def end_sessions(session: AsyncSession, user_id: UUID) -> None:
    # The account first: a log-in holds its lock until the new session can be seen, and revoked.
    await users.end_all_tokens(session, user_id)
    await revoke_sessions(session, user_id)

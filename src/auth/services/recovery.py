"""Passwords: changing one's own, and choosing a new one by mail."""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.audit import services as audit
from src.auth import throttle
from src.auth.models import Credential, Purpose
from src.auth.schemas import ChangePasswordRequest, ResetPasswordRequest
from src.auth.services import factors, one_time
from src.auth.services.accounts import (
    confirm_password,
    end_links,
    end_sessions,
    hash_password,
    later_than_anybody_measures,
    refuse_changed_password,
)
from src.auth.services.devices import Device
from src.exceptions import BusinessException
from src.mail import services as mail
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users import services as users
from src.users.schemas import email_key

PASSWORD_FORGOTTEN: Final = "auth.password_forgotten"  # noqa: S105 - a name, no secret
_BY_MAIL = (Purpose.RESET_PASSWORD, Purpose.ACCEPT_INVITATION)


async def change_password(user_id: UUID, request: ChangePasswordRequest, device: Device) -> None:
    """Ends all sessions. Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, WEAK_PASSWORD, CONFLICTING_WRITE."""
    user, stored = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    fresh_hash = await hash_password(request.new_password.get_secret_value(), email=user.email, username=user.username)
    async with transaction() as session:
        await end_sessions(session, user_id)
        (await refuse_changed_password(session, user_id, stored)).password_hash = fresh_hash
        await _note_change(session, user_id, user.email, "password.changed")


async def forget_password(session: AsyncSession, email: str, device: Device) -> None:
    """Answered alike, and as quickly, whoever has an account. Refused: TOO_MANY_ATTEMPTS."""
    await throttle.spend_mail_request(device.address)
    await outbox.publish(
        session,
        PASSWORD_FORGOTTEN,
        aggregate=f"address:{pseudonym(email_key(email))}",
        payload={"email": email},
        delay=later_than_anybody_measures(),
    )


async def send_reset(event: Event) -> None:
    """The outbox's handler."""
    async with transaction() as session:
        user = await users.find_user_by_email(session, str(event.payload["email"]))
        if user is None:
            return
        if await one_time.send(session, user.id, Purpose.RESET_PASSWORD, to=user.email):
            await audit.record(session, "password.reset_sent", target=("user", user.id))


async def reset_password(request: ResetPasswordRequest, device: Device) -> None:
    """By the code of a mail: one that was asked for, or an invitation. It proves the address, and ends all sessions and links to
    providers.

    Refused: TOO_MANY_ATTEMPTS, INVALID_ONE_TIME_TOKEN, WEAK_PASSWORD.
    """
    await throttle.spend_mail_request(device.address)
    token = request.token.get_secret_value()
    async with transaction() as session:
        user = await users.get_user(session, await one_time.find_owner(session, token, *_BY_MAIL))
    fresh_hash = await hash_password(request.new_password.get_secret_value(), email=user.email, username=user.username)
    async with transaction() as session:
        redeemed = await one_time.redeem(session, token, *_BY_MAIL)
        invited = redeemed.purpose is Purpose.ACCEPT_INVITATION
        credential = await session.get(Credential, user.id, with_for_update=True)
        if invited and credential is not None:
            raise BusinessException(ErrorCode.INVALID_ONE_TIME_TOKEN)
        if credential is None:
            session.add(Credential(user_id=user.id, password_hash=fresh_hash))
        else:
            credential.password_hash, credential.is_contested = fresh_hash, False
        # Whoever was in the account before may have linked one of theirs. The owner's is asked for by mail again.
        await end_links(session, user.id)
        await factors.forget_strangers(session, redeemed.user)
        await users.verify_email(session, user.id)
        await end_sessions(session, user.id)
        await _note_change(
            session, user.id, redeemed.user.email, "account.joined" if invited else "password.reset", tell=not invited
        )


async def _note_change(session: AsyncSession, user_id: UUID, email: str, action: str, *, tell: bool = True) -> None:
    await one_time.end_all(session, user_id)
    if tell:
        await mail.write(session, "password_changed", to=email)
    await audit.record(session, action, target=("user", user_id), actor_id=user_id)

"""E-mail addresses: proving them, and changing them.

What is asked for without proof is answered before anybody looks: the outbox's handlers look, so that neither the answer
nor the time that it takes depends on who has an account.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src.audit import services as audit
from src.auth import throttle
from src.auth.models import Credential, Purpose
from src.auth.schemas import ChangeEmailRequest
from src.auth.services import factors, one_time
from src.auth.services.accounts import confirm_password, end_sessions, later_than_anybody_measures, lock_account
from src.auth.services.devices import Device
from src.mail import services as mail
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.database import transaction
from src.shared.keys import pseudonym
from src.users import services as users
from src.users.schemas import email_key

VERIFICATION_REQUESTED: Final = "auth.verification_requested"
ADDRESS_CHANGE_REQUESTED: Final = "auth.address_change_requested"


async def request_verification(session: AsyncSession, email: str, device: Device) -> None:
    """Refused: TOO_MANY_ATTEMPTS."""
    await throttle.spend_mail_request(device.address)
    await outbox.publish(
        session,
        VERIFICATION_REQUESTED,
        aggregate=f"address:{pseudonym(email_key(email))}",
        payload={"email": email},
        delay=later_than_anybody_measures(),
    )


async def send_verification(event: Event) -> None:
    """The outbox's handler."""
    async with transaction() as session:
        user = await users.find_user_by_email(session, str(event.payload["email"]))
        if user is None or user.is_verified:
            return
        credential = await session.get(Credential, user.id)
        if credential is not None and credential.is_contested:
            # Whose password it is, the owner of the mailbox says by choosing one.
            await one_time.send(session, user.id, Purpose.RESET_PASSWORD, to=user.email, template="already_registered")
        else:
            await one_time.send(session, user.id, Purpose.VERIFY_ADDRESS, to=user.email)


async def verify_email(session: AsyncSession, token: str, device: Device) -> None:
    """Ends all sessions, factors and keys: who opened or made one before did not have to be the address's owner.

    Refused: TOO_MANY_ATTEMPTS, INVALID_ONE_TIME_TOKEN.
    """
    await throttle.spend_mail_request(device.address)
    redeemed = await one_time.redeem(session, token, Purpose.VERIFY_ADDRESS)
    await factors.forget_strangers(session, redeemed.user)
    await users.verify_email(session, redeemed.user.id)
    await end_sessions(session, redeemed.user.id)
    await audit.record(session, "account.verified", target=("user", redeemed.user.id), actor_id=redeemed.user.id)


async def contest(session: AsyncSession, user_id: UUID) -> None:
    """Somebody else comes with the address of an account before anybody proved it: its password proves nothing from now on,
    and no code that was sent to verify the address lets it stand."""
    user = await lock_account(session, user_id)
    if user is not None and not user.is_verified:
        await one_time.end(session, user_id, Purpose.VERIFY_ADDRESS)
        await session.execute(update(Credential).where(col(Credential.user_id) == user_id).values(is_contested=True))


async def request_email_change(user_id: UUID, request: ChangeEmailRequest, device: Device) -> None:
    """Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS."""
    await throttle.spend_mail_request(device.address)
    user, _ = await confirm_password(user_id, request.current_password.get_secret_value(), device)
    async with transaction() as session:
        await outbox.publish(
            session,
            ADDRESS_CHANGE_REQUESTED,
            aggregate=f"user:{user_id}",
            payload={"user_id": str(user_id), "email": request.new_email, "auth_epoch": user.auth_epoch},
        )
        await audit.record(
            session,
            "email.change_requested",
            target=("user", user_id),
            after={"email": pseudonym(email_key(request.new_email))},
        )


async def offer_new_address(event: Event) -> None:
    """The outbox's handler: a code goes to an address that is free, a word of warning to one that is not."""
    user_id, email = UUID(str(event.payload["user_id"])), str(event.payload["email"])
    async with transaction() as session:
        user = await lock_account(session, user_id)
        # A password that was changed meanwhile, or an account that was closed, ends what the old one asked for.
        if user is None or user.auth_epoch != event.payload["auth_epoch"]:
            return
        owner = await users.find_user_by_email(session, email)
        free = owner is None or owner.id == user_id
        # The word of warning counts as the other does: the code in it is shown to nobody.
        await one_time.send(
            session, user_id, Purpose.CHANGE_ADDRESS, to=email, template=None if free else "address_in_use"
        )


async def confirm_email_change(session: AsyncSession, token: str, device: Device) -> None:
    """Ends all sessions, and tells the old address. Refused: TOO_MANY_ATTEMPTS, INVALID_ONE_TIME_TOKEN, EMAIL_TAKEN."""
    await throttle.spend_mail_request(device.address)
    redeemed = await one_time.redeem(session, token, Purpose.CHANGE_ADDRESS)
    user_id, old = redeemed.user.id, redeemed.user.email
    await users.change_email(session, user_id, redeemed.email)
    await end_sessions(session, user_id)
    # A code for a new password that was sent to the old address would take the account back there.
    await one_time.end_all(session, user_id)
    await mail.write(session, "address_changed", to=old)
    await audit.record(
        session,
        "email.changed",
        target=("user", user_id),
        actor_id=user_id,
        before={"email": pseudonym(email_key(old))},
        after={"email": pseudonym(email_key(redeemed.email))},
    )

"""How accounts come about: by registration, by an administrator, by invitation."""

from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.audit import services as audit
from src.auth import throttle
from src.auth.models import Credential, Purpose
from src.auth.schemas import CreateUserRequest, RegisterRequest
from src.auth.services import one_time
from src.auth.services.accounts import even_out, hash_password, lock_account
from src.auth.services.addresses import contest
from src.auth.services.devices import Device
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import services as users
from src.users.permissions import Grants
from src.users.schemas import UserWithRolesResponse

_ASSIGN = "role:assign"


async def register(request: RegisterRequest, device: Device) -> UserWithRolesResponse | None:
    """A new account, or None where verification is required: then nobody but the address's owner, by mail, learns
    whether it was free.

    Opens its own transaction, since the password is hashed before it.
    Refused: TOO_MANY_ATTEMPTS, WEAK_PASSWORD, EMAIL_TAKEN, USERNAME_TAKEN.
    """
    await throttle.spend_registration(device.address)
    try:
        password_hash = await hash_password(
            request.password.get_secret_value(), email=request.email, username=request.username
        )
    except BusinessException:
        await throttle.give_back_registration(device.address)
        raise
    if not get_settings().verified_email_required:
        async with transaction() as session:
            return await _open_own(session, request, password_hash)
    began = monotonic()
    async with transaction() as session:
        try:
            await _open_own(session, request, password_hash)
        except BusinessException as refusal:
            if refusal.code is not ErrorCode.EMAIL_TAKEN:
                raise
            await _tell_owner(session, request.email)
    await even_out(began)
    return None


async def _open_own(session: AsyncSession, request: RegisterRequest, password_hash: str) -> UserWithRolesResponse:
    user = await users.create_user(
        session,
        email=request.email,
        username=request.username,
        is_verified=False,
        # That a name was taken with an address tells somebody who tries it next whether the address was free.
        username_is_a_wish=get_settings().verified_email_required,
    )
    session.add(Credential(user_id=user.id, password_hash=password_hash))
    await one_time.send(session, user.id, Purpose.VERIFY_ADDRESS, to=user.email)
    await audit.record(session, "account.registered", target=("user", user.id), actor_id=user.id)
    return await users.get_user_with_roles(session, user.id)


async def _tell_owner(session: AsyncSession, email: str) -> None:
    """Whoever registered first with somebody else's address has not got it: the code in the mail gives it back."""
    owner = await users.find_user_by_email(session, email)
    if owner is None:
        return
    await contest(session, owner.id)
    await one_time.send(session, owner.id, Purpose.RESET_PASSWORD, to=owner.email, template="already_registered")
    await audit.record(session, "account.registered_again", target=("user", owner.id))


@dataclass(frozen=True, slots=True)
class NewAccount:
    request: CreateUserRequest
    password_hash: str | None


async def prepare_account(request: CreateUserRequest) -> NewAccount:
    """What takes long, done before a transaction. Refused: WEAK_PASSWORD."""
    if request.password is None:
        return NewAccount(request, None)
    password = request.password.get_secret_value()
    return NewAccount(request, await hash_password(password, email=request.email, username=request.username))


async def create_user(request: CreateUserRequest, *, held: Grants) -> UserWithRolesResponse:
    """For callers without a session: see `open_account`."""
    account = await prepare_account(request)
    async with transaction() as session:
        return await open_account(session, account, held=held)


async def open_account(session: AsyncSession, account: NewAccount, *, held: Grants) -> UserWithRolesResponse:
    """An account made by somebody who holds `held`; roles are given by those who hold `role:assign`.

    Refused: EMAIL_TAKEN, USERNAME_TAKEN, PERMISSION_DENIED, ROLE_NOT_FOUND, GRANT_NOT_HELD.
    """
    request, invited = account.request, account.password_hash is None
    if request.roles:
        if not held.allow(_ASSIGN):
            raise BusinessException(ErrorCode.PERMISSION_DENIED, data={"required": [_ASSIGN], "match": "all"})
        await users.queue_up(session, held)
    is_verified = not invited if request.is_verified is None else request.is_verified
    user = await users.create_user(session, email=request.email, username=request.username, is_verified=is_verified)
    await audit.record(session, "account.created", target=("user", user.id), after={"invited": invited})
    if account.password_hash is None:
        await one_time.send(session, user.id, Purpose.ACCEPT_INVITATION, to=user.email)
    else:
        session.add(Credential(user_id=user.id, password_hash=account.password_hash))
        await session.flush()
    if request.roles:
        return await users.set_roles(session, user.id, request.roles, held=held)
    return await users.get_user_with_roles(session, user.id)


async def invite_again(session: AsyncSession, user_id: UUID) -> None:
    """Refused: USER_NOT_FOUND, ALREADY_JOINED, TOO_MANY_ATTEMPTS."""
    await users.get_user(session, user_id)
    # Who is just joining holds the lock.
    user = await lock_account(session, user_id)
    if user is None or await session.get(Credential, user_id) is not None or not user.is_active:
        raise BusinessException(ErrorCode.ALREADY_JOINED)
    if not await one_time.send(session, user_id, Purpose.ACCEPT_INVITATION, to=user.email):
        raise BusinessException(ErrorCode.TOO_MANY_ATTEMPTS, data={"retry_after_seconds": 3600})
    await audit.record(session, "account.invited", target=("user", user_id))

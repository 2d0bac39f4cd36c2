"""Log-in: by a password, and a second factor where there is one."""

from time import monotonic
from typing import Final
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import passwords, throttle
from src.auth.models import AuthSession, Credential
from src.auth.schemas import FinishLoginRequest, TokenResponse
from src.auth.services import challenges, proving
from src.auth.services.accounts import even_out, lock_account, owner_may_log_in
from src.auth.services.challenges import Challenge
from src.auth.services.devices import Device
from src.auth.services.proving import Proof
from src.auth.services.sessions import open_session
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users import User
from src.users import services as users
from src.users.schemas import email_key

_PLACES: Final = 100


async def log_in(name: str, password: str, device: Device) -> TokenResponse:
    """One answer and one cost for unknown, wrong, empty, disabled and unverified.

    Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, SECOND_FACTOR_REQUIRED.
    """
    began = monotonic()
    try:
        user, fresh_hash = await _check_password(name, password, device)
    except BusinessException:
        await even_out(began)
        raise
    await throttle.spend_login(device.address)
    async with transaction() as session:
        # Under the account's lock: a disable or a password change that came meanwhile wins.
        current = await lock_account(session, user.id)
        if current is None or not owner_may_log_in(current) or current.auth_epoch != user.auth_epoch:
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
        if fresh_hash is not None:
            await _store_hash(session, user.id, fresh_hash)
        if methods := await proving.list_methods(session, user.id):
            outcome: TokenResponse | Challenge = await challenges.open_challenge(session, current, methods)
        else:
            outcome = await open_session(session, current, device, second_factor=None)
    if isinstance(outcome, Challenge):
        raise BusinessException(ErrorCode.SECOND_FACTOR_REQUIRED, data=outcome.facts())
    return outcome


async def finish_login(request: FinishLoginRequest, device: Device) -> TokenResponse:
    """The second step of a log-in that takes two. A wrong code leaves it open.

    Refused: TOO_MANY_ATTEMPTS, INVALID_LOGIN_CHALLENGE, INVALID_SECOND_FACTOR.
    """
    token, proof = request.mfa_token.get_secret_value(), Proof(request.method, request.code.get_secret_value())
    async with transaction() as session:
        user_id = await challenges.find_challenged(session, token)
    opened: TokenResponse | None = None
    async with proving.attempt(user_id, proof.method) as attempt, transaction() as session:
        user = await challenges.lock_challenged(session, token)
        attempt.verdict = await proving.take(session, user_id, proof)
        if attempt.succeeded:
            await challenges.redeem(session, token)
            await proving.note_taken(session, user_id, proof.method)
            opened = await open_session(session, user, device, second_factor=proof.method)
    assert opened is not None
    return opened


async def _check_password(name: str, password: str, device: Device) -> tuple[User, str | None]:
    """The account, and its fresh hash if the stored one is of older parameters. No transaction is open while argon2 runs."""
    async with transaction() as session:
        user = await users.find_user_by_login(session, name)
        # Asked for nobody too: it takes the same time.
        user_id = None if user is None else user.id
        stored = await _password_hash(session, user_id)
    account = email_key(name)
    async with passwords.turn():
        # Asked when it is our turn, so that a thousand guesses at once are not a thousand guesses.
        await throttle.refuse_exhausted_login(account, device.address)
        await _refuse_strangers(user_id, device.address)
        right, fresh_hash = await passwords.verify_password(password, stored)
        if right and user is not None and stored is not None and owner_may_log_in(user):
            return user, fresh_hash
        reached = await throttle.count_failed_login(account, device.address)
    await _note_refusal(account, user_id, reached)
    raise BusinessException(ErrorCode.INVALID_CREDENTIALS)


async def _password_hash(session: AsyncSession, user_id: UUID | None) -> str | None:
    stored: str | None = (
        await session.execute(select(Credential.password_hash).where(Credential.user_id == user_id))
    ).scalar_one_or_none()
    return stored


async def _refuse_strangers(user_id: UUID | None, address: str) -> None:
    """While the whole world guesses, an account is open where somebody logged in to it before. Refused: TOO_MANY_ATTEMPTS."""
    try:
        await throttle.refuse_exhausted_overall()
    except BusinessException:
        async with transaction() as session:
            places = select(AuthSession.address).where(AuthSession.user_id == user_id).distinct().limit(_PLACES)
            known = {throttle.prefix_of(place) for place in (await session.execute(places)).scalars()}
        if throttle.prefix_of(address) not in known:
            raise


async def _note_refusal(account: str, user_id: UUID | None, reached: list[str]) -> None:
    """A name that nobody has is noted as what cannot be read: people type passwords into the wrong field."""
    target: tuple[str, UUID | str] = ("name", pseudonym(account)) if user_id is None else ("user", user_id)
    # What is refused from now on is not noted one by one: an attack would write as fast as it can ask.
    await audit.record_alone("login.refused", target=target, after={"limits_reached": reached} if reached else None)


async def _store_hash(session: AsyncSession, user_id: UUID, password_hash: str) -> None:
    await session.execute(
        update(Credential).where(col(Credential.user_id) == user_id).values(password_hash=password_hash)
    )

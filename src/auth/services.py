"""Registration, log-in, refresh, log-out: credentials and sessions."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from loguru import logger
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.auth import passwords, throttle, tokens
from src.auth.models import AuthSession, Credential, RefreshToken
from src.auth.schemas import ChangePasswordRequest, CreateUserRequest, RegisterRequest, SessionResponse, TokenResponse
from src.auth.tokens import AccessClaims
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import User
from src.users import services as users
from src.users.permissions import Grants
from src.users.schemas import UpdateUserRequest, UserWithRolesResponse, email_key

_ASSIGN = "role:assign"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a session comes from, to be recognised in the list of sessions."""

    address: str
    user_agent: str


async def register(request: RegisterRequest, device: Device) -> UserWithRolesResponse | None:
    """A new account, or None where verification is required: then nobody learns whether the address was free.

    Opens its own transaction, since the password is hashed before it.
    Refused: TOO_MANY_ATTEMPTS, WEAK_PASSWORD, EMAIL_TAKEN, USERNAME_TAKEN.
    """
    await throttle.spend_registration(device.address)
    verified_first = get_settings().verified_email_required
    try:
        password_hash = await _hash(request)
    except BusinessException:
        await throttle.give_back_registration(device.address)
        raise
    try:
        async with transaction() as session:
            user = await users.create_user(
                session,
                email=request.email,
                username=request.username,
                is_verified=False,
                # That a name was taken with an address tells somebody who tries it next whether the address was free.
                username_is_a_wish=verified_first,
            )
            session.add(Credential(user_id=user.id, password_hash=password_hash))
            created = await users.get_user_with_roles(session, user.id)
    except BusinessException as refusal:
        if verified_first and refusal.code is ErrorCode.EMAIL_TAKEN:
            return None
        raise
    return None if verified_first else created


@dataclass(frozen=True, slots=True)
class NewAccount:
    request: CreateUserRequest
    password_hash: str


async def prepare_account(request: CreateUserRequest) -> NewAccount:
    """What takes long, done before a transaction. Refused: WEAK_PASSWORD."""
    return NewAccount(request, await _hash(request))


async def create_user(request: CreateUserRequest, *, held: Grants) -> UserWithRolesResponse:
    """For callers without a session: see `open_account`."""
    account = await prepare_account(request)
    async with transaction() as session:
        return await open_account(session, account, held=held)


async def open_account(session: AsyncSession, account: NewAccount, *, held: Grants) -> UserWithRolesResponse:
    """An account made by somebody who holds `held`; roles are given by those who hold `role:assign`.

    Refused: EMAIL_TAKEN, USERNAME_TAKEN, PERMISSION_DENIED, ROLE_NOT_FOUND, GRANT_NOT_HELD.
    """
    request = account.request
    if request.roles and not held.allow(_ASSIGN):
        raise BusinessException(ErrorCode.PERMISSION_DENIED, data={"required": [_ASSIGN], "match": "all"})
    user = await users.create_user(
        session, email=request.email, username=request.username, is_verified=request.is_verified
    )
    session.add(Credential(user_id=user.id, password_hash=account.password_hash))
    await session.flush()
    if request.roles:
        return await users.set_roles(session, user.id, request.roles, held=held)
    return await users.get_user_with_roles(session, user.id)


async def _hash(request: RegisterRequest) -> str:
    known = (request.email, *request.email.split("@"), request.username or "")
    return await passwords.hash_password(request.password.get_secret_value(), known_about_user=known)


async def update_user(session: AsyncSession, user_id: UUID, changes: UpdateUserRequest) -> UserWithRolesResponse:
    """A disabled account has no sessions, so that none comes back when it is enabled again.

    Refused: USER_NOT_FOUND, USERNAME_TAKEN, LAST_ADMIN.
    """
    updated = await users.update_user(session, user_id, changes)
    if not updated.is_active:
        await _revoke_sessions(session, user_id)
    return updated


async def delete_user(session: AsyncSession, user_id: UUID) -> None:
    """Refused: USER_NOT_FOUND, LAST_ADMIN."""
    await users.delete_user(session, user_id)
    await session.execute(delete(Credential).where(col(Credential.user_id) == user_id))
    await session.execute(delete(AuthSession).where(col(AuthSession.user_id) == user_id))


async def log_in(email: str, password: str, device: Device) -> TokenResponse:
    """One answer and one cost for unknown, wrong, empty, disabled and unverified. Refused: INVALID_CREDENTIALS.

    No transaction is open while argon2 runs.
    """
    async with transaction() as session:
        user = await users.find_user_by_email(session, email)
        credential = None if user is None else await session.get(Credential, user.id)
    account = email_key(email)
    async with passwords.turn():
        # Asked when it is our turn, so that a thousand guesses at once are not a thousand guesses.
        await throttle.refuse_exhausted_login(account, device.address)
        right, fresh_hash = await passwords.verify_password(password, credential.password_hash if credential else None)
        if not right or user is None or credential is None or not _may_log_in(user):
            await throttle.count_failed_login(account, device.address)
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
    await throttle.spend_login(device.address)
    async with transaction() as session:
        # Under the account's lock: a disable or a password change that came meanwhile wins.
        current = await _lock_account(session, user.id)
        if current is None or not _may_log_in(current) or current.auth_epoch != user.auth_epoch:
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
        if fresh_hash is not None:
            await _store_hash(session, user.id, fresh_hash)
        return await _open_session(session, current, device)


def _may_log_in(user: User) -> bool:
    return user.is_active and (user.is_verified or not get_settings().verified_email_required)


async def _lock_account(session: AsyncSession, user_id: UUID) -> User | None:
    locked = select(User).where(User.id == user_id).with_for_update(key_share=True)
    return (await session.execute(locked)).scalar_one_or_none()


async def _open_session(session: AsyncSession, user: User, device: Device) -> TokenResponse:
    auth, now, token = get_settings().auth, datetime.now(UTC), tokens.new_refresh_token()
    opened = AuthSession(
        user_id=user.id,
        expires_at=now + timedelta(seconds=auth.session_ttl_seconds),
        address=device.address[:45],
        user_agent=device.user_agent[:255],
    )
    session.add(opened)
    await session.flush()
    session.add(_refresh_row(token, opened, now))
    return _letter(user.id, opened.id, user.auth_epoch, token)


def _refresh_row(token: str, family: AuthSession, now: datetime) -> RefreshToken:
    idle = now + timedelta(seconds=get_settings().auth.refresh_token_ttl_seconds)
    return RefreshToken(
        token_hash=tokens.hash_refresh_token(token), session_id=family.id, expires_at=min(idle, family.expires_at)
    )


def _letter(user_id: UUID, session_id: UUID, auth_epoch: int, refresh_token: str) -> TokenResponse:
    return TokenResponse(
        access_token=tokens.make_access_token(user_id, session_id, auth_epoch),
        refresh_token=refresh_token,
        expires_in=get_settings().auth.access_token_ttl_seconds,
    )


async def refresh(token: str, device: Device) -> TokenResponse:
    """Exchange a refresh token for its successor. Refused: TOO_MANY_ATTEMPTS, INVALID_REFRESH_TOKEN, REFRESH_TOKEN_REUSED.

    Opens its own transaction: that a reused token ends its session must survive the refusal.
    """
    await throttle.spend_login(device.address)
    async with transaction() as session:
        outcome = await _exchange(session, token)
    if isinstance(outcome, ErrorCode):
        raise BusinessException(outcome)
    return outcome


async def _exchange(session: AsyncSession, token: str) -> TokenResponse | ErrorCode:
    token_hash = tokens.hash_refresh_token(token)
    family_id = (
        await session.execute(select(RefreshToken.session_id).where(RefreshToken.token_hash == token_hash))
    ).scalar_one_or_none()
    if family_id is None:
        return ErrorCode.INVALID_REFRESH_TOKEN
    family = await _lock_session(session, family_id)
    now = datetime.now(UTC)
    if family is None or family.revoked_at is not None or family.expires_at <= now:
        return ErrorCode.INVALID_REFRESH_TOKEN
    user = await session.get(User, family.user_id)
    if user is None or not _may_log_in(user):
        return ErrorCode.INVALID_REFRESH_TOKEN
    successor = tokens.succeed(token)
    consumed = await session.execute(
        update(RefreshToken)
        .where(
            col(RefreshToken.token_hash) == token_hash,
            col(RefreshToken.used_at).is_(None),
            col(RefreshToken.expires_at) > now,
        )
        .values(used_at=now)
        .returning(col(RefreshToken.token_hash))
    )
    if consumed.scalar_one_or_none() is not None:
        session.add(_refresh_row(successor, family, now))
        family.last_used_at = now
    elif not await _lost_answer(session, token_hash, successor, now):
        return await _end_if_reused(session, family, token_hash, now)
    return _letter(user.id, family.id, user.auth_epoch, successor)


async def _lost_answer(session: AsyncSession, token_hash: str, successor: str, now: datetime) -> bool:
    """Used a moment ago, and what came of it was not used yet: the client did not get our answer."""
    grace = now - timedelta(seconds=get_settings().auth.refresh_grace_seconds)
    used_at = await _used_at(session, token_hash)
    next_row = await session.get(RefreshToken, tokens.hash_refresh_token(successor))
    return used_at is not None and used_at > grace and next_row is not None and next_row.used_at is None


async def _used_at(session: AsyncSession, token_hash: str) -> datetime | None:
    used_at: datetime | None = (
        await session.execute(select(RefreshToken.used_at).where(RefreshToken.token_hash == token_hash))
    ).scalar_one()
    return used_at


async def _end_if_reused(session: AsyncSession, family: AuthSession, token_hash: str, now: datetime) -> ErrorCode:
    if await _used_at(session, token_hash) is None:
        # Never exchanged: it has only expired.
        return ErrorCode.INVALID_REFRESH_TOKEN
    family.revoked_at = now
    logger.bind(session_id=str(family.id), user_id=str(family.user_id)).warning("Refresh token reused, session ended")
    return ErrorCode.REFRESH_TOKEN_REUSED


async def _lock_session(session: AsyncSession, session_id: UUID) -> AuthSession | None:
    locked = select(AuthSession).where(AuthSession.id == session_id).with_for_update()
    return (await session.execute(locked)).scalar_one_or_none()


async def log_out(session: AsyncSession, token: str) -> None:
    """End the session of this refresh token. An unknown one is no error: what it asks for is true already."""
    family = select(RefreshToken.session_id).where(RefreshToken.token_hash == tokens.hash_refresh_token(token))
    await session.execute(
        update(AuthSession)
        .where(col(AuthSession.id).in_(family), col(AuthSession.revoked_at).is_(None))
        .values(revoked_at=datetime.now(UTC))
    )


async def log_out_everywhere(session: AsyncSession, user_id: UUID) -> None:
    # The account first: a log-in holds its lock until the new session can be seen, and revoked.
    await users.end_all_tokens(session, user_id)
    await _revoke_sessions(session, user_id)


async def _revoke_sessions(session: AsyncSession, user_id: UUID) -> None:
    await session.execute(
        update(AuthSession)
        .where(col(AuthSession.user_id) == user_id, col(AuthSession.revoked_at).is_(None))
        .values(revoked_at=datetime.now(UTC))
    )


async def change_password(user_id: UUID, request: ChangePasswordRequest, device: Device) -> None:
    """Ends all sessions. Refused: TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, WEAK_PASSWORD, CONFLICTING_WRITE."""
    async with transaction() as session:
        user = await users.get_user(session, user_id)
        credential = await session.get(Credential, user_id)
    stored = credential.password_hash if credential else None
    account = email_key(user.email)
    async with passwords.turn():
        await throttle.refuse_exhausted_login(account, device.address)
        right, _ = await passwords.verify_password(request.current_password.get_secret_value(), stored)
        if not right:
            await throttle.count_failed_login(account, device.address)
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
    known = (user.email, *user.email.split("@"), user.username or "")
    fresh_hash = await passwords.hash_password(request.new_password.get_secret_value(), known_about_user=known)
    async with transaction() as session:
        await log_out_everywhere(session, user_id)
        current = await session.get(Credential, user_id, with_for_update=True)
        if current is None or current.password_hash != stored:
            # Somebody changed it since it was checked: the old password decides nothing any more.
            raise BusinessException(ErrorCode.CONFLICTING_WRITE)
        current.password_hash = fresh_hash


async def _store_hash(session: AsyncSession, user_id: UUID, password_hash: str) -> None:
    await session.execute(
        update(Credential).where(col(Credential.user_id) == user_id).values(password_hash=password_hash)
    )


async def list_sessions(session: AsyncSession, user_id: UUID, *, current: UUID) -> list[SessionResponse]:
    alive = (
        select(AuthSession)
        .where(
            AuthSession.user_id == user_id,
            col(AuthSession.revoked_at).is_(None),
            AuthSession.expires_at > datetime.now(UTC),
        )
        .order_by(col(AuthSession.last_used_at).desc(), col(AuthSession.id))
        .limit(100)
    )
    rows = (await session.execute(alive)).scalars()
    return [
        SessionResponse(**row.model_dump(exclude={"user_id", "revoked_at"}), current=row.id == current) for row in rows
    ]


async def end_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> None:
    """Refused: SESSION_NOT_FOUND, also for somebody else's."""
    ended = await session.execute(
        update(AuthSession)
        .where(
            col(AuthSession.id) == session_id,
            col(AuthSession.user_id) == user_id,
            col(AuthSession.revoked_at).is_(None),
        )
        .values(revoked_at=datetime.now(UTC))
        .returning(col(AuthSession.id))
    )
    if ended.scalar_one_or_none() is None:
        raise BusinessException(ErrorCode.SESSION_NOT_FOUND)


async def find_account(session: AsyncSession, claims: AccessClaims) -> tuple[User, datetime] | None:
    """The account behind a token and the end of its session, if neither ended before: one indexed read."""
    query = (
        select(User, AuthSession.expires_at)
        .join(AuthSession, col(AuthSession.user_id) == User.id)
        .where(
            User.id == claims.user_id,
            col(User.is_active),
            User.auth_epoch == claims.auth_epoch,
            AuthSession.id == claims.session_id,
            col(AuthSession.revoked_at).is_(None),
            AuthSession.expires_at > datetime.now(UTC),
        )
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1])

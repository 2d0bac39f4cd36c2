"""Accounts: how they come about, change and end."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from src.audit import services as audit
from src.audit.services import Facts
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode
from src.shared.keys import pseudonym
from src.users.models import User, UserRole
from src.users.permissions import Grants
from src.users.schemas import (
    UpdateUserRequest,
    UserWithRolesResponse,
    email_key,
    username_key,
)
from src.users.services.finding import get_user, get_user_with_roles
from src.users.services.rights import (
    get_grants,
    keep_an_admin,
    queue_up,
    refuse_reaching_over,
    refuse_what_is_not_held,
)
from src.users.services.roles import find_role_ids, link_roles

MEMBER = "user"


async def create_user(  # noqa: PLR0913 - an account has these parts
    session: AsyncSession,
    *,
    email: str,
    username: str | None,
    is_verified: bool,
    username_is_a_wish: bool = False,
    roles: Sequence[str] = (MEMBER,),
) -> User:
    """A name that is only wished for is given, if it is free then, when the address is verified.

    Refused: EMAIL_TAKEN, USERNAME_TAKEN, ROLE_NOT_FOUND.
    """
    user = User(
        email=email,
        email_key=email_key(email),
        username=username,
        username_key=None if username is None or username_is_a_wish else username_key(username),
        is_verified=is_verified,
    )
    # The unique indexes decide, not a look before: two registrations at once would both look and both find nothing.
    try:
        async with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        raise BusinessException(_taken(error)) from None
    await link_roles(session, user.id, await find_role_ids(session, roles))
    return user


def _taken(error: IntegrityError) -> ErrorCode:
    return ErrorCode.USERNAME_TAKEN if "username_key" in str(error.orig) else ErrorCode.EMAIL_TAKEN


async def update_user(
    session: AsyncSession, user_id: UUID, changes: UpdateUserRequest, *, held: Grants
) -> UserWithRolesResponse:
    """Nobody reaches over those who hold more: to lock them out takes what they hold, to let them in gives it.

    Refused: USER_NOT_FOUND, USERNAME_TAKEN, LAST_ADMIN, GRANT_NOT_HELD, INVALID_TOKEN.
    """
    values = changes.model_dump(exclude_unset=True)
    if "username" in values:
        values["username_key"] = None if changes.username is None else username_key(changes.username)
    for flag in ("is_active", "is_verified"):
        if values.get(flag, ...) is None:
            del values[flag]
    if values.keys() & {"is_active", "is_verified"}:
        await queue_up(session, held)
    user = await get_user(session, user_id)
    before = _facts(user)
    await refuse_reaching_over(session, user_id, held)
    if False in (values.get("is_active"), values.get("is_verified")):
        await keep_an_admin(session, without=user_id)
        values["auth_epoch"] = User.auth_epoch + 1
    if values.get("is_verified") and "username" not in values:
        await _grant_wished_username(session, user)
    if values:
        try:
            async with session.begin_nested():
                await session.execute(update(User).where(col(User.id) == user_id).values(values))
        except IntegrityError as error:
            raise BusinessException(_taken(error)) from None
        session.expire_all()
    updated = await get_user_with_roles(session, user_id)
    was, is_now = audit.changes(before, _facts(updated))
    if is_now:
        await audit.record(session, "account.updated", target=("user", user_id), before=was, after=is_now)
    return updated


def _facts(user: User | UserWithRolesResponse) -> Facts:
    """What the audit log may have of an account: it outlives the name."""
    return {
        "username": None if user.username is None else pseudonym(username_key(user.username)),
        "is_active": user.is_active,
        "is_verified": user.is_verified,
    }


async def verify_email(session: AsyncSession, user_id: UUID) -> None:
    """The owner of the address has shown to be it. Refused: USER_NOT_FOUND."""
    user = await get_user(session, user_id)
    if not user.is_verified:
        await _grant_wished_username(session, user)
        await session.execute(update(User).where(col(User.id) == user_id).values(is_verified=True))


async def change_email(session: AsyncSession, user_id: UUID, email: str) -> None:
    """To one that its owner has shown to read. Refused: EMAIL_TAKEN."""
    values = {"email": email, "email_key": email_key(email), "is_verified": True}
    try:
        async with session.begin_nested():
            await session.execute(update(User).where(col(User.id) == user_id).values(values))
    except IntegrityError as error:
        raise BusinessException(_taken(error)) from None


async def _grant_wished_username(session: AsyncSession, user: User) -> None:
    if user.username is None or user.username_key is not None:
        return
    wish = update(User).where(col(User.id) == user.id)
    try:
        async with session.begin_nested():
            await session.execute(wish.values(username_key=username_key(user.username)))
    except IntegrityError:
        await session.execute(wish.values(username=None))


async def delete_user(session: AsyncSession, user_id: UUID, *, held: Grants) -> None:
    """The row stays, since orders and records point to it; who it was goes.

    Refused: USER_NOT_FOUND, LAST_ADMIN, GRANT_NOT_HELD, INVALID_TOKEN.
    """
    await queue_up(session, held)
    await get_user(session, user_id)
    refuse_what_is_not_held(await get_grants(session, user_id), held)
    await keep_an_admin(session, without=user_id)
    gone = f"deleted-{user_id}@invalid"
    await session.execute(
        update(User)
        .where(col(User.id) == user_id)
        .values(
            email=gone,
            email_key=gone,
            username=None,
            username_key=None,
            is_active=False,
            is_verified=False,
            auth_epoch=User.auth_epoch + 1,
            deleted_at=datetime.now(UTC),
        )
    )
    await session.execute(delete(UserRole).where(col(UserRole.user_id) == user_id))
    await audit.record(session, "account.deleted", target=("user", user_id))

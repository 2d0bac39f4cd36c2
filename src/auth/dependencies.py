"""What a route can ask of its caller: be logged in, hold permissions, hold roles, own the thing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import time
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from src.auth import principals, throttle
from src.auth import services as auth
from src.auth.principals import Principal, Standing
from src.auth.tokens import Claims
from src.exceptions import BusinessException
from src.shared.database import SessionDep
from src.shared.errors import ErrorCode
from src.shared.inline import Scope, for_its_value, plainly, reads_scope
from src.shared.logging import current_request
from src.users import User
from src.users.permissions import DEMANDED_ROLES, Grants, check_name

Match = Literal["all", "any"]
Guard = Callable[..., Awaitable[None]]


class _Bearer(OAuth2PasswordBearer):
    """The same, on the headers as the server gives them: no text is made of those that are not asked for."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        return _token(request.scope)


def _token(scope: Scope) -> str | None:
    """Of two that are given none counts: whoever stands in between may have believed the other."""
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                return ""
            found = value
    if found is None:
        return None
    scheme, _, token = found.partition(b" ")
    return str(token, "latin-1").strip(" ") if scheme.lower() == b"bearer" else None


_bearer = reads_scope(_token)(
    _Bearer(
        # Relative, so that the docs' Authorize button works below any root_path.
        tokenUrl="api/v1/auth/token",
        refreshUrl="api/v1/auth/refresh",
        scheme_name=OAuth2PasswordBearer.__name__,
        auto_error=False,
    )
)


@dataclass(slots=True)  # not frozen: each request makes one, and that would triple its price
class Caller:
    """Who calls: remembered, or read in the request's session."""

    standing: Standing
    principal: Principal | None
    account: auth.Account | None


async def _caller(session: SessionDep, token: Annotated[str | None, Depends(_bearer)]) -> Caller:
    if token is None:
        raise BusinessException(ErrorCode.NOT_AUTHENTICATED)
    recalled = principals.recall(session, token)
    if recalled is None:
        raise BusinessException(ErrorCode.INVALID_TOKEN)
    claims, principal = recalled
    if principal is not None:
        caller = Caller(principal.standing, principal, None)
    else:
        caller = await _read_caller(session, token, claims)
    if (request := current_request()) is not None:
        request.user_id = caller.standing.subject
    if (key_id := caller.standing.key_id) is not None:
        await _called_by_key(key_id)
    return caller


async def _read_caller(session: AsyncSession, token: str, claims: Claims) -> Caller:
    if principals.may_read_beside(session):
        if (principal := await principals.find_principal(session, token)) is not None:
            return Caller(principal.standing, principal, None)
    elif (account := await auth.find_account(session, claims)) is not None:
        return Caller(Standing.of(account), None, account)
    raise BusinessException(ErrorCode.INVALID_TOKEN)


async def _called_by_key(key_id: UUID) -> None:
    """Refused: TOO_MANY_ATTEMPTS."""
    await throttle.spend_api_key(key_id)
    request = current_request()
    client = None if request is None or request.scope is None else request.scope.get("client")
    auth.note_use(key_id, client[0] if client else "")


def _user(caller: Caller, session: AsyncSession) -> User:
    if caller.principal is not None:
        return principals.revive(session, caller.principal)
    assert caller.account is not None
    return caller.account.user


@for_its_value
@plainly(_user)
async def current_user(caller: Annotated[Caller, Depends(_caller)], session: SessionDep) -> User:
    """The account behind the access token. Refused: NOT_AUTHENTICATED, INVALID_TOKEN."""
    return _user(caller, session)


async def current_session(caller: Annotated[Caller, Depends(_caller)]) -> Standing:
    """Refused: SESSION_REQUIRED, of an API key."""
    if caller.standing.session_id is None:
        raise BusinessException(ErrorCode.SESSION_REQUIRED)
    return caller.standing


async def current_session_id(standing: Annotated[Standing, Depends(current_session)]) -> UUID:
    assert standing.session_id is not None
    return standing.session_id


async def current_grants(caller: Annotated[Caller, Depends(_caller)], session: SessionDep) -> Grants:
    """What the caller holds now."""
    if caller.principal is not None:
        return caller.principal.grants
    assert caller.account is not None
    return await auth.get_grants(session, caller.account)


async def grants_or_none(session: SessionDep, token: Annotated[str | None, Depends(_bearer)]) -> Grants:
    """For public routes that show some callers more: no grants without a token. Refused: INVALID_TOKEN."""
    if token is None:
        return Grants(frozenset(), frozenset())
    return await current_grants(await _caller(session, token), session)


CurrentUser = Annotated[User, Depends(current_user)]
ForPeople = Depends(current_session)
"""For routes that no API key calls."""
CurrentSession = Annotated[Standing, Depends(current_session)]
CurrentSessionId = Annotated[UUID, Depends(current_session_id)]
CurrentGrants = Annotated[Grants, Depends(current_grants)]
GrantsOrNone = Annotated[Grants, Depends(grants_or_none)]


def seen_with(permission: str) -> Callable[..., Awaitable[UUID | None]]:
    """Whose things the caller gets at: None, everybody's, for who holds the permission; else the caller's own."""
    check_name(permission)

    async def visible_to(user: CurrentUser, grants: CurrentGrants) -> UUID | None:
        return None if grants.allow(permission) else user.id

    return visible_to


def require_permissions(*permissions: str, match: Match = "all") -> Guard:
    """A dependency that refuses (PERMISSION_DENIED) a caller who does not hold all, or any, of them.

    Raises:
        TypeError, ValueError: at import, for no permission, a name that is not `module:action`, a bad `match`.
    """
    required = _checked(permissions, match)

    def refuse(grants: Grants) -> None:
        _refuse_without(grants, required, match)

    @plainly(refuse)
    async def check(grants: CurrentGrants) -> None:
        refuse(grants)

    check.required_permissions = required  # type: ignore[attr-defined] # shown by tools that list what routes need
    return check


def require_roles(*roles: str) -> Guard:
    """A dependency that refuses (ROLE_REQUIRED) a caller who has none of these roles."""
    if not roles or not all(_is_name(role) for role in roles):
        raise TypeError("require_roles takes at least one role name")
    DEMANDED_ROLES.update(roles)

    async def check(grants: CurrentGrants) -> None:
        if grants.roles.isdisjoint(roles):
            if grants.withheld is not None and not grants.withheld.roles.isdisjoint(roles):
                raise BusinessException(ErrorCode.STEP_UP_REQUIRED, data={})
            raise BusinessException(ErrorCode.ROLE_REQUIRED, data={"required": list(roles)})

    check.required_roles = roles  # type: ignore[attr-defined] # as above
    return check


def _is_name(role: object) -> bool:
    return isinstance(role, str) and role != ""


def owner_or_perm(get_owner_id: Callable[..., Any], perms: str | tuple[str, ...] | list[str]) -> Guard:
    """A dependency that lets the owner pass, and whoever holds all of `perms`.

    `get_owner_id` is a dependency itself: it takes path parameters, the session and the like, and gives the owner's
    id, or None for what has no owner. Whatever it refuses (X_NOT_FOUND) is refused before.
    """
    if not callable(get_owner_id):
        raise TypeError("owner_or_perm takes a dependency that gives the owner's id first")
    required = _checked((perms,) if isinstance(perms, str) else tuple(perms), "all")

    async def check(
        user: CurrentUser, grants: CurrentGrants, owner_id: Annotated[UUID | None, Depends(get_owner_id)]
    ) -> None:
        if owner_id != user.id:
            _refuse_without(grants, required, "all")

    check.required_permissions = required  # type: ignore[attr-defined] # as above
    return check


def _checked(permissions: tuple[str, ...], match: Match) -> tuple[str, ...]:
    if not permissions:
        raise TypeError("name at least one permission")
    if match not in get_args(Match):  # what a type checker would have said
        raise ValueError(f"match is 'all' or 'any', not {match!r}")
    return tuple(check_name(permission) for permission in permissions)


def _refuse_without(grants: Grants, required: tuple[str, ...], match: Match) -> None:
    if _suffice(grants, required, match):
        return
    if grants.withheld is not None and _suffice(grants.withheld, required, match):
        raise BusinessException(ErrorCode.STEP_UP_REQUIRED, data={})
    raise BusinessException(ErrorCode.PERMISSION_DENIED, data={"required": list(required), "match": match})


def _suffice(grants: Grants, required: tuple[str, ...], match: Match) -> bool:
    held = [grants.allow(permission) for permission in required]
    return all(held) if match == "all" else any(held)


def require_mfa(max_age_seconds: int | None = None) -> Guard:
    """A dependency that refuses (STEP_UP_REQUIRED) a session in which no second factor was proven, or none within
    `max_age_seconds` (RFC 9470); and (SESSION_REQUIRED) an API key.

    Raises:
        ValueError: at import, for an age that is not positive.
    """
    if max_age_seconds is not None and max_age_seconds < 1:
        raise ValueError(f"max_age_seconds is positive, not {max_age_seconds}")
    facts = {} if max_age_seconds is None else {"max_age_seconds": max_age_seconds}

    async def check(standing: CurrentSession) -> None:
        proven_at = standing.second_factor_at
        if proven_at is None or (max_age_seconds is not None and proven_at + max_age_seconds <= time()):
            raise BusinessException(ErrorCode.STEP_UP_REQUIRED, data=facts)

    check.required_second_factor = True  # type: ignore[attr-defined] # as above
    return check


async def device(request: Request) -> auth.Device:
    client = request.client
    return auth.Device(address=client.host if client else "", user_agent=request.headers.get("user-agent", ""))


DeviceDep = Annotated[auth.Device, Depends(device)]

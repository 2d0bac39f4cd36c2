"""Sign-in with a provider: the first time, later, and the links of one's own.

Only a verified address leads to an account, and to one that is there already only when its owner says so: by a mail, or
logged in.
"""

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from loguru import logger
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import openid, throttle, tokens
from src.auth.models import Credential, ProviderErrand, ProviderLink, Purpose
from src.auth.openid import Errand, Identity, InvalidAnswerError, UnavailableError
from src.auth.schemas import (
    LinkProviderRequest,
    ProviderAnswerRequest,
    ProviderErrandResponse,
    ProviderLinkResponse,
    ProviderResponse,
    TokenResponse,
)
from src.auth.services import challenges, factors, one_time, proving
from src.auth.services.accounts import (
    confirm_password,
    end_sessions,
    lock_account,
    lock_session,
    owner_may_log_in,
    refuse_changed_password,
    refuse_without_way_in,
)
from src.auth.services.addresses import contest
from src.auth.services.challenges import Challenge
from src.auth.services.devices import Device
from src.auth.services.sessions import open_session
from src.config import ProviderSettings, get_settings
from src.exceptions import BusinessException
from src.mixins import utc_now
from src.shared.database import transaction
from src.shared.errors import ErrorCode
from src.users import services as users
from src.users.schemas import Email

_KEPT_FOR: Final = timedelta(days=1)
_EMAIL: Final[TypeAdapter[str]] = TypeAdapter(Email)


class _Wrong(StrEnum):
    """Why an answer was refused, for the audit log."""

    REPLAYED = "replayed"
    """Or never asked for, not by this browser, or too late."""
    OTHER_STATE = "other_state"
    INVALID = "invalid"
    SHUT_OUT = "shut_out"


def list_providers() -> list[ProviderResponse]:
    return [ProviderResponse(name=each.name, title=each.shown) for each in get_settings().auth.providers]


def _get_provider(name: str) -> ProviderSettings:
    """Refused: PROVIDER_NOT_FOUND."""
    for provider in get_settings().auth.providers:
        if provider.name == name:
            return provider
    raise BusinessException(ErrorCode.PROVIDER_NOT_FOUND)


# There and back


async def _make_errand(provider: ProviderSettings) -> ProviderErrandResponse:
    """Before a transaction: the provider may be asked. Refused: PROVIDER_UNAVAILABLE."""
    token = tokens.new_opaque_token()
    try:
        url = await openid.authorization_url(provider, openid.make_errand(token))
    except UnavailableError as error:
        raise _unavailable(provider, error) from error
    seconds = get_settings().auth.login_challenge_ttl_seconds
    return ProviderErrandResponse(authorization_url=url, browser_token=token, expires_in=seconds)


def _keep(
    session: AsyncSession, provider: ProviderSettings, errand: ProviderErrandResponse, *, session_id: UUID | None
) -> None:
    session.add(
        ProviderErrand(
            token_hash=tokens.hash_opaque_token(errand.browser_token),
            provider=provider.name,
            session_id=session_id,
            expires_at=utc_now() + timedelta(seconds=errand.expires_in),
        )
    )


async def _come_back(
    provider: ProviderSettings, answer: ProviderAnswerRequest, *, session_id: UUID | None, by: str
) -> Identity:
    """Who came back. The errand is over, whatever else is wrong: no answer is looked at twice. No transaction is open
    while the provider is asked.

    `by`: whoever tries, an address or an account. Refused: INVALID_PROVIDER_ANSWER, PROVIDER_UNAVAILABLE.
    """
    token = answer.browser_token.get_secret_value()
    async with transaction() as session:
        is_ours = await _end_errand(session, token, provider, session_id)
    errand: Errand | None = openid.find_errand(token, answer.state.get_secret_value())
    if not is_ours or errand is None:
        wrong = _Wrong.OTHER_STATE if is_ours else _Wrong.REPLAYED
        raise await _refused(provider, wrong, by=by)
    try:
        return await openid.exchange(provider, errand, code=answer.code.get_secret_value(), issuer=answer.iss)
    except UnavailableError as error:
        raise _unavailable(provider, error) from error
    except InvalidAnswerError as error:
        logger.bind(provider=provider.name, reason=str(error)[:200]).info("A provider's answer was refused")
        raise await _refused(provider, _Wrong.INVALID, by=by) from error


async def _end_errand(session: AsyncSession, token: str, provider: ProviderSettings, session_id: UUID | None) -> bool:
    its_own = col(ProviderErrand.session_id)
    ended = await session.execute(
        update(ProviderErrand)
        .where(
            col(ProviderErrand.token_hash) == tokens.hash_opaque_token(token),
            col(ProviderErrand.provider) == provider.name,
            its_own.is_(None) if session_id is None else its_own == session_id,
            col(ProviderErrand.used_at).is_(None),
            col(ProviderErrand.expires_at) > utc_now(),
        )
        .values(used_at=utc_now())
        .returning(col(ProviderErrand.token_hash))
    )
    return ended.first() is not None


def _unavailable(provider: ProviderSettings, error: UnavailableError) -> BusinessException:
    logger.bind(provider=provider.name, reason=str(error)[:200]).warning("A provider does not answer")
    return BusinessException(ErrorCode.PROVIDER_UNAVAILABLE)


async def _refused(
    provider: ProviderSettings, wrong: _Wrong, *, by: str, user_id: UUID | None = None
) -> BusinessException:
    """Noted in a transaction of its own, and not without end: anybody can send anything."""
    if await throttle.may_note("provider", by):
        await audit.record_alone(
            "provider.refused",
            target=("user", user_id) if user_id is not None else ("provider", provider.name),
            after={"provider": provider.name, "reason": wrong.value},
        )
    return BusinessException(ErrorCode.INVALID_PROVIDER_ANSWER)


async def sweep(session: AsyncSession) -> int:
    """Forget errands of yesterday; how many there were."""
    swept = await session.execute(
        delete(ProviderErrand)
        .where(col(ProviderErrand.expires_at) < utc_now() - _KEPT_FOR)
        .returning(col(ProviderErrand.token_hash))
    )
    return len(swept.all())


# Log-in


async def begin_provider_login(name: str, device: Device) -> ProviderErrandResponse:
    """Refused: PROVIDER_NOT_FOUND, TOO_MANY_ATTEMPTS, PROVIDER_UNAVAILABLE."""
    provider = _get_provider(name)
    await throttle.spend_login(device.address)
    errand = await _make_errand(provider)
    async with transaction() as session:
        _keep(session, provider, errand, session_id=None)
    return errand


async def log_in_by_provider(name: str, answer: ProviderAnswerRequest, device: Device) -> TokenResponse:
    """As whoever the provider's subject is linked to; as somebody new, where nobody has the address.

    Refused: PROVIDER_NOT_FOUND, TOO_MANY_ATTEMPTS, INVALID_PROVIDER_ANSWER, PROVIDER_UNAVAILABLE,
    PROVIDER_ADDRESS_UNPROVEN, SECOND_FACTOR_REQUIRED; PROVIDER_LINK_UNCONFIRMED, and a mail, where somebody has it.
    """
    provider = _get_provider(name)
    await throttle.spend_login(device.address)
    identity = await _come_back(provider, answer, session_id=None, by=device.address)
    outcome = await _enter(provider, identity, device)
    if outcome is None:
        email = _address_of(provider, identity)
        outcome = await _open_account(provider, identity, email, device)
        # Whoever has the address may be the same person, who came by two doors at once.
        outcome = outcome or await _enter(provider, identity, device)
        if outcome is None:
            await _offer_link(provider, identity, email)
            raise BusinessException(ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    if isinstance(outcome, Challenge):
        raise BusinessException(ErrorCode.SECOND_FACTOR_REQUIRED, data=outcome.facts())
    return outcome


async def _enter(provider: ProviderSettings, identity: Identity, device: Device) -> TokenResponse | Challenge | None:
    """None where nobody is linked. Refused: INVALID_PROVIDER_ANSWER, of who may not log in."""
    async with transaction() as session:
        mine = select(ProviderLink.user_id).where(*_means(identity))
        user_id: UUID | None = (await session.execute(mine)).scalar_one_or_none()
        if user_id is None:
            return None
        # The account before the link, as whoever removes one locks them.
        user = await lock_account(session, user_id)
        if user is not None and owner_may_log_in(user) and await _use(session, identity, user_id):
            if methods := await proving.list_methods(session, user_id):
                return await challenges.open_challenge(session, user, methods)
            return await open_session(session, user, device, second_factor=None, provider=provider.name)
    raise await _refused(provider, _Wrong.SHUT_OUT, by=device.address, user_id=user_id)


def _means(identity: Identity) -> tuple[ColumnElement[bool], ...]:
    return col(ProviderLink.issuer) == identity.issuer, col(ProviderLink.subject) == identity.subject


async def _use(session: AsyncSession, identity: Identity, user_id: UUID) -> bool:
    """False when it was removed meanwhile."""
    used = await session.execute(
        update(ProviderLink)
        .where(*_means(identity), col(ProviderLink.user_id) == user_id)
        .values(last_used_at=utc_now())
        .returning(col(ProviderLink.id))
    )
    return used.first() is not None


def _address_of(provider: ProviderSettings, identity: Identity) -> str:
    """Refused: PROVIDER_ADDRESS_UNPROVEN, PROVIDER_UNAVAILABLE."""
    if identity.silence is not None:
        raise _unavailable(provider, identity.silence)
    try:
        return _EMAIL.validate_python(identity.email)
    except ValidationError:
        raise BusinessException(ErrorCode.PROVIDER_ADDRESS_UNPROVEN) from None


async def _open_account(
    provider: ProviderSettings, identity: Identity, email: str, device: Device
) -> TokenResponse | None:
    """None where the address is taken. Refused: TOO_MANY_ATTEMPTS."""
    async with transaction() as session:
        if await users.find_user_by_email(session, email) is not None:
            return None
    await throttle.spend_registration(device.address)
    try:
        async with transaction() as session:
            user = await users.create_user(session, email=email, username=None, is_verified=True)
            await audit.record(
                session,
                "account.registered",
                target=("user", user.id),
                after={"provider": provider.name},
                actor_id=user.id,
            )
            await _link(session, user.id, identity, is_used=True)
            return await open_session(session, user, device, second_factor=None, provider=provider.name)
    except BusinessException as refusal:
        if refusal.code not in (ErrorCode.EMAIL_TAKEN, ErrorCode.PROVIDER_LINKED):
            raise
        return None


async def _offer_link(provider: ProviderSettings, identity: Identity, email: str) -> None:
    """To the owner of the address, who alone can say that both are the same person."""
    async with transaction() as session:
        owner = await users.find_user_by_email(session, email)
        if owner is None:
            return
        await contest(session, owner.id)
        sent = await one_time.send(
            session,
            owner.id,
            Purpose.LINK_PROVIDER,
            to=owner.email,
            facts={"issuer": identity.issuer, "subject": identity.subject},
            provider=provider.shown,
        )
        if sent:
            await audit.record(
                session, "provider.link_offered", target=("user", owner.id), after={"provider": provider.name}
            )


async def confirm_provider_link(session: AsyncSession, token: str, device: Device) -> None:
    """By the code of a mail. Where nobody had proven the address before, whoever opened the account loses it to its owner:
    password, sessions, factors, keys.

    Refused: TOO_MANY_ATTEMPTS, INVALID_ONE_TIME_TOKEN, PROVIDER_LINKED.
    """
    await throttle.spend_mail_request(device.address)
    redeemed = await one_time.redeem(session, token, Purpose.LINK_PROVIDER)
    identity = Identity(redeemed.facts["issuer"], redeemed.facts["subject"])
    provider = _find(identity.issuer)
    if provider is None:  # it lets nobody in any more
        raise BusinessException(ErrorCode.INVALID_ONE_TIME_TOKEN)
    user_id = redeemed.user.id
    if not redeemed.user.is_verified:
        await factors.forget_strangers(session, redeemed.user)
        await session.execute(delete(Credential).where(col(Credential.user_id) == user_id))
        await users.verify_email(session, user_id)
        await end_sessions(session, user_id)
        await one_time.end_all(session, user_id)
        await audit.record(session, "account.verified", target=("user", user_id), actor_id=user_id)
    await _link(session, user_id, identity, actor_id=user_id)
    await proving.tell(session, user_id, "provider_linked", provider=provider.shown)


def _find(issuer: str) -> ProviderSettings | None:
    return next((each for each in get_settings().auth.providers if each.issuer == issuer), None)


async def _link(
    session: AsyncSession, user_id: UUID, identity: Identity, *, is_used: bool = False, actor_id: UUID | None = None
) -> ProviderLink:
    """Of an account that is locked, or new. Refused: PROVIDER_LINKED."""
    row = ProviderLink(
        user_id=user_id,
        issuer=identity.issuer,
        subject=identity.subject,
        last_used_at=utc_now() if is_used else None,
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise BusinessException(ErrorCode.PROVIDER_LINKED) from None
    await audit.record(
        session,
        "provider.linked",
        target=("user", user_id),
        after={"link_id": str(row.id), "issuer": identity.issuer},
        actor_id=actor_id or (user_id if is_used else None),
    )
    return row


# One's own


async def begin_provider_link(
    user_id: UUID, session_id: UUID, name: str, request: LinkProviderRequest, device: Device
) -> ProviderErrandResponse:
    """With the password, where there is one.

    Refused: PROVIDER_NOT_FOUND, TOO_MANY_ATTEMPTS, INVALID_CREDENTIALS, CONFLICTING_WRITE, PROVIDER_LINKED,
    PROVIDER_UNAVAILABLE, INVALID_TOKEN; STEP_UP_REQUIRED, of who has a second factor and did not prove it within a quarter
    of an hour, and of who has no password and did not log in within one.
    """
    provider = _get_provider(name)
    typed, stored = request.current_password, None
    if typed is None:
        await throttle.spend_confirmation(str(user_id))
    else:
        _, stored = await confirm_password(user_id, typed.get_secret_value(), device)
    errand = await _make_errand(provider)
    async with transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        if typed is not None:
            await refuse_changed_password(session, user_id, stored)
            await proving.refuse_stale(session, caller)
        elif await session.get(Credential, user_id) is not None:
            raise BusinessException(ErrorCode.INVALID_CREDENTIALS)
        else:
            await proving.refuse_old(session, caller)
        await _refuse_second(session, user_id, provider)
        _keep(session, provider, errand, session_id=session_id)
    return errand


async def _refuse_second(session: AsyncSession, user_id: UUID, provider: ProviderSettings) -> None:
    mine = select(ProviderLink.id).where(ProviderLink.user_id == user_id, ProviderLink.issuer == provider.issuer)
    if (await session.execute(mine)).first() is not None:
        raise BusinessException(ErrorCode.PROVIDER_LINKED)


async def link_provider(
    user_id: UUID, session_id: UUID, name: str, answer: ProviderAnswerRequest
) -> ProviderLinkResponse:
    """Refused: PROVIDER_NOT_FOUND, TOO_MANY_ATTEMPTS, INVALID_PROVIDER_ANSWER, PROVIDER_UNAVAILABLE, PROVIDER_LINKED,
    INVALID_TOKEN, STEP_UP_REQUIRED."""
    provider = _get_provider(name)
    await throttle.spend_confirmation(str(user_id))
    identity = await _come_back(provider, answer, session_id=session_id, by=str(user_id))
    async with transaction() as session:
        caller = await lock_session(session, user_id, session_id)
        # What was begun before there was a factor is not a way around it.
        await proving.refuse_stale(session, caller)
        row = await _link(session, user_id, identity)
        await proving.tell(session, user_id, "provider_linked", provider=provider.shown)
        return _letter(row)


async def list_provider_links(session: AsyncSession, user_id: UUID) -> list[ProviderLinkResponse]:
    mine = select(ProviderLink).where(ProviderLink.user_id == user_id).order_by(col(ProviderLink.created_at))
    rows: Iterable[ProviderLink] = (await session.execute(mine)).scalars()
    return [_letter(row) for row in rows]


def _letter(row: ProviderLink) -> ProviderLinkResponse:
    known = _find(row.issuer)
    return ProviderLinkResponse(
        id=row.id,
        provider=None if known is None else known.name,
        title=row.issuer if known is None else known.shown,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )


async def unlink_provider(session: AsyncSession, user_id: UUID, session_id: UUID, link_id: UUID) -> None:
    """Refused: PROVIDER_LINK_NOT_FOUND, also for somebody else's; LAST_WAY_IN, INVALID_TOKEN; STEP_UP_REQUIRED, of who
    proved neither a second factor within a quarter of an hour nor, without any, logged in within one."""
    caller = await lock_session(session, user_id, session_id)
    gone = await session.execute(
        delete(ProviderLink)
        .where(col(ProviderLink.id) == link_id, col(ProviderLink.user_id) == user_id)
        .returning(col(ProviderLink.issuer))
    )
    issuer: str | None = gone.scalar_one_or_none()
    if issuer is None:
        raise BusinessException(ErrorCode.PROVIDER_LINK_NOT_FOUND)
    await proving.refuse_old(session, caller)
    await refuse_without_way_in(session, user_id)
    await audit.record(
        session, "provider.unlinked", target=("user", user_id), after={"link_id": str(link_id), "issuer": issuer}
    )
    known = _find(issuer)
    await proving.tell(
        session, user_id, "provider_unlinked", provider=issuer.partition("//")[2] if known is None else known.shown
    )

"""All that logs in as somebody, on one page."""

from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.auth.models import Credential, RecoveryCode, TotpFactor
from src.auth.schemas import SecurityResponse, TotpStatus
from src.auth.services.api_keys import list_api_keys
from src.auth.services.passkeys import list_passkeys
from src.auth.services.providers import list_provider_links
from src.auth.services.sessions import list_sessions
from src.users import services as users


async def get_security(session: AsyncSession, user_id: UUID, *, current: UUID) -> SecurityResponse:
    has_password = await session.get(Credential, user_id) is not None
    factor = await session.get(TotpFactor, user_id)
    confirmed_at = None if factor is None else factor.confirmed_at
    left = select(func.count()).where(RecoveryCode.user_id == user_id, col(RecoveryCode.used_at).is_(None))
    grants = await users.get_grants_now(session, user_id, second_factor=False)
    return SecurityResponse(
        has_password=has_password,
        totp=TotpStatus(
            enabled=confirmed_at is not None,
            confirmed_at=confirmed_at,
            last_used_at=None if factor is None else factor.last_used_at,
        ),
        passkeys=await list_passkeys(session, user_id),
        providers=await list_provider_links(session, user_id),
        recovery_codes_left=(await session.execute(left)).scalar_one(),
        second_factor_required=grants.withheld is not None,
        sessions=await list_sessions(session, user_id, current=current),
        api_keys=await list_api_keys(session, user_id),
    )

"""The ring of keys that sign access tokens."""

from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, bindparam, literal_column, or_, update
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.audit import services as audit
from src.auth import tokens
from src.auth.models import SigningKey
from src.auth.schemas import KeySetResponse
from src.config import get_settings
from src.mixins import utc_now
from src.shared.lane import fetch_all, prepared, table_of


async def current_key_id(session: AsyncSession) -> str:
    """The newest of the algorithm in the settings; made, where there is none yet. Two that are made at once are both good."""
    for (key_id,) in await fetch_all(session, _NEWEST, algorithm=get_settings().auth.token_algorithm):
        if tokens.signs(key_id):
            return str(key_id)
    return _add(session)


_KEYS = table_of(SigningKey)
_NEWEST: Final = prepared(
    select_columns(_KEYS.c.id)
    .where(_KEYS.c.algorithm == bindparam("algorithm", type_=_KEYS.c.algorithm.type), _KEYS.c.retired_at.is_(None))
    .order_by(_KEYS.c.created_at.desc())
    .limit(literal_column("8"))  # those of other secrets are passed over
)


def _add(session: AsyncSession) -> str:
    algorithm = get_settings().auth.token_algorithm
    key_id = tokens.new_key_id(algorithm)
    session.add(SigningKey(id=key_id, algorithm=algorithm))
    return key_id


async def rotate_keys(session: AsyncSession, *, at_once: bool) -> str:
    """A new key signs from now on. Those before are accepted until what they signed has expired, or `at_once` no more:
    then everybody's access tokens are void, and are refreshed.

    The new key's id.
    """
    lifetime = get_settings().auth.access_token_ttl_seconds + tokens.LEEWAY_SECONDS
    now = utc_now()
    ends = now if at_once else now + timedelta(seconds=lifetime)
    await session.execute(
        update(SigningKey)
        .where(or_(col(SigningKey.retired_at).is_(None), col(SigningKey.retired_at) > ends))
        .values(retired_at=ends)
    )
    key_id = _add(session)
    await session.flush()
    await audit.record(session, "keys.rotated", target=("signing_key", key_id), after={"at_once": at_once})
    return key_id


def is_in_use(key_id: str) -> ColumnElement[bool]:
    """For a query about a token that this key signed."""
    return (
        select(SigningKey.id)
        .where(
            SigningKey.id == key_id,
            or_(col(SigningKey.retired_at).is_(None), col(SigningKey.retired_at) > utc_now()),
        )
        .exists()
    )


async def get_key_set(session: AsyncSession) -> KeySetResponse:
    """What others need to check our tokens: nothing, while we sign with a key that only we have."""
    in_use = select(SigningKey.id).where(
        or_(col(SigningKey.retired_at).is_(None), col(SigningKey.retired_at) > utc_now())
    )
    found = (await session.execute(in_use.order_by(col(SigningKey.created_at)))).scalars()
    return KeySetResponse(keys=[key for key_id in found if (key := tokens.public_key(key_id)) is not None])

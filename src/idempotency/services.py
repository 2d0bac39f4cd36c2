"""Claiming a key, keeping the answer, giving it again."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.exceptions import BusinessException
from src.idempotency.models import IdempotencyRecord
from src.shared.errors import ErrorCode

KEPT_FOR: Final = timedelta(hours=24)
_LOCK_NOT_AVAILABLE: Final = "55P03"


@dataclass(frozen=True, slots=True)
class Claim:
    """One intent of one principal."""

    principal: UUID
    route: str
    """Method and path, hashed."""
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    media_type: str
    body: bytes


def claim_for(principal: UUID, route: str, key: str, body: bytes) -> Claim:
    # A path is of any length and of any characters, NUL included; the column is not.
    place = hashlib.sha256(route.encode("utf-8", "surrogatepass")).hexdigest()
    return Claim(principal, place, key, hashlib.sha256(body).hexdigest())


async def claim(session: AsyncSession, wanted: Claim) -> Answer | None:
    """None when the claim is ours, and the work is to be done; else the answer of the first time.

    Refused: IDEMPOTENCY_KEY_REUSED for another body, IDEMPOTENCY_IN_PROGRESS when the first one does not end in time.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = insert(IdempotencyRecord).values(
        principal=wanted.principal, route=wanted.route, key=wanted.key, fingerprint=wanted.fingerprint
    )
    try:
        # Waits for whoever claimed it and has not committed yet, as long as a lock may take.
        claimed = await session.execute(row.on_conflict_do_nothing().returning(col(IdempotencyRecord.key)))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise BusinessException(ErrorCode.IDEMPOTENCY_IN_PROGRESS, data={"retry_after_seconds": 1}) from None
        raise
    if claimed.scalar_one_or_none() is not None:
        return None
    return await _answer(session, wanted)


async def _answer(session: AsyncSession, wanted: Claim) -> Answer | None:
    stored = (await session.execute(select(IdempotencyRecord).where(*_same(wanted)))).scalar_one_or_none()
    if stored is None or stored.status is None:
        # It was swept between our two statements, or is being answered.
        raise BusinessException(ErrorCode.IDEMPOTENCY_IN_PROGRESS, data={"retry_after_seconds": 1})
    if stored.fingerprint != wanted.fingerprint:
        raise BusinessException(ErrorCode.IDEMPOTENCY_KEY_REUSED)
    return Answer(stored.status, stored.media_type, stored.answer)


async def keep(session: AsyncSession, claimed: Claim, answer: Answer) -> None:
    await session.execute(
        update(IdempotencyRecord)
        .where(*_same(claimed))
        .values(status=answer.status, media_type=answer.media_type, answer=answer.body)
    )


def _same(wanted: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        col(IdempotencyRecord.principal) == wanted.principal,
        col(IdempotencyRecord.route) == wanted.route,
        col(IdempotencyRecord.key) == wanted.key,
    )


async def sweep(session: AsyncSession) -> int:
    """Forget what is older than a day; how many there were."""
    old = datetime.now(UTC) - KEPT_FOR
    swept = await session.execute(
        delete(IdempotencyRecord).where(col(IdempotencyRecord.created_at) < old).returning(col(IdempotencyRecord.key))
    )
    return len(swept.all())

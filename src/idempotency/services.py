"""Claiming a key, keeping the answer, giving it again."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, literal, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.exceptions import BusinessException
from src.idempotency.models import IdempotencyRecord
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.lane import Prepared, dialect_of, fetch_all, prepared, table_of

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
    try:
        # Waits for whoever claimed it and has not committed yet, as long as a lock may take.
        claimed = await fetch_all(
            session,
            _CLAIM[dialect_of(session)],
            claims_principal=wanted.principal,
            claims_route=wanted.route,
            claims_key=wanted.key,
            claims_fingerprint=wanted.fingerprint,
            claims_created_at=utc_now(),
        )
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise BusinessException(ErrorCode.IDEMPOTENCY_IN_PROGRESS, data={"retry_after_seconds": 1}) from None
        raise
    if claimed:
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
    await fetch_all(
        session,
        _KEEP,
        its_principal=claimed.principal,
        its_route=claimed.route,
        its_key=claimed.key,
        its_status=answer.status,
        its_media_type=answer.media_type,
        its_answer=answer.body,
    )


_RECORDS = table_of(IdempotencyRecord)


def _claim(insert: Any) -> Prepared:  # Any: a dialect's own `insert`, and below what SQL takes as a value
    given: dict[str, Any] = {
        name: bindparam(f"claims_{name}") for name in ("principal", "route", "key", "fingerprint", "created_at")
    }
    row = insert(_RECORDS).values(given | {"media_type": literal(""), "answer": literal(b"")})
    return prepared(row.on_conflict_do_nothing().returning(_RECORDS.c.key))


_CLAIM: Final = {"postgresql": _claim(postgresql.insert), "sqlite": _claim(sqlite.insert)}
_KEEP: Final = prepared(
    update(_RECORDS)
    .where(
        _RECORDS.c.principal == bindparam("its_principal"),
        _RECORDS.c.route == bindparam("its_route"),
        _RECORDS.c.key == bindparam("its_key"),
    )
    .values(status=bindparam("its_status"), media_type=bindparam("its_media_type"), answer=bindparam("its_answer"))
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

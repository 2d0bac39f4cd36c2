"""Claiming a key, keeping the answer, giving it again."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    String,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    update,
)
from sqlalchemy import select as select_columns
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.exceptions import BusinessException
from src.idempotency.models import IdempotencyRecord
from src.mixins import utc_now
from src.shared.errors import ErrorCode
from src.shared.lane import dialect_of, fetch_all, later, prepared, table_of

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
    return Claim(principal, _place_of(route), key, hashlib.sha256(body).hexdigest())


@lru_cache(maxsize=256)
def _place_of(route: str) -> str:
    # A path is of any length and of any characters, NUL included; the column is not.
    return hashlib.sha256(route.encode("utf-8", "surrogatepass")).hexdigest()


async def claim(session: AsyncSession, wanted: Claim) -> Answer | None:
    """None when the claim is ours, and the work is to be done; else the answer of the first time.

    Waits for whoever claimed it and has not committed yet, as long as a lock may take.
    Refused: IDEMPOTENCY_KEY_REUSED for another body, IDEMPOTENCY_IN_PROGRESS when the first one does not end in time.
    """
    if dialect_of(session) != "postgresql":
        claimed = await fetch_all(session, _CLAIM, **_place(wanted), fingerprint=wanted.fingerprint, now=utc_now())
        return None if claimed else await _answer(session, wanted)
    # A lock instead of a row: it costs the database no write, and a refusal leaves nothing to take back.
    ((locked, *_),) = found = await fetch_all(session, _LOOK, **_place(wanted), lock=_lock(wanted))
    if not locked and found[0][1] is None:
        try:
            await fetch_all(session, _WAIT, lock=_lock(wanted))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise _in_progress() from None
            raise
        # Once more, in a statement that sees what was committed meanwhile.
        found = await fetch_all(session, _LOOK, **_place(wanted), lock=_lock(wanted))
    _, fingerprint, *answer = found[0]
    return None if fingerprint is None else _same_answer(wanted, fingerprint, answer)


async def _answer(session: AsyncSession, wanted: Claim) -> Answer:
    stored = (await session.execute(select(IdempotencyRecord).where(*_same(wanted)))).scalar_one_or_none()
    if stored is None or stored.status is None:
        # It was swept between our two statements, or is being answered.
        raise _in_progress()
    return _same_answer(wanted, stored.fingerprint, [stored.status, stored.media_type, stored.answer])


def _same_answer(wanted: Claim, fingerprint: str, answer: list[Any]) -> Answer:  # Any: columns of a record
    if fingerprint != wanted.fingerprint:
        raise BusinessException(ErrorCode.IDEMPOTENCY_KEY_REUSED)
    return Answer(*answer)


def _in_progress() -> BusinessException:
    return BusinessException(ErrorCode.IDEMPOTENCY_IN_PROGRESS, data={"retry_after_seconds": 1})


def _place(wanted: Claim) -> dict[str, UUID | str]:
    return {"principal": wanted.principal, "route": wanted.route, "key": wanted.key}


def _lock(wanted: Claim) -> int:
    """Two claims that share it by chance wait for each other, and lose nothing else."""
    place = wanted.principal.bytes + wanted.route.encode() + wanted.key.encode()
    return int.from_bytes(hashlib.sha256(place).digest()[:8], signed=True)


async def keep(session: AsyncSession, claimed: Claim, answer: Answer) -> None:
    """Refused, at COMMIT at the latest: IDEMPOTENCY_IN_PROGRESS when somebody else has answered meanwhile."""
    given = {"status": answer.status, "media_type": answer.media_type, "answer": answer.body}
    if dialect_of(session) != "postgresql":
        await fetch_all(session, _KEEP, **{f"its_{name}": value for name, value in (_place(claimed) | given).items()})
    else:
        # The last thing before COMMIT, and so together with it.
        await later(session, _STORE, **_place(claimed), **given, fingerprint=claimed.fingerprint, now=utc_now())


_RECORDS = table_of(IdempotencyRecord)


_HERE: Final = (
    _RECORDS.c.principal == bindparam("principal", type_=_RECORDS.c.principal.type),
    _RECORDS.c.route == bindparam("route", type_=_RECORDS.c.route.type),
    _RECORDS.c.key == bindparam("key", type_=_RECORDS.c.key.type),
)
_LOOK: Final = prepared(
    select_columns(
        func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger), type_=Boolean),
        _RECORDS.c.fingerprint,
        _RECORDS.c.status,
        _RECORDS.c.media_type,
        _RECORDS.c.answer,
    ).select_from(select_columns(literal(1).label("one")).subquery("this").outerjoin(_RECORDS, and_(*_HERE)))
)
_WAIT: Final = prepared(
    select_columns(cast(func.pg_advisory_xact_lock(bindparam("lock", type_=BigInteger)), String).label("waited"))
)


_GIVEN: Final[dict[str, Any]] = {name: bindparam(name) for name in ("principal", "route", "key", "fingerprint")} | {
    "created_at": bindparam("now")
}  # Any: what SQL takes as a value
_STORE: Final = prepared(
    insert(_RECORDS).values(_GIVEN | {name: bindparam(name) for name in ("status", "media_type", "answer")}),
    # Answered between our look and our lock.
    taken=_in_progress,
)
# SQLite has no such lock, and one writer: the row itself, without its answer yet, makes the others wait.
_CLAIM: Final = prepared(
    sqlite.insert(_RECORDS)
    .values(_GIVEN | {"media_type": literal(""), "answer": literal(b"")})
    .on_conflict_do_nothing()
    .returning(_RECORDS.c.key)
)
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


async def forget(session: AsyncSession, principal: UUID) -> None:
    """All that was kept for somebody."""
    await session.execute(delete(IdempotencyRecord).where(col(IdempotencyRecord.principal) == principal))

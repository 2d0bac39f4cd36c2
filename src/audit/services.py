"""Writing the audit log, reading it, and proving that nobody else wrote it."""

import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import bindparam, insert, update
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from src.audit.models import AuditEntry, AuditHead
from src.audit.schemas import AuditFilters, Outcome, Source
from src.mixins import utc_now
from src.shared.database import transaction
from src.shared.endings import before_commit
from src.shared.keys import keys_for
from src.shared.lane import fetch_all, later, prepared, table_of
from src.shared.logging import current_request

_PURPOSE = "audit"
_READ_AT_ONCE = 1000

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

source_outside_requests: ContextVar[Source] = ContextVar("source_outside_requests", default="job")

Fact = str | int | bool | None | list[str]
Facts = Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Origin:
    source: Source
    user_id: UUID | None = None
    request_id: str = ""
    address: str = ""
    user_agent: str = ""


def origin() -> Origin:
    """Of what is being done: the request that is served, or what runs outside of one."""
    request = current_request()
    if request is None:
        return Origin(source_outside_requests.get())
    caller = request.user_id
    client, agent = None, b""
    if request.scope is not None:
        client = request.scope.get("client")
        agent = next((value for name, value in request.scope["headers"] if name == b"user-agent"), b"")
    return Origin(
        "http",
        UUID(caller) if isinstance(caller, str) else caller,
        request.request_id,
        client[0][:45] if client else "",
        _UNPRINTABLE.sub(" ", agent.decode("latin-1"))[:255],
    )


@dataclass(frozen=True, slots=True)
class Entry:
    action: str
    outcome: Outcome
    created_at: datetime
    actor_id: UUID | None
    target_type: str
    target_id: str
    before: str
    after: str
    origin: Origin


async def record(  # noqa: PLR0913 - an entry has these parts
    session: AsyncSession,
    action: str,
    *,
    target: tuple[str, UUID | str],
    before: Facts | None = None,
    after: Facts | None = None,
    actor_id: UUID | None = None,
    outcome: Outcome = "done",
) -> None:
    """In the session's transaction, when it commits: without the change there is no entry, without the entry no change.

    `actor_id` is whoever is calling, unless it is given. What is personal (an address, a name) goes in as
    `src.shared.keys.pseudonym` has it: an entry outlives the account. Secrets do not go in at all.
    """
    where = origin()
    entry = Entry(
        action,
        outcome,
        utc_now(),
        actor_id or where.user_id,
        target[0],
        str(target[1]),
        _json(before),
        _json(after),
        where,
    )

    async def write(last: AsyncSession) -> None:
        await _append(last, entry)

    # The end of the chain is locked until COMMIT: whoever locks something else after it could wait for one who waits for it.
    await before_commit(session, write)


def _json(facts: Facts | None) -> str:
    return json.dumps(dict(facts or {}), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


async def record_alone(
    action: str, *, target: tuple[str, UUID | str], after: Facts | None = None, outcome: Outcome = "refused"
) -> None:
    """In a transaction of its own: what must survive the refusal that it speaks of. Nothing may be written in the
    session of the request when it is called: SQLite has one writer."""
    async with transaction() as session:
        await record(session, action, target=target, after=after, outcome=outcome)


_ENTRIES = table_of(AuditEntry)
_ENDS = table_of(AuditHead)
_LOCK_END: Final = prepared(select_columns(_ENDS.c.seq, _ENDS.c.digest).where(_ENDS.c.id == 1).with_for_update())
_INSERT: Final = prepared(insert(_ENTRIES).values({column.name: bindparam(column.name) for column in _ENTRIES.c}))
_MOVE_END: Final = prepared(
    update(_ENDS).where(_ENDS.c.id == 1).values(seq=bindparam("new_seq"), digest=bindparam("new_digest"))
)


async def _append(session: AsyncSession, entry: Entry) -> None:
    ((seq, before),) = await fetch_all(session, _LOCK_END)
    values = {
        "seq": seq + 1,
        "created_at": entry.created_at,
        "action": entry.action,
        "outcome": entry.outcome,
        "actor_id": entry.actor_id,
        "source": entry.origin.source,
        "target_type": entry.target_type,
        "target_id": entry.target_id,
        "before": entry.before,
        "after": entry.after,
        "request_id": entry.origin.request_id,
        "address": entry.origin.address,
        "user_agent": entry.origin.user_agent,
    }
    digest = _digest(keys_for(_PURPOSE)[0], before, values)
    await later(session, _INSERT, **values, digest=digest)
    await later(session, _MOVE_END, new_seq=seq + 1, new_digest=digest)


def _digest(key: bytes, before: str, values: Mapping[str, object]) -> str:
    """Each part with its length, so that none can be taken for a part of its neighbour."""
    moment = values["created_at"]
    assert isinstance(moment, datetime)
    told = {**values, "created_at": moment.astimezone(UTC).isoformat(timespec="microseconds")}
    parts = [before, *(f"{name}={'' if value is None else value}" for name, value in sorted(told.items()))]
    return hmac.digest(key, "".join(f"{len(part)}:{part}" for part in parts).encode(), "sha256").hex()


def select_entries(filters: AuditFilters) -> SelectOfScalar[AuditEntry]:
    query = select(AuditEntry).order_by(col(AuditEntry.seq).desc())
    for name in ("actor_id", "outcome", "target_type", "target_id", "request_id", "address"):
        if (wanted := getattr(filters, name)) is not None:
            query = query.where(getattr(AuditEntry, name) == wanted)
    if filters.action is not None:
        action = col(AuditEntry.action)
        whole_kind = filters.action.endswith(".")
        query = query.where(
            action.startswith(filters.action, autoescape=True) if whole_kind else action == filters.action
        )
    if filters.since is not None:
        query = query.where(AuditEntry.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(AuditEntry.created_at < filters.until)
    return query


@dataclass(frozen=True, slots=True)
class Verdict:
    entries: int
    head: str
    """Of the last entry; kept elsewhere, it shows later whether the end was cut off."""
    problem: str | None


async def verify(session: AsyncSession, *, once_head: str | None = None) -> Verdict:
    """Read the log from its beginning, and say where it is not what we wrote; `once_head` is `entries:head` of an
    earlier verdict."""
    head = (await session.execute(select(AuditHead.seq, AuditHead.digest).where(AuditHead.id == 1))).one_or_none()
    # Entries that are written while we read come after the head that we have read.
    expected = {(0, "")} if head is None else {(head[0], head[1])}
    if once_head is not None:
        number, _, once_digest = once_head.partition(":")
        expected.add((int(number) if number.isdecimal() else -1, once_digest))
    seq, digest = 0, ""
    expected.discard((seq, digest))
    while rows := await _read(session, seq):
        for row in rows:
            if row.seq != seq + 1:
                return Verdict(seq, digest, f"entry {seq + 1} is missing")
            if not _is_ours(row, digest):
                return Verdict(seq, digest, f"entry {row.seq} is not what was written, or what stood before it is not")
            seq, digest = row.seq, row.digest
            expected.discard((seq, digest))
    missing = min(expected, default=None)
    return Verdict(seq, digest, None if missing is None else f"it had an entry {missing[0]} that is none of these")


async def _read(session: AsyncSession, after: int) -> Sequence[AuditEntry]:
    query = select(AuditEntry).where(AuditEntry.seq > after).order_by(col(AuditEntry.seq)).limit(_READ_AT_ONCE)
    rows = (await session.execute(query)).scalars().all()
    session.expunge_all()
    return rows


def _is_ours(row: AuditEntry, before: str) -> bool:
    values = row.model_dump(exclude={"digest"})
    return any(hmac.compare_digest(_digest(key, before, values), row.digest) for key in keys_for(_PURPOSE))


def changes(before: Facts, after: Facts) -> tuple[dict[str, Fact], dict[str, Fact]]:
    """Only what differs."""
    names: Iterable[str] = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}

"""A table with a column of each kind that the lane knows, letters about its rows, and rows that are hard to show."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Enum, LargeBinary, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import registry
from sqlalchemy.pool import QueuePool
from sqlmodel import Field, SQLModel

from src.config import DatabaseSettings, Settings
from src.mixins import TimestampMixin
from src.shared import database
from src.shared.lane import LaneSession
from src.shared.types import LocalDatetime, ResponseModel, new_id
from tests.support.postgres import Kind, drop_database, fresh_database


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class _Base(SQLModel, registry=registry()):
    """Metadata of its own: other tests compare the service's tables with its migrations."""


class Thing(_Base, TimestampMixin, table=True):
    __tablename__ = "lane_things"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=64)
    note: str | None = None
    count: int = 0
    big: int = Field(default=0, sa_type=BigInteger)
    ratio: float | None = None
    is_on: bool = True
    maybe: bool | None = None
    day: date | None = None
    seen_at: datetime | None = None
    colour: Colour = Field(
        default=Colour.RED,
        sa_column=Column(
            Enum(Colour, native_enum=False, length=16, values_callable=lambda e: [m.value for m in e]), nullable=False
        ),
    )
    other_colour: Colour | None = Field(
        default=None, sa_column=Column(Enum(Colour, native_enum=False, length=16, name="other_colour"))
    )
    secret: bytes = Field(default=b"", sa_type=LargeBinary, exclude=True)


class Pair(_Base, table=True):
    __tablename__ = "lane_pairs"

    left: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    right: str = Field(primary_key=True)
    value: str = ""


class Numbered(_Base, table=True):
    __tablename__ = "lane_numbered"

    id: int = Field(primary_key=True)
    name: str = ""


class ThingLetter(ResponseModel):
    id: UUID
    name: str
    note: str | None
    count: int
    big: int
    ratio: float | None
    is_on: bool
    maybe: bool | None
    day: date | None
    seen_at: datetime | None
    colour: Colour
    other_colour: Colour | None = None
    created_at: LocalDatetime
    updated_at: LocalDatetime


HOSTILE = [
    "plain",
    "",
    '"quoted" \\ back',
    "line\nbreak\ttab\r\x08\x0c",
    "\x01\x1f\x7f\x80\x9f",
    "ünïcödé 你好 🎉 \u2028\u2029\ufeff",
    "%_' OR 1=1; --",
    "</script>.000000Z",
    "a" * 64,
]


def rows() -> list[dict[str, Any]]:
    start = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    moments = [
        start,
        start + timedelta(microseconds=1),
        start.replace(year=1, month=1, day=2),
        start.replace(year=9999),
    ]
    return [
        {
            "id": UUID(int=(number * 7919 % 97) << 64 | number),
            "name": HOSTILE[number % len(HOSTILE)],
            "note": None if number % 3 == 0 else HOSTILE[-number % len(HOSTILE)],
            "count": number % 5 - 2,
            "big": 2**62 - number,
            "ratio": [None, 0.1, -1e300, 5e-324, 3.0][number % 5],
            "is_on": number % 2 == 0,
            "maybe": [None, True, False][number % 3],
            "day": None if number % 4 == 0 else date(2026, 1, 1) + timedelta(days=number),
            "seen_at": None if number % 4 == 1 else moments[number % 4] + timedelta(microseconds=number % 3),
            "colour": list(Colour)[number % 2],
            "other_colour": [None, *Colour][number % 3],
            "secret": bytes([number]),
            "created_at": start + timedelta(seconds=number // 4),
            "updated_at": start + timedelta(microseconds=number * 100_000),
        }
        for number in range(60)
    ]


@dataclass(frozen=True)
class Doors:
    """Two ways into one database."""

    url: str
    lane_engine: AsyncEngine
    lane: Callable[[], LaneSession]
    ordinary: Callable[[], AsyncSession]


@asynccontextmanager
async def opened(kind: Kind, **settings: Any) -> AsyncIterator[Doors]:
    url = fresh_database(kind)
    settings = {"connect_timeout_seconds": 10, **settings}  # what is slow on a busy machine is not what is tested
    with_lane = Settings(db=DatabaseSettings(url=url, **settings))
    without = Settings(db=DatabaseSettings(url=url, data_lane=False, **settings))
    first, second = database.create_engine(with_lane), database.create_engine(without)
    try:
        async with second.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
            await connection.execute(insert(Thing), rows())
            await connection.execute(
                insert(Pair), [{"left": 1, "right": "a", "value": "x"}, {"left": 1, "right": "b", "value": "y"}]
            )
        lane: Any = database._session_maker(first, with_lane)
        assert isinstance(lane(), LaneSession)
        yield Doors(url, first, lane, database._session_maker(second, without))
        assert lent(first) == 0, "a connection leaked"
    finally:
        await first.dispose()
        await second.dispose()
        drop_database(url)


def lent(engine: AsyncEngine) -> int:
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()

"""Transactions that lose against others; served by test_attempts.py, on PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel import Field, SQLModel, col, select

from src.http import Response
from src.main import create_app
from src.shared.database import SessionDep, transaction


class Try(SQLModel, table=True):
    id: str = Field(primary_key=True)
    times: int
    """So many of its COMMITs fail."""
    value: int = 0


class Letter(BaseModel):
    times: int
    at: Literal["statement", "commit"]


_TRIGGER = """
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries_' || NEW.id) <= NEW.times THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE CONSTRAINT TRIGGER loses AFTER INSERT ON try DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION lose();
"""
counts: Counter[str] = Counter()
"""Of attempts and the like, by what they are; no ROLLBACK takes them back."""
both_hold = asyncio.Barrier(2)


@asynccontextmanager
async def tables(_: FastAPI) -> AsyncIterator[None]:
    async with transaction() as session:
        connection = await session.connection()
        await connection.run_sync(SQLModel.metadata.create_all, [SQLModel.metadata.tables["try"]])
        for statement in _TRIGGER.split("\nCREATE CONSTRAINT"):
            whole = statement if statement.strip().startswith("CREATE") else f"CREATE CONSTRAINT{statement}"
            await session.execute(text(whole))
    yield


router = APIRouter(lifespan=tables)


async def watched(name: str) -> AsyncIterator[None]:
    """Of the request's scope: what stands behind the `yield` ends it, behind its answer."""
    counts[f"{name} opened"] += 1
    try:
        yield
    except Exception:
        counts[f"{name} failed"] += 1
        raise
    else:
        counts[f"{name} closed"] += 1


async def _try(session: SessionDep, name: str, letter: Letter) -> None:
    counts[name] += 1
    if counts[name] == 1:
        async with transaction() as own:
            await own.execute(text(f"CREATE SEQUENCE tries_{name}"))
    session.add(Try(id=name, times=letter.times if letter.at == "commit" else 0))
    await session.flush()
    if letter.at == "statement" and counts[name] <= letter.times:
        await session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$"))


@router.post("/tries/{name}", status_code=201)
async def store(name: str, letter: Letter, session: SessionDep, tasks: BackgroundTasks) -> Response[Letter]:
    tasks.add_task(counts.update, [f"{name} behind"])
    await _try(session, name, letter)
    return Response.success(letter)


@router.post("/watched/{name}", dependencies=[Depends(watched)])
async def store_watched(name: str, letter: Letter, session: SessionDep) -> Letter:
    await _try(session, name, letter)
    return letter


@router.post("/streamed/{name}")
async def store_streamed(name: str, request: Request, session: SessionDep) -> None:
    body = b"".join([part async for part in request.stream()])
    await _try(session, name, Letter.model_validate_json(body))


@router.post("/twice/{name}")
async def store_twice(name: str, session: SessionDep) -> None:
    counts[name] += 1
    await session.execute(text("INSERT INTO try VALUES (:id, 0, 0), (:id, 0, 0)"), {"id": name})


@router.get("/tries/{name}")
async def how_it_went(name: str, session: SessionDep) -> dict[str, int]:
    stored = (await session.execute(select(Try).where(col(Try.id) == name))).scalars().all()
    about = {key.removeprefix(name).strip() or "attempts": number for key, number in counts.items() if name in key}
    return {"stored": len(stored), **about}


@router.post("/seats/{name}")
async def add_seat(name: str, session: SessionDep) -> None:
    await session.execute(text(f"CREATE SEQUENCE tries_{name}"))
    session.add(Try(id=name, times=0))


@router.post("/seats/{first}/{second}")
async def take_both(first: str, second: str, session: SessionDep) -> None:
    """Two that take the same ones in opposite orders lock each other out, once."""
    counts[first] += 1
    for place, name in enumerate((first, second)):
        seat = (await session.execute(select(Try).where(col(Try.id) == name).with_for_update())).scalar_one()
        seat.value += 1
        await session.flush()
        if place == 0 and counts[first] == 1:
            await both_hold.wait()


app = create_app()
app.include_router(router)

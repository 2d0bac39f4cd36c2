"""The service with routes that misuse a session, or use it as everybody does; served by test_database.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import Column, ForeignKey, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel, col

from src.exceptions import BusinessException
from src.http import Response
from src.main import create_app
from src.shared.database import SessionDep, get_session, transaction
from src.shared.errors import ErrorCode


class Parent(SQLModel, table=True):
    id: str = Field(primary_key=True)


class Child(SQLModel, table=True):
    id: str = Field(primary_key=True)
    # Looked at when the transaction commits, and not before.
    parent_id: str = Field(sa_column=Column(ForeignKey("parent.id", deferrable=True, initially="DEFERRED")))


class Counter(SQLModel, table=True):
    id: str = Field(primary_key=True)
    value: int = 0


class Moment(SQLModel, table=True):
    id: str = Field(primary_key=True)
    at: datetime


@asynccontextmanager
async def tables(_: FastAPI) -> AsyncIterator[None]:
    made = [SQLModel.metadata.tables[name] for name in ("parent", "child", "counter", "moment")]
    async with transaction() as session:
        await (await session.connection()).run_sync(SQLModel.metadata.create_all, made)
    yield


async def usual_session() -> AsyncIterator[AsyncSession]:
    """What most FastAPI services have: the code behind `yield` runs when the answer has left."""
    async with transaction() as session:
        yield session


router = APIRouter(lifespan=tables)


@router.post("/children/{child_id}", status_code=201)
async def create_child(child_id: str, parent_id: str, session: AsyncSession = Depends(get_session)) -> Child:  # noqa: B008, FAST002 - as everybody types it
    child = Child(id=child_id, parent_id=parent_id)
    session.add(child)
    return child


@router.post("/usual/children/{child_id}", status_code=201)
async def create_child_usually(child_id: str, parent_id: str, session: AsyncSession = Depends(usual_session)) -> Child:  # noqa: B008, FAST002 - as above
    child = Child(id=child_id, parent_id=parent_id)
    session.add(child)
    return child


@router.get("/children/{child_id}")
async def child_exists(child_id: str, session: SessionDep) -> bool:
    return await session.get(Child, child_id) is not None


@router.post("/parents/{parent_id}")
async def create_parent(parent_id: str, session: SessionDep) -> None:
    session.add(Parent(id=parent_id))


@router.get("/parents/{parent_id}")
async def parent_exists(parent_id: str, session: SessionDep) -> bool:
    return await session.get(Parent, parent_id) is not None


@router.post("/parents/{parent_id}/refused/{how}")
async def refuse(parent_id: str, how: str, session: SessionDep) -> Any:  # Any: one of many endings
    session.add(Parent(id=parent_id))
    await session.flush()
    match how:
        case "raised":
            raise BusinessException(ErrorCode.PRODUCT_OUT_OF_STOCK)
        case "returned":
            return Response.error(ErrorCode.PRODUCT_OUT_OF_STOCK)
        case "http":
            raise HTTPException(418, "teapot")
        case "crash":
            raise RuntimeError("boom")
        case "answer":
            return object()  # that no JSON can say


async def write_then_refuse(parent_id: str, session: SessionDep) -> None:
    session.add(Parent(id=parent_id))
    await session.flush()
    raise BusinessException(ErrorCode.PERMISSION_DENIED)


@router.post("/parents/{parent_id}/refused-by-a-dependency", dependencies=[Depends(write_then_refuse)])
async def never_called(parent_id: str) -> None: ...


@router.get("/one-session")
async def one_session(
    first: SessionDep,
    second: Annotated[AsyncSession, Depends(get_session)],
    third: AsyncSession = Depends(get_session),  # noqa: B008, FAST002 - as everybody types it
) -> bool:
    return first is second is third


@router.post("/counters/{counter_id}")
async def create_counter(counter_id: str, session: SessionDep) -> None:
    session.add(Counter(id=counter_id))


@router.get("/counters/{counter_id}")
async def read_counter(counter_id: str, session: SessionDep) -> int:
    return await _value(session, counter_id)


@router.post("/counters/{counter_id}/read-then-update")
async def read_then_update(counter_id: str, session: SessionDep) -> int:
    await _value(session, counter_id)
    await session.execute(update(Counter).where(col(Counter.id) == counter_id).values(value=col(Counter.value) + 1))
    return await _value(session, counter_id)


@router.post("/counters/{counter_id}/lock-then-update")
async def lock_then_update(counter_id: str, session: SessionDep) -> None:
    counter = (
        await session.execute(select(Counter).where(col(Counter.id) == counter_id).with_for_update())
    ).scalar_one()
    counter.value += 1


async def _value(session: AsyncSession, counter_id: str) -> int:
    return (await session.execute(select(col(Counter.value)).where(col(Counter.id) == counter_id))).scalar_one()


@router.get("/streams/{way}")
async def stream(way: str, session: SessionDep) -> StreamingResponse:
    async def with_the_requests_session() -> AsyncIterator[bytes]:
        yield b"first\n"
        await session.execute(select(Counter))
        yield b"last\n"

    async def with_its_own() -> AsyncIterator[bytes]:
        yield b"first\n"
        async with transaction() as own:
            await own.execute(select(Counter))
        yield b"last\n"

    return StreamingResponse(with_its_own() if way == "own" else with_the_requests_session())


@router.post("/parents/{parent_id}/in-the-background/{way}")
async def write_in_the_background(parent_id: str, way: str, session: SessionDep, tasks: BackgroundTasks) -> None:
    async def with_the_requests_session() -> None:
        session.add(Parent(id=parent_id))
        await session.flush()

    async def with_its_own() -> None:
        async with transaction() as own:
            own.add(Parent(id=parent_id))

    tasks.add_task(with_its_own if way == "own" else with_the_requests_session)


@router.put("/moments/{moment_id}")
async def store_moment(moment_id: str, at: datetime, session: SessionDep) -> None:
    session.add(Moment(id=moment_id, at=at))


@router.get("/moments/{moment_id}")
async def read_moment(moment_id: str, session: SessionDep) -> dict[str, str] | None:
    moment = await session.get(Moment, moment_id)
    return None if moment is None else {"zone": str(moment.at.tzinfo), "utc": moment.at.isoformat()}


app = create_app()
app.include_router(router)

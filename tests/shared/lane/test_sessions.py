"""A session of the lane is an AsyncSession in all that it does."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlmodel import col, select

from src.shared.lane import LaneSession
from tests.shared.lane.things import Doors, Thing, opened, rows
from tests.support.postgres import Kind

FIRST = rows()[0]["id"]


async def name_of(doors: Doors) -> str:
    async with doors.ordinary() as session:
        return (await session.execute(select(Thing.name).where(col(Thing.id) == FIRST))).scalar_one()


async def test_what_was_read_and_changed_is_stored_at_commit(doors: Doors) -> None:
    async with doors.lane() as session:
        thing = await session.get(Thing, FIRST)
        thing.name = "changed"
        await session.commit()
    assert await name_of(doors) == "changed"


async def test_what_was_changed_and_rolled_back_is_not(doors: Doors) -> None:
    async with doors.lane() as session:
        thing = await session.get(Thing, FIRST)
        thing.name = "changed"
        await session.rollback()
        await session.commit()
    assert await name_of(doors) == "plain"


async def test_a_change_is_kept_though_nobody_holds_the_instance(doors: Doors) -> None:
    async with doors.lane() as session:
        (await session.get(Thing, FIRST)).name = "changed"
        await session.commit()
    assert await name_of(doors) == "changed"


async def test_one_identity_is_one_instance(doors: Doors) -> None:
    async with doors.lane() as session:
        first = await session.get(Thing, FIRST)
        assert await session.get(Thing, FIRST) is first
        assert (await session.execute(select(Thing).where(col(Thing.id) == FIRST))).scalar_one() is first
        assert await session.get(Thing, FIRST) is first
        assert first in session


async def test_reads_see_what_the_session_itself_wrote(doors: Doors) -> None:
    made = Thing(name="new")
    async with doors.lane() as session:
        await session.get(Thing, FIRST)
        session.add(made)
        assert await session.get(Thing, made.id) is made
        other = await session.get(Thing, rows()[1]["id"])
        other.count = 77
        found = (await session.execute(select(Thing).where(col(Thing.count) == 77))).scalars().all()
        assert found == [other]
        await session.commit()
    async with doors.lane() as session:
        assert (await session.get(Thing, made.id)).name == "new"


async def test_after_a_read_a_transaction_has_begun(doors: Doors) -> None:
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            await session.get(Thing, FIRST)
            with pytest.raises(InvalidRequestError, match="already begun"):
                await session.begin()
            assert session.in_transaction()
            await session.commit()
            assert not session.in_transaction()


async def test_a_closed_session_stays_closed(doors: Doors) -> None:
    async with doors.lane() as unused, doors.lane() as used:
        await used.get(Thing, FIRST)
    for session in (unused, used):
        with pytest.raises(InvalidRequestError, match="closed"):
            await session.get(Thing, FIRST)
        with pytest.raises(InvalidRequestError, match="closed"):
            await session.execute(select(Thing))


async def test_what_was_loaded_is_detached_when_the_session_closes(doors: Doors) -> None:
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            thing = await session.get(Thing, FIRST)
        assert thing is not None
        assert inspect(thing).detached
        assert thing.name == "plain"
        async with open_session() as session:
            session.add(thing)
            thing.note = "moved"
            await session.rollback()


async def test_an_instance_of_a_closed_session_can_be_adopted_by_another(doors: Doors) -> None:
    for adopted in (False, True):
        async with doors.lane() as session:
            thing = session.adopt(remembered()) if adopted else await session.get(Thing, FIRST)
            assert thing is await session.get(Thing, FIRST)
        async with doors.lane() as other:
            assert other.adopt(thing) is thing


USES: list[Callable[[AsyncSession], object]] = [
    lambda session: session.info.update(a=1),
    list,
    lambda session: Thing(name="x") in session,
    lambda session: session.new,
    lambda session: session.bind,
    lambda session: session.get_bind(),
    lambda session: session.is_active,
    lambda session: session.no_autoflush,
    lambda session: session.autoflush,
    lambda session: session.get_transaction(),
    lambda session: session.sync_session,
    lambda session: session.expunge_all(),
]


@pytest.mark.parametrize("number", range(len(USES)))
async def test_whatever_is_asked_of_it_works(doors: Doors, number: int) -> None:
    async with doors.lane() as session:
        USES[number](session)
        assert await session.get(Thing, FIRST) is not None
        assert await session.run_sync(lambda real: real.get(Thing, FIRST)) is not None
    with pytest.raises(AttributeError):
        _ = session.no_such_thing


async def test_a_loaded_instance_can_be_refreshed_expunged_merged_and_deleted(doors: Doors) -> None:
    seen = []
    for open_session, ident in ((doors.ordinary, rows()[9]["id"]), (doors.lane, rows()[18]["id"])):
        async with open_session() as session:
            thing = await session.get(Thing, ident)
            assert thing is not None
            thing.name = "changed"
            await session.refresh(thing)
            names = [thing.name]
            thing.name = "changed"
            await session.flush()
            session.expire(thing)
            await session.refresh(thing, ["name", "note"])
            names.append(thing.name)
            session.expunge(thing)
            merged = await session.merge(thing)
            names.append(merged.name)
            seen.append((*names, thing in session, merged is thing))
            await session.delete(merged)
            await session.commit()
            assert await session.get(Thing, ident) is None
        async with doors.lane() as session:
            assert await session.get(Thing, ident) is None
    assert seen[0] == seen[1]


async def test_what_another_session_loads_is_its_own(doors: Doors) -> None:
    async with doors.lane() as first, doors.lane() as second:
        mine, theirs = await first.get(Thing, FIRST), await second.get(Thing, FIRST)
        assert mine is not theirs
        assert mine in first
        assert mine not in second
        with pytest.raises(InvalidRequestError, match="already attached"):
            second.add(mine)


async def test_savepoints_and_blocks(doors: Doors) -> None:
    async def fail_inside() -> None:
        async with session.begin_nested():
            session.add(Thing(name="inner"))
            raise ZeroDivisionError

    async with doors.lane() as session, session.begin():
        session.add(Thing(id=uuid4(), name="outer"))
        with pytest.raises(ZeroDivisionError):
            await fail_inside()
    async with doors.lane() as session:
        names = (await session.execute(select(Thing.name).where(col(Thing.name).in_(["outer", "inner"])))).scalars()
        assert list(names) == ["outer"]


def remembered() -> Thing:
    thing = Thing(**rows()[0])
    make_transient_to_detached(thing)
    return thing


async def test_an_adopted_instance_is_as_if_loaded(doors: Doors) -> None:
    async with doors.lane() as session:
        thing = session.adopt(remembered())
        assert await session.get(Thing, FIRST) is thing
        thing.name = "changed"
        await session.commit()
    assert await name_of(doors) == "changed"


async def test_an_adopted_instance_that_is_changed_is_stored(doors: Doors) -> None:
    async with doors.lane() as session:
        session.adopt(remembered()).name = "changed"
        await session.commit()
    assert await name_of(doors) == "changed"


async def test_what_the_session_knows_wins_over_what_is_adopted(doors: Doors) -> None:
    for real in (False, True):
        async with doors.lane() as session:
            known = await session.get(Thing, FIRST)
            if real:
                assert known in session
            assert session.adopt(remembered()) is known


async def test_adopting_twice_is_adopting_once(doors: Doors) -> None:
    for real in (False, True):
        async with doors.lane() as session:
            if real:
                assert list(session) == []
            thing = remembered()
            assert session.adopt(thing) is thing
            assert session.adopt(thing) is thing
            assert session.adopt(remembered()) is thing
            thing.note = "changed"
            assert thing in session.dirty
            with pytest.raises(InvalidRequestError):
                session.adopt(thing)  # it has changes now


async def test_an_instance_is_adopted_once(doors: Doors) -> None:
    thing = remembered()
    async with doors.lane() as first, doors.lane() as second:
        first.adopt(thing)
        with pytest.raises(InvalidRequestError):
            second.adopt(thing)
        thing.name = "changed"
    with pytest.raises(InvalidRequestError):
        doors.lane().adopt(thing)


async def test_a_listener_hears_each_statement(doors: Doors) -> None:
    heard: list[str] = []

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        heard.append(statement)

    engine = doors.lane_engine.sync_engine
    event.listen(engine, "before_cursor_execute", hear)
    async with doors.lane() as session:
        await session.get(Thing, FIRST)
        assert isinstance(session, LaneSession)
        assert session.is_real
    event.remove(engine, "before_cursor_execute", hear)
    async with doors.lane() as session:
        await session.get(Thing, FIRST)
        assert not session.is_real
    assert len([each for each in heard if "lane_things" in each]) == 1


async def test_a_listener_that_was_there_before_hears_each_statement(database_kind: Kind) -> None:
    """Row-level security begins so: `SET LOCAL role …` in `after_begin`."""
    heard: list[object] = []

    def set_role(_session: object, _transaction: object, connection: object) -> None:
        heard.append(connection)

    event.listen(Session, "after_begin", set_role)
    try:
        async with opened(database_kind) as doors, doors.lane() as session:
            await session.get(Thing, FIRST)
        assert len(heard) == 1
    finally:
        event.remove(Session, "after_begin", set_role)

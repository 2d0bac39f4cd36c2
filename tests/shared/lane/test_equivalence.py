"""What the lane answers is what the ordinary path answers, to the byte."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi_pagination import LimitOffsetPage, LimitOffsetParams, Page, Params, set_page, set_params
from fastapi_pagination.ext.sqlalchemy import apaginate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import Select, and_, bindparam, func, or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from src.config import get_settings, use_settings
from src.shared.lane import LaneSession, PageJson, page_writer
from tests.shared.lane.things import HOSTILE, Colour, Doors, Pair, Thing, ThingLetter, opened, rows
from tests.support.postgres import Kind

TEXTS = st.sampled_from(HOSTILE) | st.text(
    max_size=8, alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")
)
CONDITIONS = st.one_of(
    TEXTS.map(lambda value: col(Thing.name) == value),
    TEXTS.map(lambda value: col(Thing.name).icontains(value, autoescape=True)),
    TEXTS.map(lambda value: col(Thing.note) != value),
    st.sampled_from([None, *HOSTILE]).map(lambda value: col(Thing.note) == value),
    st.integers(-3, 3).map(lambda value: col(Thing.count) >= value),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: col(Thing.big) > value),
    st.booleans().map(lambda value: col(Thing.is_on) == value),
    st.sampled_from([None, True, False]).map(lambda value: col(Thing.maybe).is_(value)),
    st.sampled_from(Colour).map(lambda value: col(Thing.colour) == value),
    st.lists(st.sampled_from(Colour), max_size=2).map(lambda values: col(Thing.colour).in_(values)),
    st.integers(0, 60 * 86_400).map(
        lambda seconds: col(Thing.created_at) < datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    ),
    st.dates().map(lambda value: col(Thing.day) <= value),
    st.sampled_from([row["id"] for row in rows()]).map(lambda value: col(Thing.id) > value),
    st.just(col(Thing.id).in_(select(Thing.id).where(col(Thing.count) == 1))),
)
ORDERS = st.lists(
    st.sampled_from(
        [col(Thing.name), col(Thing.created_at).desc(), col(Thing.count), col(Thing.big).desc(), func.lower(Thing.name)]
    ),
    max_size=2,
).map(lambda orders: (*orders, col(Thing.id)) if orders else ())
QUERIES = st.builds(
    lambda conditions, order, joined: (
        select(Thing).where(joined(*conditions) if conditions else text("1 = 1")).order_by(*order)
        if order
        else select(Thing).where(*conditions)
    ),
    st.lists(CONDITIONS, max_size=3),
    ORDERS,
    st.sampled_from([and_, or_]),
)
PAGES = st.builds(
    lambda page, size: Params(page=page, size=size),
    st.one_of(st.integers(1, 8), st.sampled_from([2**31 - 1])),
    st.one_of(st.integers(1, 20), st.just(100)),
)


async def json_of(open_session: Callable[[], AsyncSession], query: Select[Any], page: Any, params: Any) -> bytes:
    with set_page(page), set_params(params):
        async with open_session() as session:
            return TypeAdapter(page).dump_json(await apaginate(session, query), fallback=list)


async def written(doors: Doors, query: Select[Any], page: Any, params: Any) -> Any:
    with set_page(page), set_params(params):
        async with doors.lane() as session:
            session.page_json = page_writer(page)
            answer = await apaginate(session, query)
            assert isinstance(answer, PageJson) is not session.is_real
            return answer if isinstance(answer, PageJson) else TypeAdapter(page).dump_json(answer)


@pytest.mark.parametrize("zone", [0, 5.75])
def test_a_page_has_the_bytes_of_the_ordinary_one(database_kind: Kind, zone: float) -> None:
    before = get_settings()
    use_settings(before.model_copy(update={"app": before.app.model_copy(update={"timezone": zone})}))
    lane_pages = 0
    with asyncio.Runner() as runner:
        context = opened(database_kind)
        doors = runner.run(context.__aenter__())

        @given(QUERIES, PAGES, st.sampled_from([Page[Thing], Page[ThingLetter]]))
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        def compare(query: Select[Any], params: Params, page: Any) -> None:
            nonlocal lane_pages
            usual = runner.run(json_of(doors.ordinary, query, page, params))
            assert runner.run(json_of(doors.lane, query, page, params)) == usual
            fast = runner.run(written(doors, query, page, params))
            assert fast == usual
            lane_pages += isinstance(fast, PageJson)

        try:
            compare()
            assert lane_pages > 50, "too few took the lane to say anything"
        finally:
            runner.run(context.__aexit__(None, None, None))
            use_settings(before)


async def test_the_bare_select_takes_the_lane(doors: Doors) -> None:
    for page in (Page[Thing], Page[ThingLetter]):
        usual = await json_of(doors.ordinary, select(Thing), page, Params(size=7, page=3))
        assert await json_of(doors.lane, select(Thing), page, Params(size=7, page=3)) == usual
        answer = await written(doors, select(Thing), page, Params(size=7, page=3))
        assert isinstance(answer, PageJson)
        assert answer == usual


async def test_other_values_of_one_shape_are_other_answers(doors: Doors) -> None:
    for value in (-2, 0, 2, None):
        query = select(Thing).where(col(Thing.count) == value)
        assert await written(doors, query, Page[Thing], Params()) == await json_of(
            doors.ordinary, query, Page[Thing], Params()
        )


async def test_values_that_are_given_later_count(doors: Doors) -> None:
    query = select(Thing).where(col(Thing.count) == bindparam("n", 1))
    for each in (query, query.params(n=2), query.params(n=-2), query):
        usual = await json_of(doors.ordinary, each, Page[Thing], Params())
        assert await json_of(doors.lane, each, Page[Thing], Params()) == usual


def unusual() -> list[Any]:
    return [
        select(Thing).limit(3),
        select(Thing).distinct(),
        select(Thing).with_for_update(),
        select(Thing).where(text("count = :n")).params(n=1),
        select(Thing).where(col(Thing.count) == 1).params(count_1=2),
        select(Thing).join(Pair, col(Pair.left) == col(Thing.count)),
        select(Thing).where(col(Pair.left) == col(Thing.count)),
        select(Thing).execution_options(populate_existing=True),
        select(Thing.id, Thing.name),
        select(Thing.name),
    ]


@pytest.mark.parametrize("number", range(len(unusual())))
async def test_what_the_lane_does_not_understand_takes_the_ordinary_path(doors: Doors, number: int) -> None:
    query = unusual()[number]
    pages = [Page[Any], Page[Thing]] if number < 8 else [Page[Any]]
    for page in pages:
        params = Params(size=5, page=2)
        assert await json_of(doors.lane, query, page, params) == await json_of(doors.ordinary, query, page, params)


async def test_pages_by_limit_and_offset_too(doors: Doors) -> None:
    page, params = LimitOffsetPage[Thing], LimitOffsetParams(limit=7, offset=50)
    assert await json_of(doors.lane, select(Thing), page, params) == await json_of(
        doors.ordinary, select(Thing), page, params
    )


async def test_an_empty_table_has_an_empty_page(doors: Doors) -> None:
    query = select(Thing).where(col(Thing.name) == "nobody has this")
    for page in (1, 2):
        usual = await json_of(doors.ordinary, query, Page[Thing], Params(page=page))
        assert b'"total":0' in usual
        assert await written(doors, query, Page[Thing], Params(page=page)) == usual


@pytest.mark.parametrize("ident", [UUID(int=0), uuid4(), *[row["id"] for row in rows()[:12]]])
async def test_an_instance_has_the_attributes_of_the_ordinary_one(doors: Doors, ident: UUID) -> None:
    async with doors.lane() as lane, doors.ordinary() as ordinary:
        mine, usual = await lane.get(Thing, ident), await ordinary.get(Thing, ident)
        assert isinstance(lane, LaneSession)
        assert not lane.is_real
        assert (mine is None) is (usual is None)
        if mine is not None and usual is not None:
            assert mine.model_dump() == usual.model_dump()
            assert {name: type(value) for name, value in vars(mine).items() if name[0] != "_"} == {
                name: type(value) for name, value in vars(usual).items() if name[0] != "_"
            }


async def test_a_composite_key_by_its_values(doors: Doors) -> None:
    async with doors.lane() as session:
        pair = await session.get(Pair, (1, "b"))
        assert pair is not None
        assert pair.value == "y"
        assert await session.get(Pair, {"left": 1, "right": "a"}) is not None
        assert await session.get(Pair, (2, "b")) is None


@pytest.mark.parametrize("ident", ["not-a-uuid", 7, b"x", object(), None, (), (1, 2)])
async def test_what_is_no_key_fails_as_it_always_does(doors: Doors, ident: object) -> None:
    outcomes = []
    for open_session in (doors.ordinary, doors.lane):
        async with open_session() as session:
            try:
                outcomes.append((await session.get(Thing, ident), ""))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the same
                outcomes.append((None, type(error).__name__))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "order",
    [("name", "id"), (text("name"), text("id")), (text("lane_things.name desc"), text("lane_things.id")), ("big",)],
    ids=["names", "text", "text with its table", "one name"],
)
async def test_an_order_in_words_is_kept(doors: Doors, order: tuple[Any, ...]) -> None:
    query, page = select(Thing).order_by(*order), Page[ThingLetter]
    for params in (Params(page=1, size=7), Params(page=3, size=7)):
        usual = await json_of(doors.ordinary, query, page, params)
        with set_page(page), set_params(params):
            async with doors.lane() as session:
                session.page_json = page_writer(page)
                answer = await apaginate(session, query)
        assert (answer if isinstance(answer, PageJson) else TypeAdapter(page).dump_json(answer)) == usual

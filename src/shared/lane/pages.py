"""`apaginate(session, select(Entity))` as everybody types it: items and total in one statement, compiled once."""

from collections.abc import Callable, Generator, Sequence
from functools import wraps
from math import ceil
from typing import Any, Final, NamedTuple

from fastapi_pagination import Params
from fastapi_pagination.api import _params_val, create_page, resolve_items_transformer, resolve_page
from fastapi_pagination.bases import AbstractParams, is_limit_offset
from fastapi_pagination.ext import sqlalchemy as extension
from sqlalchemy import BigInteger, Label, Select, TextClause, bindparam, func, select
from sqlalchemy.sql.cache_key import CacheKey
from sqlalchemy.sql.util import ClauseAdapter
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.util import greenlet_spawn

from src.shared.lane.connections import Lane
from src.shared.lane.entities import EntityPlan, plan_for
from src.shared.lane.letters import PageJson, PageWriter
from src.shared.lane.session import LaneSession
from src.shared.lane.versions import PAGINATION_OPTIONS
from src.shared.lane.writing import RowWriter, row_writer

# Filters come in combinations; a service that makes statements without end would fill the memory.
MAX_PLANS: Final = 1000

_BARE: Final = {"_propagate_attrs", "_raw_columns", "_label_style"}

Argument = tuple[int, Callable[[Any], Any] | None]  # Any: a value as Python has it, and as the driver takes it
_LIMIT, _OFFSET = -1, -2


def install() -> None:
    """`apaginate` looks its flow up when it is called, so those who have imported it are served too."""
    ordinary = extension._sqlalchemy_flow  # noqa: SLF001 - there is no public place to stand in
    if hasattr(ordinary, "__wrapped__"):
        return

    @wraps(ordinary)
    def flow(is_async: bool, conn: Any, query: Any, params: Any = None, **options: Any) -> Generator[Any, Any, Any]:  # noqa: FBT001 - theirs # Any: theirs
        if (
            is_async
            and isinstance(conn, LaneSession)
            and conn.fresh
            and all(options.get(name, usual) is usual for name, usual in PAGINATION_OPTIONS.items())
        ):
            page = yield _page(conn, query, params)
            if page is not None:
                return page
        return (yield from ordinary(is_async, conn, query, params, **options))

    extension._sqlalchemy_flow = flow  # noqa: SLF001 - as above


class PagePlan:
    """One shape of a query, compiled."""

    def __init__(
        self, lane: Lane, query: Select[Any], key: CacheKey, entity: EntityPlan, writer: RowWriter | None
    ) -> None:  # Any: of one entity
        self.entity = entity
        self.writer = writer
        limit, offset = bindparam("lane_limit", type_=BigInteger()), bindparam("lane_offset", type_=BigInteger())
        unordered = query.order_by(None)
        total = select(func.count()).select_from(unordered.subquery())
        # A scalar subquery: a window function would count anew for each row.
        counted = total.scalar_subquery().label("lane_total")
        part = lane.ordered(query.limit(1)).limit(limit).offset(offset)
        if writer is None:
            whole: Select[Any] = part.with_only_columns(
                *entity.columns, counted, maintain_column_froms=True
            )  # Any: as above
        else:
            whole = _written_behind(part, entity, writer, counted)
        self.sql, self.arguments = _compiled(lane, whole, key)
        self.total_sql, self.total_arguments = _compiled(lane, total, key)


def _written_behind(
    part: Select[Any], entity: EntityPlan, writer: RowWriter, counted: Label[int]
) -> Select[Any]:  # Any: of whatever columns
    """What is shown is made of the rows of the page alone: beside OFFSET, the database would make it of each row before."""
    order = part._order_by_clauses  # noqa: SLF001 - no public way to ask
    if any(isinstance(each, TextClause) for clause in order for each in iterate(clause)):
        raise _NotUnderstood  # it may name a table, which has another name outside
    rows = part.with_only_columns(*entity.table.columns, maintain_column_froms=True).subquery("lane_page")
    outside = ClauseAdapter(rows)
    shown = [outside.traverse(expression) for expression in writer.expressions]
    return select(*shown, counted).select_from(rows).order_by(*(outside.traverse(clause) for clause in order))


def _compiled(lane: Lane, statement: Select[Any], key: CacheKey) -> tuple[str, list[Argument]]:  # Any: as above
    compiled = statement.compile(dialect=lane.dialect)
    if compiled.literal_execute_params or compiled.post_compile_params:
        raise _NotUnderstood
    places = {bind.key: place for place, bind in enumerate(key.bindparams)}
    places |= {"lane_limit": _LIMIT, "lane_offset": _OFFSET}
    arguments = []
    for name in compiled.positiontup or ():
        bind = compiled.binds[name]
        keys = [each.key for each in bind._cloned_set if each.key in places]  # noqa: SLF001 - the compiler may have copied it
        if len({places[each] for each in keys}) != 1 or bind.expanding or bind.literal_execute:
            raise _NotUnderstood
        place = places[keys[0]]
        if bind.required and place >= 0:
            raise _NotUnderstood
        convert: Any = compiled._bind_processors.get(name)  # noqa: SLF001 - what executing uses # Any: of tuples too, for what is expanding
        arguments.append((place, convert))
    return str(compiled), arguments


class _NotUnderstood(Exception):  # noqa: N818 - not an error: the ordinary path does it
    pass


async def _page(session: LaneSession, query: Any, given: AbstractParams | None) -> Any:  # Any: as apaginate has it
    """None when the ordinary path has to do it."""
    params = _params_val.get(None) if given is None else given
    part = None if params is None else _part(params)
    if params is None or part is None or resolve_items_transformer() is not None:
        return None
    planned = _plan(session.lane, query, _writer_for(session, params))
    if planned is None:
        return None
    plan, values = planned
    try:
        arguments, counting = _values(plan.arguments, values, part), _values(plan.total_arguments, values, part)
    except Exception:  # noqa: BLE001 - of any type's: the ordinary path raises it with its words
        return None
    rows = await session.lane.fetch(plan.sql, arguments, session.fail)
    session.read()
    total = rows[0][-1] if rows else 0
    if not rows and part.offset:
        # Beyond the last page, where there is no row to carry it.
        total = (await session.lane.fetch(plan.total_sql, counting, session.fail))[0][0]
    if plan.writer is not None:
        return _written(plan.writer, rows, total, params)
    items = [session.load(plan.entity, row) for row in rows]
    return await greenlet_spawn(create_page, items, total=total, params=params)


def _part(params: AbstractParams) -> "_Part | None":
    raw = params.to_raw_params()
    if not is_limit_offset(raw) or not raw.include_total or not raw.limit or raw.offset is None:
        return None
    return _Part(raw.limit, raw.offset) if raw.limit > 0 and raw.offset >= 0 else None


class _Part(NamedTuple):
    limit: int
    offset: int


def _writer_for(session: LaneSession, params: AbstractParams) -> PageWriter | None:
    writer = session.page_json
    plain = type(params).to_raw_params is Params.to_raw_params
    return writer if writer is not None and plain and resolve_page(params) is writer.page else None


def _values(arguments: list[Argument], values: Sequence[Any], part: _Part) -> list[Any]:  # Any: of columns
    found = []
    for place, convert in arguments:
        value = part.limit if place == _LIMIT else part.offset if place == _OFFSET else values[place].effective_value
        found.append(value if convert is None else convert(value))
    return found


def _written(
    writer: RowWriter, rows: Sequence[Sequence[Any]], total: int, params: Any
) -> PageJson | None:  # Any: Params
    try:
        items = writer.items(rows)
    except Exception:  # noqa: BLE001 - a value that the model does not expect: the ordinary path says so
        return None
    page, size = params.page, params.size
    return PageJson(
        b'{"items":%b,"total":%d,"page":%d,"size":%d,"pages":%d}' % (items, total, page, size, ceil(total / size))
    )


def _plan(lane: Lane, query: Any, writer: PageWriter | None) -> tuple[PagePlan, Sequence[Any]] | None:  # Any: as above
    if not isinstance(query, Select):
        return None
    said = vars(query)
    if "_execution_options" in said or "_params" in said:  # no part of its cache key
        return None
    values: Sequence[Any] = ()  # Any: bound parameters, of any type
    if said.keys() <= _BARE and len(query._raw_columns) == 1:  # noqa: SLF001 - `select(Entity)` and not a word more, which has no need of a key
        name: Any = query._raw_columns[0]._annotations.get("parententity")  # noqa: SLF001 - as above # Any: a mapper, if anything
    elif (key := query._generate_cache_key()) is not None:  # noqa: SLF001 - what SQLAlchemy's own cache goes by
        name, values = key.key, key.bindparams
    else:
        return None
    for kind in (writer,) if writer is None else (writer, None):
        try:
            plan: PagePlan | None = lane.plans[name, kind]
        except KeyError:
            if len(lane.plans) > MAX_PLANS:
                lane.plans.clear()
            plan = lane.plans[name, kind] = _understood(lane, query, kind)
        if plan is not None and plan.entity.unheard:
            return plan, values
    return None


def _understood(lane: Lane, query: Select[Any], writer: PageWriter | None) -> PagePlan | None:  # Any: as above
    """A query of one entity from its own table, with conditions and an order: whatever else is said in it is not."""
    key = query._generate_cache_key()  # noqa: SLF001 - as above
    if key is None or _says_more(query):
        return None
    selected = query.column_descriptions
    if len(selected) != 1 or selected[0]["expr"] is not selected[0]["entity"] or selected[0]["aliased"]:
        return None
    entity = plan_for(lane, selected[0]["entity"])
    if entity is None or query.get_final_froms() != [entity.table]:
        return None
    rows = None if writer is None else row_writer(writer, entity, lane.dialect)
    if writer is not None and rows is None:
        return None
    try:
        return PagePlan(lane, query, key, entity, rows)
    except _NotUnderstood:
        return None


_SAID: Final = _BARE | {"_where_criteria", "_order_by_clauses", "dialect_options", "_memoized_keys"}


def _says_more(query: Select[Any]) -> bool:  # Any: as above
    said = vars(query._generate())  # noqa: SLF001 - a copy without what SQLAlchemy remembers with a statement that was used
    return any(
        name not in _SAID and value is not None and value is not False and value != ()
        for name, value in said.items()
        if name != "_compile_options" or vars(value)
    ) or bool(query.dialect_options)

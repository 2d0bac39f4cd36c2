"""The libraries whose inner workings the lane knows. With any other the service takes the ordinary path."""

from functools import lru_cache
from importlib.metadata import version
from inspect import signature
from typing import Final

from asyncpg import Connection as Driver
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.protocol import Protocol
from asyncpg.transaction import Transaction
from fastapi_pagination.ext import sqlalchemy as pagination
from loguru import logger
from sqlalchemy import BindParameter, Connection, Select
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.orm import Mapper, Session, SessionTransaction
from sqlalchemy.orm import session as orm_session
from sqlalchemy.orm.identity import _WeakInstanceDict
from sqlalchemy.orm.state import InstanceState
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.types import TypeEngine

_KNOWN: Final = {
    "sqlalchemy": ("2.1.",),
    "asyncpg": ("0.32.",),
    "aiosqlite": ("0.22.",),
    "fastapi-pagination": ("0.16.",),
}
# What a patch release may rename; that it does something else is for the tests to find.
_USED: Final[tuple[tuple[object, tuple[str, ...]], ...]] = (
    (QueuePool, ("_do_get",)),
    (_ConnectionRecord, ("_checkin_failed", "_soft_invalidate_time", "checkin", "get_connection")),
    (Connection, ("_handle_dbapi_exception", "_handle_dbapi_exception_noconnection")),
    (orm_session, ("_sessions", "_new_sessionid")),
    (Session, ("_autobegin_t",)),
    (SessionTransaction, ("_connection_for_bind",)),
    (InstanceState, ("_detach", "_expire")),
    (_WeakInstanceDict, ("_add_unpresent", "_kill")),
    (Mapper, ("_path_registry", "_prop_set")),
    (Select, ("_generate", "_generate_cache_key")),
    (BindParameter, ("_cloned_set",)),
    (TypeEngine, ("_cached_bind_processor", "_cached_result_processor", "_unwrapped_dialect_impl")),
    (AsyncAdapt_asyncpg_connection, ("_start_transaction", "_call_and_discard", "_handle_exception")),
    (pagination, ("_sqlalchemy_flow",)),
    (Driver, ("_check_open", "_protocol", "_top_xact", "_transport")),
    (PreparedStatement, ("_state",)),
    (Transaction, ("_state",)),
    (Protocol, ("_wait_for_cancellation", "bind_execute", "is_in_transaction")),
)
PAGINATION_OPTIONS: Final[dict[str, object]] = {
    "subquery_count": True,
    "unwrap_mode": None,
    "count_query": None,
    "inline_count": None,
    "bind_params": None,
    "execute_options": None,
    "transformer": None,
    "additional_data": None,
    "unique": True,
    "config": None,
}
"""What apaginate hands on, as it is when nobody asks for more."""


@lru_cache(maxsize=1)
def libraries_known() -> bool:
    """Says so once if not."""
    strange = [f"{name} {found}" for name, known in _KNOWN.items() if not (found := version(name)).startswith(known)]
    strange += [f"no {name} in {owner}" for owner, names in _USED for name in names if not hasattr(owner, name)]
    if not strange:
        options = signature(pagination._sqlalchemy_flow).parameters.values()  # noqa: SLF001 - where pages.py stands in
        if {each.name for each in options if each.kind is each.KEYWORD_ONLY} != PAGINATION_OPTIONS.keys():
            strange.append("other options of apaginate")
    if strange:
        logger.warning("The data lane is off: it does not know these libraries", libraries=strange)
    return not strange

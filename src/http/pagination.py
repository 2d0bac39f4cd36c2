"""`Page[...]` as a response model is all that a route says to be paged."""

import base64
import binascii
import hmac
import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from fastapi import Depends, Query
from fastapi._compat import lenient_issubclass
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi.exceptions import RequestValidationError
from fastapi_pagination import LimitOffsetParams, Params, request
from fastapi_pagination.api import _create_params_dependency, _page_val, _params_val, _req_val, _rsp_val
from fastapi_pagination.bases import AbstractPage, AbstractParams
from fastapi_pagination.cursor import CursorParams
from fastapi_pagination.types import Cursor
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response as RawResponse

from src.shared.inline import inline
from src.shared.keys import keys_for
from src.shared.types import MAX_INT32

SEAL_BYTES: Final = 16


class BoundedParams(Params):
    """Page numbers whose offset still fits the database's integers."""

    page: int = Query(1, ge=1, le=MAX_INT32, description="Page number")


class BoundedLimitOffsetParams(LimitOffsetParams):
    offset: int = Query(0, ge=0, le=MAX_INT32, description="Page offset")


class SealedCursorParams(CursorParams):
    """A cursor is values for a WHERE clause: only those that this very list gave come back."""

    cursor: str | None = Query(None, max_length=4096, description="Cursor for the next page")
    size: int = Query(50, ge=1, le=100, description="Page size")

    def encode_cursor(self, cursor: Cursor | None) -> str | None:
        if not cursor:
            return None
        place = cursor.encode() if isinstance(cursor, str) else cursor
        return base64.urlsafe_b64encode(_seal(place) + place).decode().rstrip("=")

    def decode_cursor(self, cursor: str | None) -> Cursor | None:
        if not cursor:
            return None
        try:
            opened = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            opened = b""
        seal, place = opened[:SEAL_BYTES], opened[SEAL_BYTES:]
        if not hmac.compare_digest(seal, _seal(place)):
            error = {"loc": ("query", "cursor"), "type": "cursor_invalid", "msg": "Not a cursor of this list"}
            raise RequestValidationError([error])
        return place.decode()


def _seal(place: bytes) -> bytes:
    """An HMAC over the place and the list: its path, filters and order."""
    asked = request()
    filters = sorted(
        (name, value) for name, value in asked.query_params.multi_items() if name not in ("cursor", "size")
    )
    return hmac.digest(keys_for("cursor")[0], json.dumps([asked.url.path, filters]).encode() + place, "sha256")[
        :SEAL_BYTES
    ]


_BOUNDED: dict[type[AbstractParams], type[AbstractParams]] = {
    Params: BoundedParams,
    LimitOffsetParams: BoundedLimitOffsetParams,
    CursorParams: SealedCursorParams,
}


def add_page_parameters(route: Any) -> None:  # Any: APIRoute or FastAPI's private context, same attributes
    """What fastapi-pagination's own `add_pagination` does, for routes below nested routers too, and bounded."""
    page = route.response_model
    if not lenient_issubclass(page, AbstractPage):
        return
    own = page.__params_type__
    context = Depends(_page_context(page, _BOUNDED.get(own, own)), scope="function")
    route.dependant.dependencies.append(get_parameterless_sub_dependant(depends=context, path=route.path_format))


def _page_context(page: type[AbstractPage[Any]], kind: type[AbstractParams]) -> Callable[..., AsyncIterator[None]]:
    """Like `pagination_ctx`, in one piece: three generators on exit stacks cost more than the page."""
    their_params = _create_params_dependency(kind)
    reads_model = lenient_issubclass(kind, BaseModel)

    async def page_context(request: Request, response: RawResponse, **given: Any) -> AsyncIterator[None]:
        params = kind.model_validate(given, by_name=True) if reads_model else kind(**given)  # type: ignore[attr-defined] # a model then
        page_token, params_token = _page_val.set(page), _params_val.set(params)
        request_token, response_token = _req_val.set(request), _rsp_val.set(response)
        try:
            yield
        finally:
            _page_val.reset(page_token)
            _params_val.reset(params_token)
            _req_val.reset(request_token)
            _rsp_val.reset(response_token)

    parameters = inspect.signature(page_context).parameters
    theirs = inspect.signature(their_params).parameters.values()
    page_context.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # read by FastAPI
        [parameters["request"], parameters["response"], *(each.replace(kind=each.KEYWORD_ONLY) for each in theirs)]
    )
    return inline(page_context)

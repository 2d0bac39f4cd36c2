"""`Page[...]` as a response model is all that a route says to be paged."""

from typing import Any

from fastapi import Depends, Query
from fastapi._compat import lenient_issubclass
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi_pagination import Params, pagination_ctx
from fastapi_pagination.bases import AbstractPage

from src.shared.types import MAX_INT32


class BoundedParams(Params):
    """Page numbers whose offset still fits the database's integers."""

    page: int = Query(1, ge=1, le=MAX_INT32, description="Page number")


def add_page_parameters(route: Any) -> None:  # Any: APIRoute or FastAPI's private context, same attributes
    """What fastapi-pagination's own `add_pagination` does, for routes below nested routers too, and bounded."""
    page = route.response_model
    if not lenient_issubclass(page, AbstractPage):
        return
    own = page.__params_type__
    context = Depends(pagination_ctx(page, BoundedParams if own is Params else own))
    route.dependant.dependencies.append(get_parameterless_sub_dependant(depends=context, path=route.path_format))

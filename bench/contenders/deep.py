"""A router two deep with many routes, whose last one is measured: what matching costs."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter


def deep_router(
    count: int, last: Callable[..., Any], **options: Any
) -> APIRouter:  # Any: an endpoint, as FastAPI has it
    """`count` routes below /deep; the last one is /deep/static."""
    inner = APIRouter()
    for n in range(count - 1):
        inner.get(f"/things{n}" if n % 2 else f"/things{n}/{{thing_id}}", **options)(last)
    inner.get("/static", **options)(last)
    outer = APIRouter()
    outer.include_router(inner, prefix="/deep")
    return outer

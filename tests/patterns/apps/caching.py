"""Patterns, Caching: the cache is injected."""

# Typed as the document has it:
# ruff: noqa: A001, B008, FAST002, RET503
# mypy: disable-error-code="no-untyped-def"

from typing import Any

from fastapi import APIRouter, Depends

from src.cache import CacheProtocol, get_cache

router = APIRouter()
id = "patterns"
data = {"name": "Anna", "visits": [1, 2.5, None]}


@router.get("/cached")
async def handler(cache: CacheProtocol = Depends(get_cache)):
    cached = await cache.get(f"key:{id}")
    if cached:
        return cached
    await cache.set(f"key:{id}", data, ttl=300)


@router.get("/cached/seconds-left")
async def seconds_left(cache: CacheProtocol = Depends(get_cache)) -> float | None:
    return await cache.ttl(f"key:{id}")


@router.delete("/cached")
async def forget(cache: CacheProtocol = Depends(get_cache)) -> bool:
    return await cache.delete(f"key:{id}")


@router.put("/cached")
async def remember(value: dict[str, Any], cache: CacheProtocol = Depends(get_cache)) -> None:
    await cache.set(f"key:{id}", value)

"""Any JSON value comes back from both caches as it went in."""

import asyncio
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from src.cache import open_cache
from src.config import CacheSettings, Settings

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)
KEYS = TEXTS.filter(bool)


def precisely(value: object) -> str:
    """Tells 1 from 1.0 and True, and 0.0 from -0.0, which are equal."""
    return repr(value)


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.dictionaries(KEYS, VALUES), min_size=1, max_size=5))
def test_what_goes_in_comes_out_of_both_caches(valkey_url: str, batches: list[dict[str, Any]]) -> None:
    async def round_trip(url: str) -> None:
        cache = open_cache(Settings(cache=CacheSettings(url=url, timeout_seconds=10, namespace=f"t-{uuid4().hex[:8]}")))
        for batch in batches:
            await cache.set_many(batch)
            assert precisely(await cache.get_many(batch)) == precisely(batch)
        await cache.clear()

    for url in ("memory://", valkey_url):
        asyncio.run(round_trip(url))

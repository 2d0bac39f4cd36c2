"""What the harness gives to every contender, through the environment."""

import os
from dataclasses import dataclass
from typing import Final

ISSUER: Final = "bench"
AUDIENCE: Final = "bench-api"
ALGORITHM: Final = "HS256"
PERMISSION: Final = "user:read"
CACHE_KEY: Final = "bench:greeting"
CACHE_TTL_SECONDS: Final = 3600
CACHED: Final = {"greeting": "hello", "numbers": [1, 2, 3]}
GREETING: Final = "Hello, World!"
POOL_SIZE: Final = 20
_ROUTES_A_GROUP: Final = 10


@dataclass(frozen=True, slots=True)
class Given:
    db_url: str
    cache_url: str
    secret: str
    """Of the peers' tokens: HS256 with sub, exp, scopes."""
    filler_routes: int
    """How many routes stand before the measured ones."""
    deep_routes: int
    """How many routes the router of /bench/deep has; its last one is /static. 0: there is no such router."""


def read() -> Given:
    env = os.environ
    return Given(
        env["DB__URL"],
        env["CACHE__URL"],
        env.get("BENCH_SECRET", ""),
        int(env.get("BENCH_FILLER_ROUTES", "0")),
        int(env.get("BENCH_DEEP_ROUTES", "0")),
    )


def filler_groups(count: int) -> list[tuple[str, list[str]]]:
    """Prefixes and paths of `count` routes, shaped like those of a service: a router a domain, half with a parameter."""
    return [
        (
            f"/api/v1/domain{first // _ROUTES_A_GROUP}",
            [
                f"/things{n}" if n % 2 else f"/things{n}/{{thing_id}}"
                for n in range(first, min(first + _ROUTES_A_GROUP, count))
            ],
        )
        for first in range(0, count, _ROUTES_A_GROUP)
    ]

"""The measurements beside the six jobs: start-up, many routes, many rows, switches, API keys, SQLite."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from operator import methodcaller
from typing import Any, Final

from bench import data
from bench.contenders.given import GREETING
from bench.data import envelope
from bench.jobs import JOBS, SIZE, Job, Request, page
from bench.measure import Result, measure, say
from bench.servers import CONTENDERS, Contender, ContenderError, Running, Surroundings, running
from src.config import all_settings, setting_name

STARTS: Final = 5
STARTED: Final = ("floor", "ours", "bare", "litestar")
ROUTES: Final = (1, 10, 100, 1_000)
ROWS: Final = (1_000, 10_000, 100_000, 1_000_000)
# A page at 10⁶ rows takes the database long; what is asked here is how long, not how many at once.
ROWS_CONNECTIONS: Final = 4
ROUNDS: Final = 3
SECONDS: Final = 2
COMPILED_OFF: Final = {"HTTP__COMPILED_ROUTES": "false"}
READ_EACH_TIME: Final = "without cached principals"
SWITCHES: Final[dict[str, dict[str, str]]] = {
    "without compiled routes": COMPILED_OFF,
    "without data lane": {"DB__DATA_LANE": "false"},
    READ_EACH_TIME: {"AUTH__PRINCIPAL_CACHE_SECONDS": "0"},
    "without local cache": {"CACHE__LOCAL_SECONDS": "0"},
}
BY_TOKEN: Final = "access token"
BY_KEY: Final = "API key"
KEYED_JOBS: Final = ("login", "by_id")
EVERYTHING_ON: Final = "everything on"
EVERYTHING_OFF: Final = "everything off"


def switches() -> dict[str, dict[str, str]]:
    """Those that the service knows, and all of them together."""
    known = {setting_name(section, name) for section, name in all_settings()}
    found = {title: env for title, env in SWITCHES.items() if env.keys() <= known}
    for title in SWITCHES:
        if title not in found:
            say(f"!! {title}: the service has no such setting")
    if not found:
        return {}
    return found | {EVERYTHING_OFF: {name: value for env in found.values() for name, value in env.items()}}


def start_up(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """Seconds from the start of the process to its first answer, and its memory then, each time anew."""
    seconds: dict[str, list[float]] = {}
    memory_mb: dict[str, list[float]] = {}
    for _ in range(STARTS):
        for name in STARTED:
            with running(CONTENDERS[name], surroundings) as server:
                seconds.setdefault(name, []).append(server.started_seconds)
                memory_mb.setdefault(name, []).append(server.memory_mb())
    say(f"   start-up: {seconds}")
    assert not result.runs
    return {"start_seconds": seconds, "memory_mb": memory_mb}


def many_routes(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """The static job as the last of so many routes, two routers deep."""
    request = Request("GET", "/bench/deep/static", envelope({"message": GREETING}))
    variants: dict[str, tuple[Contender, Mapping[str, str]]] = {
        "bare": (CONTENDERS["bare"], {"BENCH_FILLER_ROUTES": "0"}),
        "ours": (CONTENDERS["ours"], {}),
    }
    if any(env == COMPILED_OFF for env in switches().values()):
        variants["ours, without compiled routes"] = CONTENDERS["ours"], COMPILED_OFF
    start_seconds: dict[str, dict[str, float]] = {}
    for count in ROUTES:
        job = replace(JOBS["static"], name=f"{count}", route=request.path, make_requests=lambda _: [request])
        with ExitStack() as stack:
            servers = [
                stack.enter_context(
                    running(
                        contender,
                        surroundings,
                        label=label,
                        env={**env, "BENCH_DEEP_ROUTES": f"{count}"},
                        ready_path=request.path,
                    )
                )
                for label, (contender, env) in variants.items()
            ]
            for server in servers:
                start_seconds.setdefault(server.label, {})[job.name] = server.started_seconds
            _measure(result, servers, job)
    return {"start_seconds": start_seconds}


def many_rows(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """First page, last page but one, and a page behind a cursor, among so many users. Leaves them in the database."""
    database, present = surroundings.database, data.USERS
    with (
        running(CONTENDERS["floor"], surroundings) as floor,
        running(CONTENDERS["ours"], surroundings) as ours,
    ):
        for count in ROWS:
            if count > present:
                # One of them is the administrator, who comes last.
                data.add_users(database, present - 1, count - 1)
                data.tidy(database)
                present = count
            for title, number in (("first page", 1), ("last page but one", count // SIZE - 1)):
                request = page("/bench/users", number, count)
                _measure(result, [floor, ours], _rows_job(f"{count} {title}", request), ROWS_CONNECTIONS)
            request = _page_behind_cursor(ours)
            _measure(result, [ours], _rows_job(f"{count} cursor page", request), ROWS_CONNECTIONS)
    return {"connections": ROWS_CONNECTIONS}


def _rows_job(name: str, request: Request) -> Job:
    return replace(JOBS["page"], name=name, route=request.path.partition("?")[0], make_requests=lambda _: [request])


def _page_behind_cursor(ours: Running) -> Request:
    path, headers = f"/bench/users-by-cursor?size={SIZE}", {"Authorization": f"Bearer {ours.token()}"}
    first = json.loads(ours.ask("GET", path, headers=headers).body)
    path += f"&cursor={first['data']['next_page']}"
    second = ours.ask("GET", path, headers=headers).body
    rows = [data.user_json(row) for row in data.user_rows(SIZE, 2 * SIZE)]
    if json.loads(second)["data"]["items"] != rows:
        raise ContenderError(f"The page behind a cursor has other rows: {second[:500]!r}")
    return Request("GET", path, second)


def switched_off(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """All jobs with everything on, and with one thing off at a time."""
    variants = {EVERYTHING_ON: dict[str, str]()} | switches()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running(CONTENDERS["ours"], surroundings, label=label, env=env))
            for label, env in variants.items()
        ]
        for name in JOBS:
            _measure(result, servers, CONTENDERS["ours"].job(name))
    return {"env": variants}


def by_api_key(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """Two jobs by callers with an access token, and with an API key."""
    with (
        running(CONTENDERS["ours"], surroundings, label=BY_TOKEN) as by_token,
        running(
            CONTENDERS["ours"],
            surroundings,
            label=BY_KEY,
            env={"AUTH__API_KEY_REQUESTS_PER_MINUTE": str(10**9)},
            by_key=True,
        ) as by_key,
    ):
        for name in KEYED_JOBS:
            _measure(result, [by_token, by_key], CONTENDERS["ours"].job(name))
    return {}


def on_sqlite(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    with running(CONTENDERS["floor"], surroundings) as floor, running(CONTENDERS["ours"], surroundings) as ours:
        for name in JOBS:
            measure(result, [floor, ours], methodcaller("job", name), rounds=ROUNDS, seconds=SECONDS)
    return {}


def _measure(result: Result, servers: list[Running], job: Job, connections: int | None = None) -> None:
    more = {} if connections is None else {"connections": connections}
    measure(result, servers, lambda _: job, rounds=ROUNDS, seconds=SECONDS, **more)

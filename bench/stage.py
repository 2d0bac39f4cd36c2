"""What every measurement stands on: the servers of the data, the database, the number of routes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import data, machine
from bench.servers import ContenderError, Surroundings
from tests.support import postgres, valkey
from tests.support.server import child_environment

_COUNT_ROUTES: Final = """
from fastapi.routing import iter_route_contexts
from src.http.app import create_app
print(sum(1 for _ in iter_route_contexts(create_app().routes)))
"""


@contextmanager
def stage() -> Iterator[Surroundings]:
    """PostgreSQL and Valkey: those in DB__URL and CACHE__URL, which must let us make a database, or our own."""
    machine.require_tools()
    core = machine.take_cores()
    for variable, name in ((postgres.SERVER_VARIABLE, "DB__URL"), (valkey.SERVER_VARIABLE, "CACHE__URL")):
        if given := os.environ.get(name):
            os.environ[variable] = given
    with tempfile.TemporaryDirectory(prefix="undercroft-bench-") as directory:
        place = Path(directory)
        counting = _start_counting(place)
        with postgres.running_postgres() as server_url, valkey.running_valkey() as cache_url:
            database = data.make_postgres(server_url, place)
            try:
                yield Surroundings(database, cache_url, core, place, _counted(counting))
            finally:
                data.drop_postgres(server_url, database)


@contextmanager
def sqlite_stage() -> Iterator[Surroundings]:
    """A file, and memory for a cache."""
    machine.require_tools()
    core = machine.take_cores()
    with tempfile.TemporaryDirectory(prefix="undercroft-bench-") as directory:
        place = Path(directory)
        counting = _start_counting(place)
        yield Surroundings(data.make_sqlite(place), "memory://", core, place, _counted(counting))


def _start_counting(place: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _COUNT_ROUTES], cwd=place, env=child_environment(None), stdout=subprocess.PIPE, text=True
    )


def _counted(counting: "subprocess.Popen[str]") -> int:
    output, _ = counting.communicate()
    if counting.returncode:
        raise ContenderError("The routes of the service could not be counted")
    return int(output.split()[-1])

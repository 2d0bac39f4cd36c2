"""The machine: which cores, which tools, what it is called in a report."""

import os
import platform
import shutil
import sys
from importlib.metadata import version
from typing import Final

TOOLS: Final = {
    "wrk": "the load generator; Debian and Ubuntu: apt install wrk, macOS: brew install wrk",
    "taskset": "pins a process to a core; it is part of util-linux",
}
PACKAGES: Final = (
    "fastapi", "starlette", "pydantic", "sqlalchemy", "asyncpg", "redis", "uvicorn", "uvloop", "httptools",
    "litestar", "msgspec", "blacksheep", "django", "django-ninja", "orjson",
)  # fmt: skip


class MissingError(Exception):
    """What has to be installed first."""


def require_tools() -> None:
    missing = [f"  {tool}: {what}" for tool, what in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise MissingError("make bench needs these programs of the system:\n" + "\n".join(missing))
    if len(os.sched_getaffinity(0)) < 2:
        raise MissingError("make bench needs two cores: one for the contender, one for the load and the databases")


def take_cores() -> int:
    """Leave the first core to the contenders and its number to the caller; what this process starts runs on the rest."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others)
    return first


def described() -> str:
    model = "an unnamed processor"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a file of ours
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {sys.version.split()[0]}"


def versions() -> str:
    return ", ".join(f"{package} {version(package)}" for package in PACKAGES)

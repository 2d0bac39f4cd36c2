"""The service between a database and a cache that fail in each way of the table, under a small steady load."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import httpx2
from sqlalchemy import Executable, func, select
from sqlmodel import col

from src.core.orders.models import Order
from src.doctor import INVARIANTS
from src.outbox.models import OutboxEvent
from tests.faults.faults import NAME, Fault, Stage, open_stage
from tests.faults.load import (
    GIVEN_UP_SECONDS,
    Account,
    Asks,
    Bounds,
    Load,
    Verdict,
    Window,
    judge,
    living,
    logging_in,
    paging,
    placing,
    reading,
    running_load,
)
from tests.support.answers import data_of
from tests.support.server import run_command
from tests.support.service import Place, Service, place_on
from tests.support.tables import execute, execute_each
from tests.support.waiting import eventually

DEADLINE_SECONDS: Final = 2.0
POOL_SIZE: Final = 3
MOST_TO_CACHE: Final = 16
"""Ten callers at once, and the one connection that hears of changes."""
SETTINGS: Final = {
    "APP__NAME": NAME,
    "HTTP__REQUEST_TIMEOUT_SECONDS": str(DEADLINE_SECONDS),
    # In the proportions of the defaults, as far as such short times allow.
    "DB__STATEMENT_TIMEOUT_SECONDS": "0.5",
    "DB__LOCK_TIMEOUT_SECONDS": "0.3",
    "DB__POOL_TIMEOUT_SECONDS": "0.75",
    "DB__CONNECT_TIMEOUT_SECONDS": "0.3",
    "DB__POOL_SIZE": str(POOL_SIZE),
    "DB__MAX_OVERFLOW": "3",
    # So that each fault is met anew, and not slept through.
    "CACHE__BREAKER_SECONDS": "0.2",
    "AUTH__ACCESS_TOKEN_TTL_SECONDS": "3600",
    "MAIL__URL": "file:mail",
    "MAIL__PER_MAILBOX": "1000000",
    "MAIL__PER_PROVEN_MAILBOX": "1000000",
    "OUTBOX__LEASE_SECONDS": "4",
    "MAIL__TIMEOUT_SECONDS": "2",
    "OUTBOX__MAX_ATTEMPTS": "100",
    "OUTBOX__FIRST_DELAY_SECONDS": "0.02",
    "OUTBOX__MAX_DELAY_SECONDS": "1",
}
CALM_LOOKS: Final = 50
EXACT: Final = Bounds(deadline_seconds=DEADLINE_SECONDS + 0.5, recovery_seconds=2, unseen_seconds=0.3)
"""Margins: half a second for an answer to be written and read on a busy machine; a log-in asks the cache three times, and it
may take 0.1 s each time without being taken for dead."""
GENEROUS: Final = Bounds(deadline_seconds=DEADLINE_SECONDS * 2, recovery_seconds=6, unseen_seconds=1)
"""For tests, which share their machine."""


@dataclass
class Scene:
    """All that a fault is played with."""

    stage: Stage
    place: Place
    service: Service
    account: Account
    asks: Asks
    usual: dict[str, float] = field(default_factory=dict)
    """The slowest answer of each kind while all was well."""
    before: int = 0
    """Files and sockets that the service had open beside those to its two servers."""
    _trips: int = 0
    _read_bytes: int = 0

    @contextmanager
    def load(self) -> Iterator[Load]:
        with running_load(self.service.server.url, self.account, self.asks) as load:
            yield load

    def play(
        self,
        load: Load,
        fault: Fault,
        bounds: Bounds,
        *,
        answers: int = 1,
        patience_seconds: float = GIVEN_UP_SECONDS,
    ) -> Verdict:
        """From a service that is well to one that is well again; so many answers of each kind at each stage."""
        self._wait_for_cache()
        load.wait_for_successes(monotonic(), answers)
        trips, begun = self.trips(), monotonic()
        fault.begin(self.stage)
        try:
            self._hold(load, fault, answers, lambda: self._is_felt(fault, begun, trips), patience_seconds)
        finally:
            self.stage.during.close()
            fault.end(self.stage)
        repaired = monotonic()
        load.newcomers()
        load.wait_for_successes(monotonic(), answers)
        extra = bounds.unseen_seconds if fault.of == "cache" else bounds.deadline_seconds
        unseen = {kind: seconds + extra for kind, seconds in self.usual.items()} if fault.unseen else {}
        window = Window(fault.name, begun, repaired, monotonic(), unseen)
        verdict = judge(window, self.account.heard_since(begun), load.asks, bounds)
        if fault.felt and not self._is_felt(fault, begun, trips):
            verdict.unfelt.append(f"{fault.name}: nobody felt it, so it was no fault")
        return verdict

    def _hold(
        self, load: Load, fault: Fault, answers: int, is_felt: Callable[[], bool], patience_seconds: float
    ) -> None:
        since = monotonic()
        while not (load.have_answered(since, answers) and (not fault.felt or is_felt())):
            if fault.meanwhile is not None:
                fault.meanwhile(self.stage)
            load.wait_for_another()
            if monotonic() > since + patience_seconds:
                return  # whatever is missing: the verdict tells

    def _is_felt(self, fault: Fault, since: float, trips: int) -> bool:
        if fault.of == "cache":
            return self.trips() > trips
        return any(not each.good for each in self.account.heard_since(since))

    def trips(self) -> int:
        """How often the service has given its cache up for a while."""
        with self.service.server.log.open("rb") as log:
            log.seek(self._read_bytes)
            *lines, rest = log.read().split(b"\n")
        # Each line is read once: after an hour there are megabytes of them, and who reads them while others are timed
        # makes them wait.
        self._trips += sum(b"Cache server unavailable" in line for line in lines)
        self._read_bytes += sum(len(line) + 1 for line in lines)
        return self._trips + (b"Cache server unavailable" in rest)

    def _wait_for_cache(self) -> None:
        async def is_up() -> bool:
            answer = await asyncio.to_thread(httpx2.get, f"{self.service.server.url}/health/ready", verify=False)
            up: bool = answer.status_code == 200 and answer.json()["data"]["cache"] == "up"
            return up

        asyncio.run(eventually(is_up))

    def leaks(self, *, within_seconds: float = 10) -> list[str]:
        """Once nobody asks any more: what the service still has that it should not."""
        found: list[str] = []

        async def is_calm() -> bool:
            found[:] = self._leaks()
            return not found

        with suppress(TimeoutError):
            asyncio.run(eventually(is_calm, within_seconds=within_seconds))
        return found

    def _leaks(self) -> list[str]:
        files = open_files(self.service.server.pid)
        to_database, to_cache = files.sockets[self.stage.database.port], files.sockets[self.stage.cache.port]
        backends = self.stage.backends()
        busy = {state: count for state, count in backends.items() if state != "idle"}
        known = sum(backends.values())
        return [
            *([f"{to_database} connections to the database"] if to_database > POOL_SIZE else []),
            *([f"{to_cache} connections to the cache"] if to_cache > MOST_TO_CACHE else []),
            *([f"connections that do something: {busy}"] if busy else []),
            *([f"{known} connections are known to the database"] if known > POOL_SIZE else []),
            *([f"{self.others()} other files, not {self.before}"] if self.others() > self.before else []),
        ]

    def settled_files(self) -> int:
        """As few as they become once its callers are gone."""
        counts: list[int] = []

        async def is_calm() -> bool:
            counts.append(self.others())
            return len(counts) > CALM_LOOKS and len(set(counts[-CALM_LOOKS:])) == 1

        asyncio.run(eventually(is_calm))
        return counts[-1]

    def others(self) -> int:
        """Open files of the service, but for connections to its two servers."""
        files = open_files(self.service.server.pid)
        return files.all - files.sockets[self.stage.database.port] - files.sockets[self.stage.cache.port]

    def lost(self) -> list[str]:
        """Acknowledged orders that are not there, orders that nobody was told of, and sentences of the books that are not true."""
        queries: list[Executable] = [select(col(Order.id)), *(invariant.query() for invariant in INVARIANTS)]
        rows, *broken = execute_each(self.stage.own_url, queries)
        orders, told = {str(row[0]) for row in rows}, set(self.account.placed.values())
        # A caller who went home before it had a definite answer may have left an order.
        untold = len(orders - told) - len(self.account.unsettled)
        return [
            *(f"{order} was acknowledged and is not there" for order in told - orders),
            *([f"{untold} orders that nobody was told of"] if untold > 0 else []),
            *(each.sentence for each, found in zip(INVARIANTS, broken, strict=True) if found),
        ]

    def undelivered(self, *, within_seconds: float = 20) -> int:
        """Events that are left, once those that were in somebody's hands when the database went away had their time."""
        left = 0

        async def is_none() -> bool:
            nonlocal left
            waiting = select(func.count()).where(col(OutboxEvent.delivered_at).is_(None))
            left = int(execute(self.stage.own_url, waiting)[0][0])
            return left == 0

        with suppress(TimeoutError):
            asyncio.run(eventually(is_none, within_seconds=within_seconds))
        return left


@dataclass(frozen=True)
class OpenFiles:
    all: int
    sockets: Counter[int]
    """By the port at their other end."""


def open_files(pid: int) -> OpenFiles:
    """Of a process (Linux only)."""
    sockets: Counter[int] = Counter()
    peers = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        peers[f"socket:[{columns[9]}]"] = int(columns[2].rpartition(":")[2], 16)
    files = [*_targets(Path(f"/proc/{pid}/fd"))]
    sockets.update(peers[name] for name in files if name in peers)
    return OpenFiles(len(files), sockets)


def _targets(folder: Path) -> Iterator[str]:
    for each in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield each.readlink().name


def all_asks(account: Account, service: Service) -> Asks:
    """Of a customer with an address of her own, who orders something of which there is plenty."""
    admin = service.log_in()["access_token"]
    letter = {"sku": "PLENTY", "name": "Plenty", "price_minor": 100, "currency": "EUR", "stock": 1_000_000}
    product_id = data_of(service.post("products", letter, token=admin), 201)["id"]
    email = service.register()
    token = service.log_in(email)["access_token"]
    return {
        "read": lambda: reading(token),
        "page": lambda: paging(token),
        "order": lambda: placing(account, token, product_id),
        "log-in": lambda: logging_in(email),
        "live": lambda: living,
    }


@contextmanager
def open_scene() -> Iterator[Scene]:
    with open_stage() as stage, TemporaryDirectory() as folder:
        migrated = run_command("migrate", env={"DB__URL": stage.database_url}, cwd=Path(folder))
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        with (
            place_on(stage.database_url, CACHE__URL=stage.cache_url, **SETTINGS) as place,
            place.service() as service,
        ):
            account = Account()
            scene = Scene(stage, place, service, account, all_asks(account, service))
            with scene.load() as load:
                load.wait_for_successes(monotonic(), 20)
            for answer in scene.account.answers[CALM_LOOKS:]:
                scene.usual[answer.kind] = max(answer.seconds, scene.usual.get(answer.kind, 0))
            service.client.close()
            scene.before = scene.settled_files()
            yield scene

"""kill -9 of the service, or of its database, at random moments under a load of orders.

    python -m tests.faults.kills --database postgres --victim service --rounds 1000 --seed 1

Buyers place orders, each with a key of its own, and ask again with it until they have a definite answer. The victim is
killed with all its processes and started again, round by round. In the end the tables must hold what buyers were told.
Linux only.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
from bisect import bisect
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import ClassVar, Literal, Protocol, get_args
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import func, select
from sqlmodel import col

from src.outbox.models import OutboxEvent
from tests.faults.buyers import Buyer, Caller, Shop, Storekeeper, Told
from tests.faults.judge import MAIL, Verdict, glance, judge, look
from tests.support.answers import data_of
from tests.support.killing import kill_all
from tests.support.ports import reserved_port
from tests.support.postgres import Kind, Postgres, own_postgres, shared_run
from tests.support.postgres import execute as execute_raw
from tests.support.server import Server, run_command, start_server
from tests.support.service import ADMIN, Place, Service, own_place, place_on
from tests.support.tables import execute
from tests.support.valkey import running_valkey
from tests.support.waiting import eventually

Victim = Literal["service", "database"]
Mistake = Literal["fresh-keys", "late-commit"]
"""Seen to be found out: buyers who retry with a fresh key, a database that acknowledges what it has not yet written."""

BUYERS = 8
PRODUCTS = 6
FIRST_STOCK = 5
MOST_ORDERS_A_ROUND = 15
LONGEST_DELAY_SECONDS = 0.03
ASKED_ONCE_MORE = 100
"""The last orders, which are read and asked for once more in the end."""
DELIVERY_SECONDS = 1800
_CRASH = "Unhandled exception"
SETTINGS = {
    "LOG__FORMAT": "json",
    "AUTH__ACCESS_TOKEN_TTL_SECONDS": "3600",
    # One mailbox gets a mail for each order.
    "MAIL__PER_MAILBOX": "1000000",
    "MAIL__PER_PROVEN_MAILBOX": "1000000",
    # Who was killed with an event in hand holds it for so long; being killed is no reason to give an event up.
    "OUTBOX__LEASE_SECONDS": "4",
    "MAIL__TIMEOUT_SECONDS": "2",
    "OUTBOX__MAX_ATTEMPTS": "100",
    "OUTBOX__FIRST_DELAY_SECONDS": "0.02",
    "OUTBOX__MAX_DELAY_SECONDS": "1",
}
# Unlike the server of the tests, it keeps what it acknowledged.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
LATE = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}


class Mortal(Protocol):
    def kill(self) -> None: ...

    def revive(self) -> None: ...


@dataclass(frozen=True)
class Life:
    """Moments of the monotonic clock."""

    killed: float
    ready: float


@dataclass
class MortalService:
    """One port for all its lives."""

    place: Place
    port: int
    workers: int
    server: Server = field(init=False)
    forked: ClassVar[bool] = True
    """Where there is one worker: most of a start is imports, and a thousand of them too many for one afternoon."""

    def revive(self) -> None:
        log, folder = self.place.folder / "output.log", self.place.folder
        self.server = start_server(self.port, log, self.place.env, workers=self.workers, cwd=folder, forked=self.forked)
        self.server.wait_until_ready()

    def kill(self) -> None:
        # With several workers these, and whatever multiprocessing has started beside them.
        assert kill_all(self.server.process) > self.workers * (self.workers > 1)

    def is_alive(self) -> bool:
        return self.server.process.poll() is None

    def end(self) -> int:
        return self.server.end()


@dataclass
class MortalDatabase:
    server: Postgres

    def revive(self) -> None:
        self.server.start()

    def kill(self) -> None:
        assert kill_all(self.server.process) > 1


@dataclass
class Outcome:
    database: Kind
    victim: Victim
    workers: int
    seed: int
    rounds: int
    """That were played; a limit of minutes may end them early."""
    seconds: int
    longest_restart_seconds: float
    longest_recovery_seconds: float
    """From then on until somebody had a definite answer."""
    told: Told
    verdict: Verdict
    orders: int
    events: int
    mails: int
    crashes: list[str]
    """Lines of the log that tell of what nobody expected: an outage is no reason for a 500."""

    def problems(self) -> dict[str, list[str]]:
        return self.verdict.problems() | ({"crashes": self.crashes} if self.crashes else {})

    def figures(self) -> dict[str, str | float]:
        told = self.told
        return {
            "database": self.database,
            "victim": self.victim,
            "workers": self.workers,
            "seed": self.seed,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "longest_restart_seconds": round(self.longest_restart_seconds, 2),
            "longest_recovery_seconds": round(self.longest_recovery_seconds, 2),
            "acknowledged": len(told.receipts),
            "orders": self.orders,
            "events": self.events,
            "mails": self.mails,
            "refused": len(told.refused),
            "refills": told.refills,
            "asked_again": told.asked_again,
            "broken_connections": sum(n for answer, n in told.answers.items() if answer.endswith(("Error", "Timeout"))),
            "answers_503": sum(n for answer, n in told.answers.items() if answer.startswith("503")),
            "answers_500": sum(n for answer, n in told.answers.items() if answer.startswith("500")),
            "crashes": len(self.crashes),
            **{f"wrong_{name}": len(found) for name, found in asdict(self.verdict).items()},
        }

    def row(self) -> str:
        figures = self.figures()
        wrong = [str(number) for name, number in figures.items() if name.startswith("wrong_")]
        shown = ("database", "victim", "rounds", "acknowledged", "orders", "events", "mails", "refused", "asked_again")
        return f"| {' | '.join([*(str(figures[name]) for name in shown), *wrong])} |"


def play(  # noqa: PLR0913 - what the command takes
    database: Kind,
    victim: Victim,
    *,
    rounds: int,
    seed: int,
    minutes: float = 60,
    workers: int | None = None,
    mistake: Mistake | None = None,
    make_service: type[MortalService] = MortalService,
) -> Outcome:
    """In a place of its own, which is gone afterwards. Two workers, where the database can serve several."""
    started = monotonic()
    with ExitStack() as stack:
        place, mortal_database = stack.enter_context(_place(database, victim, late=mistake == "late-commit"))
        port = stack.enter_context(reserved_port())
        service = make_service(place, port, workers=workers or (1 if database == "sqlite" else 2))
        stack.enter_context(_alive(service))
        shop = Shop(service.server.url, Told(), careless=mistake == "fresh-keys")
        mortal = service if mortal_database is None else mortal_database
        with httpx2.Client(base_url=shop.url, timeout=20, verify=False) as client:
            emails, products = open_shop(shop, Service(service.server, client))
        before = count_mails(place)
        with ThreadPoolExecutor(BUYERS + 1) as threads:
            people: list[Buyer | Storekeeper] = [
                stack.enter_context(closing(Buyer(shop, email, f"{seed}-{n}", products)))
                for n, email in enumerate(emails)
            ]
            people.append(stack.enter_context(closing(Storekeeper(shop, ADMIN, f"{seed}-refill"))))
            if mortal_database is not None:
                # What buyers need to begin is no part of what is promised to them.
                execute_raw(place.database_url, "CHECKPOINT")
            shop.up.set()
            busy = [threads.submit(each.run) for each in people]
            try:
                lives = _play_rounds(place, shop, mortal, busy, rounds=rounds, seed=seed, until=started + minutes * 60)
            finally:
                shop.closing.set()
            for each in busy:
                each.result()
        _ask_once_more(people, shop.told)
        wait_until_delivered(people[-1])
        assert service.end() == 0, service.server.output()[-20_000:]
        found = look(place.database_url, place.folder / "mail", before=before)
        return Outcome(
            database,
            victim,
            service.workers,
            seed,
            len(lives),
            round(monotonic() - started),
            max((life.ready - life.killed for life in lives), default=0),
            _longest_recovery(lives, shop.told.heard),
            shop.told,
            judge(shop.told, found),
            orders=len(found.orders),
            events=found.events.total(),
            mails=found.mails,
            crashes=[line for line in service.server.output().splitlines() if _CRASH in line],
        )


@contextmanager
def _place(database: Kind, victim: Victim, *, late: bool) -> Iterator[tuple[Place, "MortalDatabase | None"]]:
    with ExitStack() as stack:
        env = SETTINGS | {"MAIL__URL": "file:mail"}
        if database == "postgres":
            env |= {
                "CACHE__URL": stack.enter_context(running_valkey()),
                "CACHE__NAMESPACE": f"kills-{uuid4().hex[:12]}",
            }
        if victim == "service":
            yield stack.enter_context(own_place(database, **env)), None
            return
        assert database == "postgres", "SQLite has no process of its own"
        server = stack.enter_context(own_postgres(**(DURABLE | (LATE if late else {}))))
        with TemporaryDirectory() as folder:
            migrated = run_command("migrate", env={"DB__URL": server.url}, cwd=Path(folder))
        assert migrated.returncode == 0, migrated.stdout + migrated.stderr
        yield stack.enter_context(place_on(server.url, **env)), MortalDatabase(server)


@contextmanager
def _alive(service: MortalService) -> Iterator[None]:
    service.revive()
    try:
        yield
    except BaseException:
        print(service.server.output()[-20_000:], file=sys.stderr)  # noqa: T201 - with the failed test, or on the terminal
        raise
    finally:
        if service.is_alive():
            service.kill()


def open_shop(shop: Shop, service: Service) -> tuple[list[str], list[UUID]]:
    """(buyers, products)"""
    token = service.log_in()["access_token"]
    products: list[UUID] = []
    for number in range(PRODUCTS):
        letter = {"sku": f"SCARCE-{number}", "name": "Scarce", "price_minor": 100 + number, "currency": "EUR"}
        product = data_of(service.post("products", letter | {"stock": FIRST_STOCK}, token=token), 201)
        products.append(UUID(product["id"]))
        shop.told.stocked[products[-1]] = FIRST_STOCK
    return [service.register() for _ in range(BUYERS)], products


def _play_rounds(  # noqa: PLR0913 - who plays, and how long
    place: Place, shop: Shop, mortal: Mortal, busy: Sequence[Future[None]], *, rounds: int, seed: int, until: float
) -> list[Life]:
    moment, lives = random.Random(seed), list[Life]()
    while len(lives) < rounds and monotonic() < until:
        begun = len(shop.told.receipts)
        shop.told.wait_for(begun + moment.randint(0, MOST_ORDERS_A_ROUND))
        sleep(moment.uniform(0, LONGEST_DELAY_SECONDS))  # whatever they are at then
        shop.up.clear()  # who fails now has no reason to try at once
        mortal.kill()
        killed = monotonic()
        mortal.revive()
        shop.ready = monotonic()
        lives.append(Life(killed, shop.ready))
        shop.up.set()
        glance(place.database_url, shop.told, buyers=BUYERS, since=begun)
        for each in busy:
            if each.done():
                each.result()  # it did not end by itself
    return lives


def _longest_recovery(lives: Sequence[Life], heard: Sequence[float]) -> float:
    """Of those that lived to answer."""
    longest, moments = 0.0, sorted(heard)
    for life, following in zip_longest(lives, lives[1:]):
        first = next(iter(moments[bisect(moments, life.ready) :]), inf)
        if first < (inf if following is None else following.killed):
            longest = max(longest, first - life.ready)
    return longest


def _ask_once_more(people: Sequence[Caller], told: Told) -> None:
    """The same key gets the same answer, and the order is read as it was told."""
    by_seed = {person.seed: person for person in people}
    for receipt in told.receipts[-ASKED_ONCE_MORE:]:
        person = by_seed[receipt.key.rpartition("-")[0]]
        again = person.ask("orders", receipt.asked, receipt.key)
        if (again.content, again.headers.get("Idempotency-Replayed")) != (receipt.answered, "true"):
            told.surprises.append(f"{receipt.key} was answered once more with {again.text}")
        read = person.get(f"orders/{receipt.order_id}")
        if read.status_code != 200 or read.json()["data"] != json.loads(receipt.answered)["data"]:
            told.surprises.append(f"{receipt.order_id} is read as {read.text}")


def wait_until_delivered(admin: Caller) -> None:
    async def all_are() -> bool:
        status = data_of(await asyncio.to_thread(admin.get, "outbox/status"))
        assert status["dead"] == 0, status
        if status["waiting"]:
            # Whoever is asked is who delivers.
            await asyncio.sleep(0.2)
        return bool(status["waiting"] == 0)

    asyncio.run(eventually(all_are, within_seconds=DELIVERY_SECONDS))


def count_mails(place: Place) -> int:
    written = select(func.count()).where(col(OutboxEvent.kind) == MAIL)
    return int(execute(place.database_url, written)[0][0])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--database", choices=get_args(Kind), default="sqlite")
    parser.add_argument("--victim", choices=get_args(Victim), default="service")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60, help="no round begins after so long")
    parser.add_argument("--workers", type=int, help="processes of the service; default: 1 on SQLite, else 2")
    parser.add_argument("--mistake", choices=get_args(Mistake), help="make it, and see it found out")
    given = parser.parse_args()
    if given.database == "sqlite" and given.victim == "database":
        parser.error("SQLite has no process of its own to kill")
    # Who ends it leaves no service behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with shared_run(several_processes=False):
        outcome = play(
            given.database,
            given.victim,
            rounds=given.rounds,
            seed=given.seed,
            minutes=given.minutes,
            workers=given.workers,
            mistake=given.mistake,
        )
    problems = outcome.problems()
    lines = [json.dumps(outcome.figures()), outcome.row(), f"answers: {dict(outcome.told.answers.most_common())}"]
    lines += [f"{name}: {found[:10]}" for name, found in problems.items()]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

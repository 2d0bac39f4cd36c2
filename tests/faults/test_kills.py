"""What was acknowledged outlives kill -9: of the service, and of its database."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.faults.buyers import Buyer, Shop, Storekeeper, Told
from tests.faults.judge import judge, look
from tests.faults.kills import SETTINGS, Victim, count_mails, open_shop, play, wait_until_delivered
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import ADMIN, own_place
from tests.support.tables import execute

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="how all processes are found and killed")


@pytest.mark.long
@needs_linux
@pytest.mark.parametrize(
    ("database", "victim"), [("sqlite", "service"), ("postgres", "service"), ("postgres", "database")]
)
def test_what_was_acknowledged_outlives_kill_9(database: Kind, victim: Victim) -> None:
    number = rounds(3, full=100)

    outcome = play(database, victim, rounds=number, seed=26)

    assert outcome.problems() == {}
    figures = outcome.figures()
    print(figures)  # noqa: T201 - for the docs, with `-rP`
    assert (figures["rounds"], figures["answers_500"]) == (number, 0)
    assert figures["acknowledged"] == figures["orders"] == figures["events"] == figures["mails"]
    # The kills were felt, and there was something to oversell.
    assert outcome.told.asked_again >= number
    assert outcome.told.receipts
    assert outcome.told.refused
    assert outcome.told.refills


@pytest.mark.long
@needs_linux
def test_a_database_that_acknowledges_what_it_has_not_written_is_found_out() -> None:
    outcome = play("postgres", "database", rounds=2, seed=26, mistake="late-commit")

    assert outcome.verdict.lost
    assert outcome.verdict.surprises  # between two rounds already


@dataclass(frozen=True)
class Closed:
    """A shop after its last order."""

    told: Told
    database: Path
    mails: Path
    mails_before: int

    def problems(self, copy: Path, statement: str = "SELECT 1") -> set[str]:
        """What the judge finds in a copy of its database, in which somebody did this."""
        shutil.copyfile(self.database, copy)
        url = f"sqlite+aiosqlite:///{copy}"
        execute(url, text(statement))
        return set(judge(self.told, look(url, self.mails, before=self.mails_before)).problems())


@pytest.fixture(scope="module")
def closed() -> Iterator[Closed]:
    with own_place("sqlite", MAIL__URL="file:mail", **SETTINGS) as place:
        told = Told()
        with place.service() as service:
            shop = Shop(service.server.url, told)
            shop.up.set()
            emails, products = open_shop(shop, service)
            before = count_mails(place)
            with (
                closing(Buyer(shop, emails[0], "buyer", products)) as buyer,
                closing(Storekeeper(shop, ADMIN, "refill")) as keeper,
            ):
                number = 0
                while not (told.refused and len(told.receipts) >= 3):
                    number += 1
                    buyer.place(f"buyer-{number}")
                keeper.refill(products[0])
                wait_until_delivered(keeper)
        path = Path(place.database_url.removeprefix("sqlite+aiosqlite:///"))
        # Into the file itself, which is then all that there is to copy.
        execute(place.database_url, text("PRAGMA wal_checkpoint(TRUNCATE)"))
        yield Closed(told, path, place.folder / "mail", before)


def test_the_judge_finds_nothing_where_nothing_is_wrong(closed: Closed, tmp_path: Path) -> None:
    assert closed.problems(tmp_path / "copy") == set()


AN_ORDER = "(SELECT min(id) FROM orders)"
COPIED = "customer_id, status, total_minor, currency, version, expires_at, created_at, updated_at"
ITS_EVENT = "position = (SELECT min(position) FROM outbox_events WHERE kind = 'order.placed')"
ITS_MAIL = "position = (SELECT max(position) FROM outbox_events WHERE kind = 'mail')"


@pytest.mark.parametrize(
    ("statement", "problems"),
    [
        (f"DELETE FROM orders WHERE id = {AN_ORDER}", {"lost", "books", "events", "mails"}),
        (f"UPDATE orders SET total_minor = total_minor + 1 WHERE id = {AN_ORDER}", {"altered", "books"}),
        (f"UPDATE order_lines SET quantity = quantity + 1 WHERE order_id = {AN_ORDER}", {"altered", "books"}),
        (
            f"INSERT INTO orders (id, number, {COPIED}) SELECT '{'0' * 32}', 'TOLD-NOBODY', {COPIED} FROM orders LIMIT 1",
            {"duplicate", "books", "events", "mails"},
        ),
        ("UPDATE products SET on_hand = on_hand + 1000, reserved = reserved + 1000", {"oversold", "books"}),
        ("UPDATE products SET on_hand = on_hand - 1 WHERE on_hand > reserved", {"books"}),
        ("DELETE FROM idempotency_records WHERE key LIKE 'buyer-%'", {"answers"}),
        ("UPDATE idempotency_records SET answer = 'another' WHERE key LIKE 'buyer-%'", {"answers"}),
        (f"DELETE FROM outbox_events WHERE {ITS_EVENT}", {"events"}),
        (f"UPDATE outbox_events SET aggregate = 'order:' || '{'0' * 32}' WHERE {ITS_EVENT}", {"events"}),
        (f"UPDATE outbox_events SET delivered_at = NULL WHERE {ITS_EVENT}", {"mails"}),
        (f"DELETE FROM outbox_events WHERE {ITS_MAIL}", {"mails"}),
    ],
)
def test_the_judge_finds_what_somebody_did(closed: Closed, tmp_path: Path, statement: str, problems: set[str]) -> None:
    assert closed.problems(tmp_path / "copy", statement) == problems


def test_the_judge_finds_what_a_refusal_left_behind(closed: Closed, tmp_path: Path) -> None:
    refused = min(closed.told.refused)
    kept = f"UPDATE idempotency_records SET key = '{refused}' WHERE key LIKE 'refill-%'"

    assert closed.problems(tmp_path / "copy", kept) == {"answers"}


def test_the_judge_finds_an_order_that_stands_for_two_keys(closed: Closed, tmp_path: Path) -> None:
    told = Told(**(vars(closed.told) | {"receipts": [*closed.told.receipts, closed.told.receipts[0]]}))
    twice = Closed(told, closed.database, closed.mails, closed.mails_before)

    assert "duplicate" in twice.problems(tmp_path / "copy")


def test_the_judge_finds_a_mail_that_did_not_go_out(closed: Closed, tmp_path: Path) -> None:
    elsewhere = Closed(closed.told, closed.database, tmp_path / "nowhere", closed.mails_before)

    assert elsewhere.problems(tmp_path / "copy") == {"mails"}

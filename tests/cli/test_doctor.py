"""`python -m src doctor`: what must be true of the tables is, and where it is not, it says so and names the row."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sqlalchemy import ColumnClause, column, delete, insert, table, text

from src.core.orders import services as orders
from src.core.orders.models import OrderStatus
from src.core.payments import services as payments
from src.core.payments.models import Payment, PaymentStatus
from src.core.products import services as products
from src.doctor import INVARIANTS
from src.outbox import services as outbox
from src.shared.types import new_id
from src.webhooks import services as webhooks
from src.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from tests.support.orders import EXPIRING, one_of_each_status
from tests.support.postgres import Kind
from tests.support.service import Place, own_place
from tests.support.tables import execute, execute_each

COVERED, LEDGER = (invariant.sentence for invariant in products.INVARIANTS)
RESERVED, TOTAL, HISTORY, LEDGER_OF_ORDER = (invariant.sentence for invariant in orders.INVARIANTS)
PAID, BACK_SOON, BACK, DECIDED = (invariant.sentence for invariant in payments.INVARIANTS)
WAITS, GIVEN_UP = (invariant.sentence for invariant in outbox.INVARIANTS)
(LEFT,) = (invariant.sentence for invariant in webhooks.INVARIANTS)
# In the order in which rows can be written that refer to each other.
TABLES = (
    *("products", "stock_movements", "orders", "order_lines", "order_events", "outbox_events"),
    *("webhook_endpoints", "webhook_deliveries", "payments"),
)


class Fault(NamedTuple):
    broken: set[str]
    """The sentences that are no longer true."""
    row: str
    """A SELECT of the id that is named."""
    statements: tuple[str, ...]


def order(status: OrderStatus) -> str:
    return f"SELECT id FROM orders WHERE status = '{status}'"


def reference(order_id: str) -> str:
    """That a movement was for this order; SQLite has ids without hyphens."""
    return f"replace(reference, '-', '') = 'order:' || replace(CAST(({order_id}) AS TEXT), '-', '')"


PLACED, FULFILLED, EXPIRED, RETURNED = (
    order(status) for status in (OrderStatus.PLACED, OrderStatus.FULFILLED, OrderStatus.EXPIRED, OrderStatus.RETURNED)
)
PRODUCT = "SELECT min(CAST(id AS TEXT)) FROM products"
IS_IT = f"CAST(id AS TEXT) = ({PRODUCT})"
OF_IT = f"CAST(product_id AS TEXT) = ({PRODUCT})"
EVENT = "SELECT id FROM outbox_events WHERE position = (SELECT min(position) FROM outbox_events)"
PAYMENT = "SELECT id FROM payments"
DELIVERY = "SELECT id FROM webhook_deliveries"
ON_SQLITE, ON_POSTGRES = "'now', '-11 minutes'", "now() - interval '11 minutes'"
LONG_SQLITE, LONG_POSTGRES = "'now', '-8 days'", "now() - interval '8 days'"
FAULTS = {
    "less on hand than reserved": Fault(
        {COVERED, LEDGER}, PRODUCT, (f"UPDATE products SET on_hand = reserved - 1 WHERE {IS_IT}",)
    ),
    "less than nothing reserved": Fault(
        {COVERED, LEDGER, RESERVED}, PRODUCT, (f"UPDATE products SET reserved = -1 WHERE {IS_IT}",)
    ),
    "stock that the ledger does not know": Fault(
        {LEDGER}, PRODUCT, (f"UPDATE products SET on_hand = on_hand + 1 WHERE {IS_IT}",)
    ),
    "a movement that was changed": Fault(
        {LEDGER}, PRODUCT, (f"UPDATE stock_movements SET quantity = quantity - 1 WHERE kind = 'initial' AND {OF_IT}",)
    ),
    "movements that are gone": Fault(
        {LEDGER, LEDGER_OF_ORDER}, PRODUCT, (f"DELETE FROM stock_movements WHERE {OF_IT}",)
    ),
    "reserved, and nobody waits for it": Fault(
        {RESERVED},
        PRODUCT,
        (
            f"UPDATE products SET reserved = reserved + 1 WHERE {IS_IT}",
            f"UPDATE stock_movements SET reserved = reserved + 1 WHERE kind = 'initial' AND {OF_IT}",
        ),
    ),
    "stock that an order gave back and waits for": Fault(
        {RESERVED, LEDGER_OF_ORDER, HISTORY}, EXPIRED, (f"UPDATE orders SET status = 'placed' WHERE id = ({EXPIRED})",)
    ),
    "a total that is not the sum": Fault(
        {TOTAL}, PLACED, (f"UPDATE orders SET total_minor = total_minor + 1 WHERE id = ({PLACED})",)
    ),
    "an order without lines": Fault({TOTAL}, RETURNED, (f"DELETE FROM order_lines WHERE order_id = ({RETURNED})",)),
    "a beginning that is gone": Fault(
        {HISTORY}, RETURNED, (f"DELETE FROM order_events WHERE version = 1 AND order_id = ({RETURNED})",)
    ),
    "no history at all": Fault({HISTORY}, PLACED, (f"DELETE FROM order_events WHERE order_id = ({PLACED})",)),
    "an end that is another": Fault(
        {HISTORY}, EXPIRED, (f"UPDATE orders SET status = 'cancelled' WHERE id = ({EXPIRED})",)
    ),
    "a version that nothing happened to": Fault(
        {HISTORY}, FULFILLED, (f"UPDATE orders SET version = version + 1 WHERE id = ({FULFILLED})",)
    ),
    "a reservation that is nobody's": Fault(
        {LEDGER_OF_ORDER},
        PLACED,
        (f"UPDATE stock_movements SET reference = '' WHERE {reference(PLACED)}",),
    ),
    "goods that never left": Fault(
        {LEDGER_OF_ORDER},
        FULFILLED,
        (f"UPDATE stock_movements SET reference = '' WHERE kind = 'fulfilment' AND {reference(FULFILLED)}",),
    ),
    "an event that waits": Fault(
        {WAITS},
        EVENT,
        (f"UPDATE outbox_events SET delivered_at = NULL, available_at = :moment WHERE id = ({EVENT})",),
    ),
    "an event that was given up": Fault(
        {GIVEN_UP}, EVENT, (f"UPDATE outbox_events SET delivered_at = NULL, dead_at = created_at WHERE id = ({EVENT})",)
    ),
    "a payment of another sum": Fault({PAID}, PAYMENT, ("UPDATE payments SET amount_minor = amount_minor + 1",)),
    "a payment that the order has not taken": Fault({PAID}, PAYMENT, (f"UPDATE payments SET order_id = ({EXPIRED})",)),
    "a payment that does not go back": Fault(
        {BACK_SOON},
        PAYMENT,
        (
            f"UPDATE orders SET updated_at = :moment WHERE id = ({RETURNED})",
            f"UPDATE payments SET order_id = ({RETURNED})",
            f"UPDATE payments SET amount_minor = (SELECT total_minor FROM orders WHERE id = ({RETURNED}))",
        ),
    ),
    "a refund that takes days": Fault(
        {BACK}, PAYMENT, ("UPDATE payments SET status = 'refunding', updated_at = :long_ago",)
    ),
    "a payment that nobody has heard of": Fault(
        {DECIDED}, PAYMENT, ("UPDATE payments SET status = 'pending', created_at = :long_ago",)
    ),
    "a delivery that was begun and left": Fault(
        {LEFT}, DELIVERY, ("UPDATE webhook_deliveries SET state = 'pending', leased_until = :moment",)
    ),
}
AT_THE_COMMAND = ("less than nothing reserved", "an order without lines", "an event that was given up")


@dataclass(frozen=True)
class Books:
    """Tables without their guards, whose owner may do anything."""

    place: Place
    tables: dict[str, list[dict[str, Any]]]  # Any: columns of any type

    @contextmanager
    def broken_by(self, fault: Fault) -> Iterator[str]:
        """The id of the row that is to be named."""
        url = self.place.database_url
        ((row,),) = execute(url, text(fault.row))
        unchecked = [text("PRAGMA ignore_check_constraints = ON")] if url.startswith("sqlite") else []
        moment = f"strftime('%Y-%m-%d %H:%M:%f000', {ON_SQLITE})" if url.startswith("sqlite") else ON_POSTGRES
        long_ago = f"strftime('%Y-%m-%d %H:%M:%f000', {LONG_SQLITE})" if url.startswith("sqlite") else LONG_POSTGRES
        statements = [text(each.replace(":moment", moment).replace(":long_ago", long_ago)) for each in fault.statements]
        execute_each(url, [*unchecked, *statements])
        try:
            yield str(row)
        finally:
            self.put_back()

    def put_back(self) -> None:
        written = []
        for name, rows in self.tables.items():
            columns: list[ColumnClause[Any]] = [column(each) for each in rows[0]]  # Any: as above
            written.append(insert(table(name, *columns)).values(rows))
        execute_each(self.place.database_url, [*(delete(table(name)) for name in reversed(TABLES)), *written])

    def judged(self) -> dict[str, set[str]]:
        """The sentences that are not true, and the ids of the rows."""
        found = execute_each(self.place.database_url, [invariant.query() for invariant in INVARIANTS])
        return {
            invariant.sentence: {str(row[0]) for row in rows}
            for invariant, rows in zip(INVARIANTS, found, strict=True)
            if rows
        }


@pytest.fixture(scope="module")
def books(database_kind: Kind) -> Iterator[Books]:
    with own_place(database_kind, **EXPIRING) as place:
        with place.service() as service:
            asyncio.run(one_of_each_status(place, service))
        _deliver_something(place.database_url)
        _pay_something(place.database_url)
        _take_guards_off(place.database_url)
        tables = {
            name: [dict(row._mapping) for row in execute(place.database_url, text(f"SELECT * FROM {name}"))]
            for name in TABLES
        }
        yield Books(place, tables)


def _deliver_something(url: str) -> None:
    owner = UUID(str(execute(url, text("SELECT id FROM users LIMIT 1"))[0][0]))
    endpoint = WebhookEndpoint(owner_id=owner, second_factor=False, url="https://receiver.example/", secret=b"")
    delivery = WebhookDelivery(
        endpoint_id=endpoint.id,
        event_id=new_id(),
        event_type="webhook.test",
        aggregate="webhook.test",
        body=b"{}",
        state=DeliveryState.DELIVERED,
    )
    execute(url, insert(WebhookEndpoint).values(endpoint.model_dump()))
    execute(url, insert(WebhookDelivery).values(delivery.model_dump(exclude={"position"})))


def _pay_something(url: str) -> None:
    told = text(f"SELECT id, customer_id, total_minor, currency FROM orders WHERE id = ({FULFILLED})")
    paid = execute(url, told)[0]._mapping
    payment = Payment(
        order_id=UUID(str(paid["id"])),
        payer_id=UUID(str(paid["customer_id"])),
        intent="",
        fingerprint="",
        status=PaymentStatus.SUCCEEDED,
        amount_minor=paid["total_minor"],
        currency=paid["currency"],
    )
    execute(url, insert(Payment).values(payment.model_dump()))


def _take_guards_off(url: str) -> None:
    if url.startswith("sqlite"):
        for deed in ("update", "delete"):
            execute(url, text(f"DROP TRIGGER stock_movements_no_{deed}"))
        return
    execute(url, text("DROP TRIGGER stock_movements_append_only ON stock_movements"))
    for check in ("reserved_not_negative", "on_hand_covers_reserved"):
        execute(url, text(f"ALTER TABLE products DROP CONSTRAINT ck_products_{check}"))


def test_books_that_nobody_touched_are_in_order(books: Books) -> None:
    code, said = books.place.run("doctor")

    assert code == 0, said
    assert said.splitlines() == [f"ok      {invariant.sentence}" for invariant in INVARIANTS]


@pytest.mark.parametrize("how", FAULTS)
def test_what_is_broken_is_found_and_nothing_else(books: Books, how: str) -> None:
    with books.broken_by(FAULTS[how]) as row:
        judged = books.judged()

    assert judged.keys() == FAULTS[how].broken
    assert row in set().union(*judged.values())
    assert books.judged() == {}


@pytest.mark.parametrize("how", AT_THE_COMMAND)
def test_the_command_names_the_sentence_and_the_row(books: Books, how: str) -> None:
    with books.broken_by(FAULTS[how]) as row:
        code, said = books.place.run("doctor")

    assert code == 1
    lines = said.splitlines()
    assert (
        f"Not true: {'; '.join(each.sentence for each in INVARIANTS if each.sentence in FAULTS[how].broken)}" in lines
    )
    for invariant in INVARIANTS:
        broken = invariant.sentence in FAULTS[how].broken
        at = lines.index(f"{'BROKEN' if broken else 'ok':8}{invariant.sentence}")
        assert lines[at + 1].startswith(f"        id={row}, ") == broken


def test_of_many_rows_the_first_are_shown_and_the_rest_is_counted(books: Books) -> None:
    every = Fault({GIVEN_UP}, EVENT, ("UPDATE outbox_events SET dead_at = created_at, delivered_at = NULL",))
    many = len(books.tables["outbox_events"])
    assert many > 20

    with books.broken_by(every):
        code, said = books.place.run("doctor")

    assert code == 1
    assert said.count("id=") == 20
    assert f"        and {many - 20} more\n" in said


def test_each_sentence_has_a_fault_that_breaks_it() -> None:
    assert {invariant.sentence for invariant in INVARIANTS} == set().union(*(fault.broken for fault in FAULTS.values()))


def test_tables_that_take_long_to_read_are_read(database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("it has no deadline for a statement")
    with own_place(database_kind) as place:
        slow = "CREATE VIEW outbox_events AS SELECT kept.* FROM kept RIGHT JOIN (SELECT pg_sleep(1.5)) AS nap ON true"
        execute_each(place.database_url, [text("ALTER TABLE outbox_events RENAME TO kept"), text(slow)])

        code, said = place.run("doctor", DB__STATEMENT_TIMEOUT_SECONDS="0.2")

    assert code == 0, said

"""What many do at once, and what must be true of it afterwards.

The races run each of them against the service; test_planted_bugs.py runs them against services with a bug, where they
must fail.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import Executable, func, make_url, select, text, update
from sqlmodel import col

from src.core.orders.models import Order, OrderEvent
from src.core.products.models import StockMovement
from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import data_of, refused
from tests.support.invariants import check_books
from tests.support.service import ADMIN
from tests.support.tables import execute_each

ORDERS = "/api/v1/orders"
PRODUCTS = "/api/v1/products"
CONNECTIONS = 32

Basket = Sequence[tuple[str, int]]
"""(product id, quantity) for each line."""


@dataclass(frozen=True)
class Shop:
    """Services on one database, and people who call them."""

    urls: Sequence[str]
    database_url: str
    staff: str
    """An Authorization header, as those of the buyers."""
    buyers: Sequence[str]


@dataclass(frozen=True)
class Call:
    who: str
    path: str
    body: object = None
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": self.who, "Idempotency-Key": self.key}


def open_shop(urls: Sequence[str], database_url: str, *, admin: str = ADMIN, buyers: int = 4) -> Shop:
    with httpx2.Client(base_url=urls[0], timeout=30, verify=False) as client:

        def log_in(email: str) -> str:
            letter = {"email": email, "password": PASSWORD}
            return f"Bearer {data_of(client.post('/api/v1/auth/login', json=letter))['access_token']}"

        def join() -> str:
            email = f"{uuid4().hex}@example.com"
            data_of(client.post("/api/v1/auth/register", json={"email": email, "password": PASSWORD}), 201)
            return log_in(email)

        return Shop(urls, database_url, log_in(admin), [join() for _ in range(buyers)])


# --- Calling


def at_once(shop: Shop, calls: Iterable[Call]) -> list[httpx2.Response]:
    """Their answers, in order; each has a connection of its own."""
    waiting = list(calls)
    return ask(shop, waiting, connections=len(waiting))


def ask(shop: Shop, calls: Sequence[Call], *, connections: int = CONNECTIONS) -> list[httpx2.Response]:
    """Their answers, in order; so many are under way at a time, over connections that stay open."""

    async def run() -> list[httpx2.Response]:
        answers: dict[int, httpx2.Response] = {}
        queue = iter(enumerate(calls))
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)

        async with AsyncExitStack() as stack:
            opened = [
                await stack.enter_async_context(
                    httpx2.AsyncClient(base_url=url, timeout=60, limits=limits, verify=False)
                )
                for url in shop.urls
            ]

            async def work(client: httpx2.AsyncClient) -> None:
                for number, call in queue:
                    answers[number] = await client.post(call.path, json=call.body, headers=call.headers)

            await asyncio.gather(*(work(client) for client, _ in zip(cycle(opened), range(connections), strict=False)))
        return [answers[number] for number in range(len(calls))]

    # A test may have an event loop running.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


@contextmanager
def staff_client(shop: Shop) -> Iterator[httpx2.Client]:
    headers = {"Authorization": shop.staff}
    with httpx2.Client(base_url=shop.urls[0], timeout=30, verify=False, headers=headers) as client:
        yield client


def make_product(shop: Shop, stock: int, *, price_minor: int = 100) -> str:
    letter = {"sku": f"RACE-{uuid4().hex}", "name": "Race", "price_minor": price_minor, "currency": "EUR"}
    with staff_client(shop) as staff:
        return str(data_of(staff.post(PRODUCTS, json=letter | {"stock": stock}), 201)["id"])


def stock_of(shop: Shop, *products: str) -> list[int]:
    with staff_client(shop) as staff:
        return [data_of(staff.get(f"{PRODUCTS}/{product}"))["stock"] for product in products]


def place(who: str, *basket: tuple[str, int]) -> Call:
    items = [{"product_id": product, "quantity": quantity} for product, quantity in basket]
    return Call(who, ORDERS, {"items": items})


def step(who: str, order: str, name: str) -> Call:
    """`name` is pay, fulfil, return or cancel."""
    return Call(who, f"{ORDERS}/{order}/{name}")


def placed(shop: Shop, calls: Sequence[Call]) -> list[str]:
    """The ids of orders that all went through."""
    return [data_of(answer, 201)["id"] for answer in ask(shop, calls)]


def outcomes(answers: Iterable[httpx2.Response]) -> Counter[int]:
    """By the code in the envelope: the status of a success, the error code of a refusal."""
    return Counter(answer.json()["code"] for answer in answers)


# --- Looking

Rows = Mapping[Any, list[str]]  # Any: what they are grouped by
_IN_THE_LEDGER = {
    "placed": "reservation",
    "cancelled": "release",
    "expired": "release",
    "fulfilled": "fulfilment",
    "returned": "return",
}


def check_traces(shop: Shop, histories: Mapping[str, Sequence[str]]) -> None:
    """Each of these orders has these statuses behind it, in its history, in the outbox and in the ledger; and neither
    outbox nor ledger speaks of an order that does not exist."""
    orders, events, published, ledger = _read(
        shop,
        [
            select(col(Order.id)),
            select(col(OrderEvent.order_id), col(OrderEvent.status)).order_by(col(OrderEvent.version)),
            select(col(OutboxEvent.aggregate), col(OutboxEvent.kind))
            .where(col(OutboxEvent.aggregate).startswith("order:"))
            .order_by(col(OutboxEvent.position)),
            select(col(StockMovement.reference), col(StockMovement.product_id), col(StockMovement.kind))
            .where(col(StockMovement.reference) != "")
            .order_by(col(StockMovement.created_at), col(StockMovement.id)),
        ],
    )
    history = _grouped((str(order_id), status.value) for order_id, status in events)
    told = _grouped((aggregate, kind.removeprefix("order.")) for aggregate, kind in published)
    moved = _grouped(((reference, product_id), kind.value) for reference, product_id, kind in ledger)
    for order_id, statuses in histories.items():
        assert history.get(order_id) == list(statuses), order_id
        assert told.get(f"order:{order_id}") == list(statuses), order_id
        lines = [kinds for (reference, _), kinds in moved.items() if reference == f"order:{order_id}"]
        expected = [_IN_THE_LEDGER[status] for status in statuses if status in _IN_THE_LEDGER]
        assert lines, order_id
        assert all(kinds == expected for kinds in lines), (order_id, lines)
    there = {f"order:{order_id}" for (order_id,) in orders}
    assert told.keys() - there == set()
    assert {reference for reference, _ in moved} - there == set()


def _read(shop: Shop, queries: Sequence[Executable]) -> list[list[tuple[Any, ...]]]:  # Any: columns of any type
    return [[tuple(row) for row in rows] for rows in execute_each(shop.database_url, queries)]


def _grouped(rows: Iterable[tuple[Any, str]]) -> Rows:  # Any: as above
    groups: defaultdict[Any, list[str]] = defaultdict(list)  # Any: as above
    for key, value in rows:
        groups[key].append(value)
    return groups


def status_of(shop: Shop, orders: Sequence[str]) -> list[str]:
    with staff_client(shop) as staff:
        return [data_of(staff.get(f"{ORDERS}/{order}"))["status"] for order in orders]


# --- Scenarios


def sell_out(shop: Shop, *, buyers: int = 200, units: int = 50) -> None:
    """More buyers than units: each unit is sold once, and who was refused left nothing."""
    product = make_product(shop, stock=units)
    who = cycle(shop.buyers)

    answers = at_once(shop, [place(next(who), (product, 1)) for _ in range(buyers)])

    found = outcomes(answers)
    assert found == {201: units, ErrorCode.PRODUCT_OUT_OF_STOCK: buyers - units}, f"not one order a unit: {found}"
    assert stock_of(shop, product) == [0]
    orders = {data_of(answer, 201)["id"] for answer in answers if answer.status_code == 201}
    assert len(orders) == units
    check_traces(shop, {order: ["placed"] for order in orders})
    entries = select(func.count()).where(col(StockMovement.product_id) == UUID(product))
    assert _count(shop, entries.where(col(StockMovement.reserved) == 1)) == units
    assert _count(shop, entries) == units + 1
    check_books(shop.database_url)


def _count(shop: Shop, query: Any) -> int:  # Any: a select() of one number
    return int(execute_each(shop.database_url, [query])[0][0][0])


def cross_baskets(shop: Shop, *, rounds: int, seed: int = 1) -> None:
    """Baskets with the same goods in all orders: no deadlock surfaces, and the last unit of each is sold once."""
    chance = random.Random(seed)
    goods = [make_product(shop, stock=rounds) for _ in range(6)]
    # Some become scarce on the way.
    goods += [make_product(shop, stock=rounds // 8) for _ in range(2)]
    baskets = [
        [(product, chance.randint(1, 2)) for product in chance.sample(goods, chance.randint(2, 5))]
        for _ in range(rounds)
    ]

    answers = ask(shop, [place(chance.choice(shop.buyers), *basket) for basket in baskets])

    found = outcomes(answers)
    assert found.keys() == {201, ErrorCode.PRODUCT_OUT_OF_STOCK}, found
    sold: Counter[str] = Counter()
    for basket, answer in zip(baskets, answers, strict=True):
        if answer.status_code == 201:
            sold.update(dict(basket))
    for product, left in zip(goods, stock_of(shop, *goods), strict=True):
        stock = rounds if product in goods[:6] else rounds // 8
        assert left == stock - sold[product]
    check_traces(shop, {data_of(answer, 201)["id"]: ["placed"] for answer in answers if answer.status_code == 201})
    check_books(shop.database_url)


def retry_one_order(shop: Shop, *, times: int = 50) -> None:
    """The same letter with one key, many times at once: one order, and everybody has the one answer."""
    product = make_product(shop, stock=10)
    call = place(shop.buyers[0], (product, 2))

    order = _insist(shop, call, 201, times)

    assert stock_of(shop, product) == [8]
    check_traces(shop, {order: ["placed"]})
    check_books(shop.database_url)


def retry_one_step(shop: Shop, *, times: int = 50) -> None:
    """The same for a step of an order."""
    product = make_product(shop, stock=10)
    (order,) = placed(shop, [place(shop.buyers[0], (product, 2))])

    for name in ("pay", "fulfil", "return"):
        _insist(shop, step(shop.staff, order, name), 200, times)

    assert stock_of(shop, product) == [10]
    check_traces(shop, {order: ["placed", "paid", "fulfilled", "returned"]})
    check_books(shop.database_url)


def _insist(shop: Shop, call: Call, status: int, times: int) -> str:
    """Who is asked to retry does, as a client does; the id of the order that all were told of."""
    answers: list[httpx2.Response] = []
    calls = [call] * times
    while calls:
        told = at_once(shop, calls)
        for answer in told:
            if answer.status_code not in (status, 503):  # when all connections wait for the first one
                refused(answer, ErrorCode.IDEMPOTENCY_IN_PROGRESS)
        answers += [answer for answer in told if answer.status_code == status]
        calls = [call] * (times - len(answers))
    assert {answer.content for answer in answers} == {answers[0].content}
    replayed = Counter("Idempotency-Replayed" in answer.headers for answer in answers)
    assert replayed == {False: 1, True: times - 1}
    return str(data_of(answers[0], status)["id"])


def cancel_and_fulfil(shop: Shop, *, rounds: int, seed: int = 2) -> Counter[str]:
    """A buyer calls off what staff are about to ship: one of them wins. How often which."""
    product = make_product(shop, stock=rounds * 2)
    buyer = shop.buyers[0]
    orders = placed(shop, [place(buyer, (product, 2)) for _ in range(rounds)])
    for answer in ask(shop, [step(shop.staff, order, "pay") for order in orders]):
        data_of(answer)

    won = _race(
        shop,
        {
            order: {"cancelled": step(buyer, order, "cancel"), "fulfilled": step(shop.staff, order, "fulfil")}
            for order in orders
        },
        seed,
    )

    ended = Counter(won.values())
    assert stock_of(shop, product) == [ended["cancelled"] * 2]
    check_traces(shop, {order: ["placed", "paid", status] for order, status in won.items()})
    check_books(shop.database_url)
    return ended


def pay_and_cancel(shop: Shop, *, rounds: int, seed: int = 3) -> None:
    """Both may win, the payment then before the cancel; never the other way round."""
    product = make_product(shop, stock=rounds)
    orders = placed(shop, [place(shop.buyers[0], (product, 1)) for _ in range(rounds)])
    calls = [step(shop.staff, order, name) for order in orders for name in ("pay", "cancel")]
    random.Random(seed).shuffle(calls)

    answers = dict(zip([call.path for call in calls], at_once(shop, calls), strict=True))

    histories = {}
    for order in orders:
        assert answers[f"{ORDERS}/{order}/cancel"].status_code == 200
        paid = answers[f"{ORDERS}/{order}/pay"]
        if paid.status_code != 200:
            assert refused(paid, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)["status"] == "cancelled"
        histories[order] = ["placed", *(["paid"] if paid.status_code == 200 else []), "cancelled"]
    assert stock_of(shop, product) == [rounds]
    check_traces(shop, histories)
    check_books(shop.database_url)


def _race(shop: Shop, contenders: Mapping[str, Mapping[str, Call]], seed: int) -> dict[str, str]:
    """Of each order, the status that won; the other one was refused because of it."""
    orders, chance = list(contenders), random.Random(seed)
    calls: list[tuple[str, str, Call]] = []
    for order, ways in contenders.items():
        # Side by side, now this one first and now the other, and few at a time: they meet, and both kinds win.
        pair = [(order, status, call) for status, call in ways.items()]
        calls += chance.sample(pair, len(pair))
    answers = ask(shop, [call for *_, call in calls], connections=8)
    won: dict[str, str] = {}
    lost: dict[str, httpx2.Response] = {}
    for (order, status, _), answer in zip(calls, answers, strict=True):
        if answer.status_code == 200:
            assert won.setdefault(order, status) == status, "both won"
        else:
            lost[order] = answer
    assert won.keys() == lost.keys() == set(orders)
    for order, answer in lost.items():
        code = answer.json()["code"]
        assert code == ErrorCode.ORDER_TRANSITION_NOT_ALLOWED, f"not refused because of the other: {answer.text}"
        assert answer.json()["data"]["status"] == won[order]
    assert status_of(shop, orders) == [won[order] for order in orders]
    return won


def pay_and_expire(shop: Shop, *, rounds: int) -> Counter[str]:
    """Orders are paid in the moment in which they expire: one of both happens. How often which.

    The sweep begins with the first of them and who pays with the last: they meet on the way.
    """
    product = make_product(shop, stock=rounds * 2)
    orders = placed(shop, [place(shop.buyers[0], (product, 2)) for _ in range(rounds)])

    make_overdue(shop, orders)
    answers = ask(shop, [step(shop.staff, order, "pay") for order in reversed(orders)], connections=4)

    won = {}
    for order, answer in zip(reversed(orders), answers, strict=True):
        if answer.status_code != 200:
            told = refused(answer, ErrorCode.ORDER_TRANSITION_NOT_ALLOWED)
            assert told == {"status": "expired", "allowed": []}
        won[order] = "paid" if answer.status_code == 200 else "expired"
    assert status_of(shop, orders) == [won[order] for order in orders]
    ended = Counter(won.values())
    assert stock_of(shop, product) == [ended["expired"] * 2]
    check_traces(shop, {order: ["placed", status] for order, status in won.items()})
    check_books(shop.database_url)
    return ended


def make_overdue(shop: Shop, orders: Iterable[str]) -> None:
    """As of now, the first of them the longest."""
    now = datetime.now(UTC)
    many = list(orders)
    execute_each(
        shop.database_url,
        [
            update(Order)
            .where(col(Order.id) == UUID(order))
            .values(expires_at=now - timedelta(milliseconds=len(many) - number))
            for number, order in enumerate(many)
        ],
    )


def cancel_and_place(shop: Shop, *, rounds: int, seed: int = 4) -> None:
    """What is given back can be sold at once, and not before."""
    goods = [make_product(shop, stock=1) for _ in range(rounds)]
    one, other = shop.buyers[:2]
    held = placed(shop, [place(one, (product, 1)) for product in goods])
    calls = [step(one, order, "cancel") for order in held] + [place(other, (product, 1)) for product in goods]
    order_of_calls = list(range(len(calls)))
    random.Random(seed).shuffle(order_of_calls)

    told = dict(zip(order_of_calls, at_once(shop, [calls[number] for number in order_of_calls]), strict=True))

    histories: dict[str, Sequence[str]] = {}
    stock = []
    for number, order in enumerate(held):
        assert data_of(told[number])["status"] == "cancelled"
        histories[order] = ["placed", "cancelled"]
        bought = told[number + rounds]
        if bought.status_code == 201:
            histories[data_of(bought, 201)["id"]] = ["placed"]
        else:
            refused(bought, ErrorCode.PRODUCT_OUT_OF_STOCK)
        stock.append(0 if bought.status_code == 201 else 1)
    assert stock_of(shop, *goods) == stock
    check_traces(shop, histories)
    check_books(shop.database_url)


# --- A COMMIT that fails

DOOMED_TO_PLACE, DOOMED_TO_MOVE = 666, 667
"""The price of a product of which an order of one is never committed, or is and can then not be moved."""
_DOOM = {
    "postgresql": [
        """CREATE FUNCTION refuse_at_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$""",
        *(
            f"CREATE CONSTRAINT TRIGGER doomed_{deed.lower()} AFTER {deed} ON orders DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW WHEN (NEW.total_minor = {total}) EXECUTE FUNCTION refuse_at_commit()"
            for deed, total in (("INSERT", DOOMED_TO_PLACE), ("UPDATE", DOOMED_TO_MOVE))
        ),
    ],
    "sqlite": [
        "CREATE TABLE nobody (id TEXT PRIMARY KEY)",
        "CREATE TABLE doomed (id TEXT REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED)",
        *(
            f"CREATE TRIGGER doomed_{deed.lower()} AFTER {deed} ON orders WHEN NEW.total_minor = {total} "
            "BEGIN INSERT INTO doomed VALUES (NEW.id); END"
            for deed, total in (("INSERT", DOOMED_TO_PLACE), ("UPDATE", DOOMED_TO_MOVE))
        ),
    ],
}
_LIFT = {
    "postgresql": ["DROP TRIGGER doomed_insert ON orders", "DROP TRIGGER doomed_update ON orders"],
    "sqlite": ["DROP TRIGGER doomed_insert", "DROP TRIGGER doomed_update"],
}


def doom(database_url: str) -> None:
    """From now on a constraint that is looked at by COMMIT, and not before, refuses some orders."""
    execute_each(database_url, [text(each) for each in _DOOM[make_url(database_url).get_backend_name()]])


def lift_doom(database_url: str) -> None:
    execute_each(database_url, [text(each) for each in _LIFT[make_url(database_url).get_backend_name()]])


def everything(shop: Shop) -> dict[str, int]:
    """How many rows there are of what an order writes."""
    tables = ("orders", "order_lines", "order_events", "stock_movements", "outbox_events", "idempotency_records")
    counted = _read(shop, [text(f"SELECT count(*) FROM {table}") for table in (*tables, "audit_entries")])
    return {table: rows[0][0] for table, rows in zip((*tables, "audit_entries"), counted, strict=True)}


def lose_an_order(shop: Shop) -> Call:
    """COMMIT fails when all was written and the answer was made: the client is told so, and nothing is there. For a
    database that is doomed, and a service that delivers nothing meanwhile."""
    product = make_product(shop, stock=10, price_minor=DOOMED_TO_PLACE)
    before, call = everything(shop), place(shop.buyers[0], (product, 1))

    (answer,) = at_once(shop, [call])

    assert answer.status_code == 500, f"told {answer.status_code} of what was not committed"
    assert answer.json()["code"] == ErrorCode.INTERNAL_ERROR
    after = everything(shop)
    assert after == before, f"something is left: {after} instead of {before}"
    assert stock_of(shop, product) == [10]
    check_traces(shop, {})
    check_books(shop.database_url)
    return call


def lose_a_step(shop: Shop) -> Call:
    """The same for a step of an order that is there."""
    product = make_product(shop, stock=10, price_minor=DOOMED_TO_MOVE)
    (order,) = placed(shop, [place(shop.buyers[0], (product, 1))])
    before, call = everything(shop), step(shop.staff, order, "cancel")

    (answer,) = at_once(shop, [call])

    assert answer.status_code == 500, f"told {answer.status_code} of what was not committed"
    after = everything(shop)
    assert after == before, f"something is left: {after} instead of {before}"
    assert (status_of(shop, [order]), stock_of(shop, product)) == (["placed"], [9])
    check_traces(shop, {order: ["placed"]})
    check_books(shop.database_url)
    return call

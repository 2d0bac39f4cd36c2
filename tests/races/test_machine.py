"""Any sequence of what can be done with orders: a model in a few lines of Python foretells each answer."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from src.shared.errors import ErrorCode
from tests.races.scenarios import (
    ORDERS,
    PRODUCTS,
    Call,
    Shop,
    check_traces,
    make_overdue,
    make_product,
    open_shop,
    place,
    step,
)
from tests.support.answers import data_of, refused
from tests.support.invariants import check_books
from tests.support.postgres import Kind
from tests.support.scale import rounds
from tests.support.service import Place, own_place

STOCK, PRICES = 12, (100, 250, 3)
LONG_RUN = rounds(0, full=1) == 1
EXAMPLES, STEPS = (30, 40) if LONG_RUN else (10, 30)
PARTS = rounds(1, full=4)  # a minute each
NEXT = {
    "placed": {"paid", "cancelled", "expired"},
    "paid": {"fulfilled", "cancelled"},
    "fulfilled": {"returned"},
    "cancelled": set[str](),
    "expired": set[str](),
    "returned": set[str](),
}
NAMES = {"pay": "paid", "fulfil": "fulfilled", "return": "returned", "cancel": "cancelled"}
LINES = st.lists(st.tuples(st.integers(0, len(PRICES) - 1), st.integers(1, 4)), min_size=1, max_size=3)


def soon(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not condition():
        assert monotonic() < deadline


@dataclass
class ModelOrder:
    basket: Counter[int]
    """Quantity by the number of the product."""
    history: list[str] = field(default_factory=lambda: ["placed"])

    @property
    def status(self) -> str:
        return self.history[-1]


@dataclass(frozen=True)
class Expected:
    """What the model foretells of a call."""

    code: int
    data: object = None
    apply: Callable[[Any], None] = lambda _: None  # Any: JSON of the answer


@dataclass(frozen=True)
class Attempt:
    call: Call
    foretell: Callable[[], Expected]


class OrdersMachine(RuleBasedStateMachine):
    orders = Bundle("orders")

    def __init__(self, shop: Shop, client: httpx2.Client) -> None:
        super().__init__()
        self.shop, self.client = shop, client
        self.buyer = shop.buyers[0]
        # In id order, as shortages are listed.
        self.products = [make_product(shop, stock=STOCK, price_minor=price) for price in PRICES]
        self.on_hand, self.reserved = [STOCK] * len(PRICES), [0] * len(PRICES)
        self.model: dict[str, ModelOrder] = {}
        self.attempts: list[Attempt] = []
        self.answers: dict[str, bytes] = {}

    # What is done

    @rule(target=orders, lines=LINES)
    def place(self, lines: list[tuple[int, int]]) -> Any:  # Any: what a rule puts into its bundle
        basket: Counter[int] = Counter()
        for product, quantity in lines:
            basket[product] += quantity
        call = place(self.buyer, *((self.products[product], quantity) for product, quantity in lines))
        known = set(self.model)
        self.attempt(Attempt(call, lambda: self.foretell_placing(basket)))
        return multiple(*(self.model.keys() - known))

    @rule(order=orders, name=st.sampled_from(sorted(NAMES)))
    def move(self, order: str, name: str) -> None:
        self.attempt(Attempt(step(self.shop.staff, order, name), lambda: self.foretell_step(order, NAMES[name])))

    @rule(order=orders)
    def go_on(self, order: str) -> None:
        """The next step of those that end well: by chance alone few orders would get there."""
        status = self.model[order].status
        name = {"placed": "pay", "paid": "fulfil", "fulfilled": "return"}.get(status, "pay")
        self.attempt(Attempt(step(self.shop.staff, order, name), lambda: self.foretell_step(order, NAMES[name])))

    @rule(order=orders)
    def call_off(self, order: str) -> None:
        self.attempt(Attempt(step(self.buyer, order, "cancel"), lambda: self.foretell_step(order, "cancelled")))

    @rule(order=orders)
    def let_expire(self, order: str) -> None:
        """Nobody pays in time; what was paid or is over already stays what it is."""
        make_overdue(self.shop, [order])
        if self.model[order].status == "placed":
            soon(lambda: self.shown(order)["status"] == "expired")
            self.apply_step(order, "expired")

    @rule(product=st.integers(0, len(PRICES) - 1), delta=st.integers(-STOCK, STOCK // 2))
    def adjust(self, product: int, delta: int) -> None:
        path = f"{PRODUCTS}/{self.products[product]}/stock"
        call = Call(self.shop.staff, path, {"delta": delta, "reason": "counted"})
        self.attempt(Attempt(call, lambda: self.foretell_adjustment(product, delta)))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """With its key: what was answered is answered again, what was refused is judged anew."""
        self.attempt(self.attempts[data.draw(st.integers(0, len(self.attempts) - 1))])

    # What the model foretells

    def foretell_placing(self, basket: Counter[int]) -> Expected:
        short = [
            {"requested": quantity, "available": self.available(product)}
            for product, quantity in sorted(basket.items())
            if quantity > self.available(product)
        ]
        if short:
            return Expected(ErrorCode.PRODUCT_OUT_OF_STOCK, short)

        def apply(letter: Any) -> None:  # Any: JSON
            assert letter["total_minor"] == sum(PRICES[product] * quantity for product, quantity in basket.items())
            self.model[letter["id"]] = ModelOrder(basket)
            for product, quantity in basket.items():
                self.reserved[product] += quantity

        return Expected(201, ("placed", 1), apply)

    def foretell_step(self, order: str, status: str) -> Expected:
        now = self.model[order]
        if status not in NEXT[now.status]:
            told = {"status": now.status, "allowed": sorted(NEXT[now.status])}
            return Expected(ErrorCode.ORDER_TRANSITION_NOT_ALLOWED, told)
        return Expected(200, (status, len(now.history) + 1), lambda _: self.apply_step(order, status))

    def apply_step(self, order: str, status: str) -> None:
        self.model[order].history.append(status)
        for product, quantity in self.model[order].basket.items():
            if status in ("cancelled", "expired", "fulfilled"):
                self.reserved[product] -= quantity
            if status in ("fulfilled", "returned"):
                self.on_hand[product] += quantity if status == "returned" else -quantity

    def foretell_adjustment(self, product: int, delta: int) -> Expected:
        left = self.available(product) + delta
        if left < 0:
            return Expected(ErrorCode.STOCK_OUT_OF_RANGE, self.available(product))

        def apply(letter: Any) -> None:  # Any: JSON
            self.on_hand[product] += delta
            assert letter["stock"] == left

        return Expected(200, None, apply)

    def available(self, product: int) -> int:
        return self.on_hand[product] - self.reserved[product]

    # What is answered

    def attempt(self, attempt: Attempt) -> None:
        call = attempt.call
        answer = self.client.post(call.path, json=call.body, headers=call.headers)
        if call.key in self.answers:
            assert answer.content == self.answers[call.key]
            assert answer.headers["Idempotency-Replayed"] == "true"
            return
        expected = attempt.foretell()
        if call.key not in {each.call.key for each in self.attempts}:
            self.attempts.append(attempt)
        if expected.code not in (200, 201):
            self.check_refusal(refused(answer, ErrorCode(expected.code)), expected)
            return
        letter = data_of(answer, expected.code)
        assert "Idempotency-Replayed" not in answer.headers
        if expected.data is not None:
            assert (letter["status"], letter["version"]) == expected.data
        expected.apply(letter)
        self.answers[call.key] = answer.content

    @staticmethod
    def check_refusal(told: Any, expected: Expected) -> None:  # Any: JSON
        if expected.code == ErrorCode.PRODUCT_OUT_OF_STOCK:
            told = [{name: item[name] for name in ("requested", "available")} for item in told["items"]]
        elif expected.code == ErrorCode.STOCK_OUT_OF_RANGE:
            told = told["available"]
        assert told == expected.data

    def shown(self, order: str) -> Any:  # Any: JSON
        return data_of(self.client.get(f"{ORDERS}/{order}", headers={"Authorization": self.buyer}))

    # What is always true

    @invariant()
    def the_stock_is_what_the_model_says(self) -> None:
        shown = [data_of(self.client.get(f"{PRODUCTS}/{product}"))["stock"] for product in self.products]
        assert shown == [self.available(product) for product in range(len(PRICES))]

    @invariant()
    def the_books_are_straight(self) -> None:
        check_books(self.shop.database_url)

    def teardown(self) -> None:
        for order, known in self.model.items():
            letter = self.shown(order)
            assert (letter["status"], letter["version"]) == (known.status, len(known.history))
        check_traces(self.shop, {order: known.history for order, known in self.model.items()})


@pytest.fixture(scope="module")
def home(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, ORDERS__EXPIRY_CHECK_SECONDS="0.01") as place:
        yield place


@pytest.fixture(scope="module")
def database_url(home: Place) -> str:
    return home.database_url


@pytest.fixture(scope="module")
def shop(home: Place) -> Iterator[Shop]:
    with home.service() as service:
        yield open_shop([service.server.url], home.database_url, buyers=1)


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_done_in_whatever_order_is_answered_as_foretold(shop: Shop, part: int) -> None:
    with httpx2.Client(base_url=shop.urls[0], timeout=30, verify=False) as client:
        run_state_machine_as_test(
            lambda: OrdersMachine(shop, client),  # type: ignore[arg-type] # a factory, as its documentation has it
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,  # a step asks a server
                # The same sequences each time; new ones in the long run.
                derandomize=not LONG_RUN,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],  # as above
            ),
        )

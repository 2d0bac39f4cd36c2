"""A small steady load while something is wrong, and what must be true of each of its answers."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Condition, Event
from time import monotonic
from uuid import uuid4

import httpx2

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import bearer

PAUSE_SECONDS = 0.02
GIVEN_UP_SECONDS = 20
"""Whoever has no answer by then has none."""
_OUT_OF_ORDER_SECONDS = 1
"""Between hearing an answer and noting it, others may be noted."""
_REPEATABLE = {ErrorCode.IDEMPOTENCY_IN_PROGRESS}
"""What is no success and right all the same, with a time to come again."""


@dataclass(frozen=True, slots=True)
class Answer:
    kind: str
    asked: float
    """By the monotonic clock."""
    heard: float
    status: int
    """0: there was none."""
    code: int
    retry_after: bool
    text: str
    """The beginning of the body, or what the connection died of."""

    @property
    def seconds(self) -> float:
        return self.heard - self.asked

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def unavailable(self) -> bool:
        """A coded refusal that says when to come again."""
        coded = self.status == 503 and self.code >= 10_000
        return self.retry_after and (coded or self.code in _REPEATABLE)

    def __str__(self) -> str:
        return f"{self.kind}: {self.status or 'no answer'} after {self.seconds:.2f} s: {self.text[:100]}"


@dataclass(frozen=True, slots=True)
class Bounds:
    deadline_seconds: float
    """Nobody waits longer, whatever happens: the request's own and a margin."""
    recovery_seconds: float
    """From the repair to the first success of each kind, and to the last request that was refused."""
    unseen_seconds: float
    """What an answer may take beyond the slowest one of a calm time, while the cache is in trouble."""


@dataclass
class Account:
    """All that was ever asked and answered."""

    answers: list[Answer] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    """Orders that were acknowledged, by their key."""
    unsettled: set[str] = field(default_factory=set)
    """Keys without a definite answer yet."""
    changed: Condition = field(default_factory=Condition)

    def add(self, answer: Answer) -> None:
        with self.changed:
            self.answers.append(answer)
            self.changed.notify_all()

    def heard_since(self, moment: float) -> list[Answer]:
        """Oldest first. They come about in the order in which they were heard, so the earlier ones are not looked at: who
        does while others are timed makes them wait."""
        recent = list(takewhile(lambda answer: answer.heard >= moment - _OUT_OF_ORDER_SECONDS, reversed(self.answers)))
        return [answer for answer in reversed(recent) if answer.heard >= moment]


Ask = Callable[[httpx2.Client], httpx2.Response]
Asks = Mapping[str, Callable[[], Ask]]
"""By kind: one for each caller."""


class Caller:
    """Asks for one thing again and again, over one connection for as long as that lasts."""

    def __init__(self, url: str, account: Account, kind: str, ask: Ask) -> None:
        self.kind, self._ask, self._account = kind, ask, account
        self.client = httpx2.Client(base_url=url, timeout=GIVEN_UP_SECONDS, verify=False)

    def run(self, closing: Event) -> None:
        with self.client:
            while not closing.is_set():
                self.once()
                closing.wait(PAUSE_SECONDS)

    def once(self) -> Answer:
        asked = monotonic()
        try:
            answer = self._note(asked, self._ask(self.client))
        except httpx2.TransportError as error:
            answer = Answer(self.kind, asked, monotonic(), 0, 0, retry_after=False, text=repr(error))
        self._account.add(answer)
        return answer

    def _note(self, asked: float, answer: httpx2.Response) -> Answer:
        heard = monotonic()
        try:
            code = int(answer.json()["code"])
        except (ValueError, KeyError, TypeError):
            code = 0
        retry_after = answer.headers.get("Retry-After", "").isdecimal()
        return Answer(self.kind, asked, heard, answer.status_code, code, retry_after, answer.text)


def reading(token: str) -> Ask:
    return lambda client: client.get("/api/v1/profile", headers=bearer(token))


def paging(token: str) -> Ask:
    return lambda client: client.get("/api/v1/orders", params={"size": "5"}, headers=bearer(token))


def logging_in(email: str) -> Ask:
    return lambda client: client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})


def living(client: httpx2.Client) -> httpx2.Response:
    return client.get("/health/live")


def placing(account: Account, token: str, product_id: str) -> Ask:
    """The same order until its answer is definite."""
    key = ""

    def place(client: httpx2.Client) -> httpx2.Response:
        nonlocal key
        key = key or uuid4().hex
        account.unsettled.add(key)
        body = {"items": [{"product_id": product_id, "quantity": 1}]}
        answer = client.post("/api/v1/orders", json=body, headers=bearer(token) | {"Idempotency-Key": key})
        if answer.status_code == 201:
            account.placed[key] = json.loads(answer.content)["data"]["id"]
            account.unsettled.discard(key)
            key = ""
        return answer

    return place


@dataclass
class Load:
    """Callers at work; each kind is asked for by one of them at a time."""

    url: str
    account: Account
    asks: Asks
    threads: ThreadPoolExecutor
    busy: list[Future[None]] = field(default_factory=list)

    def wait_for_answers(self, since: float, count: int) -> None:
        """So many of each kind that was asked for after this moment."""
        self._wait(lambda: self.have_answered(since, count))

    def have_answered(self, since: float, count: int) -> bool:
        return all(len(self._of(kind, since)) >= count for kind in self.asks)

    def wait_for_successes(self, since: float, count: int) -> None:
        """So many in a row, of each kind, last."""

        def calm() -> bool:
            return all(
                len(last := self._of(kind, since)[-count:]) == count and all(answer.good for answer in last)
                for kind in self.asks
            )

        self._wait(calm)

    def wait_for_another(self) -> None:
        """One answer more, or a moment."""
        with self.account.changed:
            self.account.changed.wait(0.05)

    def _of(self, kind: str, since: float) -> list[Answer]:
        return [answer for answer in self.account.heard_since(since) if answer.kind == kind and answer.asked >= since]

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self.account.changed:
            there = self.account.changed.wait_for(condition, timeout=GIVEN_UP_SECONDS)
        for each in self.busy:
            if each.done():
                each.result()
        assert there, "\n".join(map(str, self.account.answers[-20:]))

    def newcomers(self) -> None:
        """Somebody new asks for each kind until it succeeds: whoever was there may still wait for an old answer."""
        for each in [self.threads.submit(self._insist, kind) for kind in self.asks]:
            each.result()

    def _insist(self, kind: str) -> None:
        caller, given_up = Caller(self.url, self.account, kind, self.asks[kind]()), monotonic() + GIVEN_UP_SECONDS
        waiting = Event()
        with caller.client:
            while not caller.once().good and monotonic() < given_up:
                waiting.wait(PAUSE_SECONDS)


@contextmanager
def running_load(url: str, account: Account, asks: Asks) -> Iterator[Load]:
    closing = Event()
    with ThreadPoolExecutor(2 * len(asks)) as threads:
        load = Load(url, account, asks, threads)
        callers = [Caller(url, account, kind, make()) for kind, make in asks.items()]
        load.busy = [threads.submit(caller.run, closing) for caller in callers]
        try:
            yield load
        finally:
            closing.set()
        for each in load.busy:
            each.result()


@dataclass(frozen=True, slots=True)
class Window:
    """Of one fault, by the monotonic clock."""

    name: str
    begun: float
    repaired: float
    ended: float
    unseen: Mapping[str, float]
    """By kind, how long a success may take while it lasts. Empty: refusals are right, too."""


@dataclass
class Verdict:
    """Of the answers to what was asked within a window, or was under way when it opened."""

    requests: int
    wrong: list[str]
    """Neither a success nor a coded refusal that says when to come again; a broken connection is one of them."""
    late: list[str]
    seen: list[str]
    """Refusals, and slow answers, that clients should not have noticed."""
    slow: list[str]
    """Recovery."""
    latest_seconds: float
    recovery_seconds: float
    unfelt: list[str] = field(default_factory=list)
    """It was not there."""

    def problems(self) -> list[str]:
        return [*self.wrong, *self.late, *self.seen, *self.slow, *self.unfelt]


def judge(window: Window, answers: Sequence[Answer], kinds: Iterable[str], bounds: Bounds) -> Verdict:
    within = [each for each in answers if each.heard >= window.begun and each.asked < window.ended]
    wrong = [each for each in within if not (each.good or each.unavailable)]
    late = [each for each in within if each.seconds > bounds.deadline_seconds]
    seen = [
        each
        for each in within
        if window.unseen
        and each.heard < window.repaired
        and not (each.good and each.seconds <= window.unseen[each.kind])
    ]
    recovered = {kind: recovery(window, within, kind) for kind in kinds}
    return Verdict(
        requests=len(within),
        wrong=[f"{window.name}: {each}" for each in wrong],
        late=[f"{window.name}: late: {each}" for each in late],
        seen=[f"{window.name}: noticed: {each}" for each in seen if each not in wrong],
        slow=[
            f"{window.name}: {kind} recovered after {seconds:.2f} s"
            for kind, seconds in recovered.items()
            if seconds > bounds.recovery_seconds
        ],
        latest_seconds=max((each.seconds for each in within), default=0),
        recovery_seconds=max(recovered.values(), default=0),
    )


def recovery(window: Window, answers: Iterable[Answer], kind: str) -> float:
    """From the repair to the first success, or to the last moment at which somebody asked in vain, if that is later."""
    after = [each for each in answers if each.kind == kind and each.heard >= window.repaired]
    first = min((each.heard for each in after if each.good), default=float("inf"))
    in_vain = max((each.asked for each in after if not each.good), default=0.0)
    return max(first, in_vain) - window.repaired

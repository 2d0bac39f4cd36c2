"""Calls to other services, tried again while the network has a bad moment."""

import asyncio
import functools
import inspect
import re
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import httpx
from loguru import logger
from tenacity import (
    AsyncRetrying,
    AttemptManager,
    BaseRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_any,
    stop_before_delay,
    wait_exception,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from src.config import RetrySettings, get_settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Controller = TypeVar("Controller", bound=BaseRetrying)
Sleep = Callable[[float], Awaitable[None] | None]

NETWORK_ERRORS = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,  # "Server disconnected": a kept-alive connection that the far side had just closed
    ConnectionError,
    TimeoutError,
)
PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, ConnectionRefusedError)
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2


def retry_on_network(  # noqa: PLR0913 - all by keyword, each with its default in the settings
    *,
    attempts: int | None = None,
    total_seconds: float | None = None,
    first_delay_seconds: float | None = None,
    max_delay_seconds: float | None = None,
    idempotent: bool | None = None,
    sleep: Sleep | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Call the function again when the network fails it; the last exception of its own is what surfaces.

    The function is repeated as a whole, so one function makes one request. Statuses count once they are raised
    (`raise_for_status`). What is left out comes from the settings, read at each call.

    Args:
        attempts: tries in all, the first one included; by default 1 + `settings.app.max_retries`.
        total_seconds: for the whole call. No try or pause begins beyond it, and an async try under way is cut short
            at it, with the exception of the try before (`TimeoutError` if there was none). A sync try cannot be cut:
            give its client a time-out.
        first_delay_seconds: upper bound of the first pause; it doubles (full jitter). `Retry-After` comes on top.
        max_delay_seconds: upper bound of any pause, as far as no `Retry-After` asks for more.
        idempotent: may a request be repeated that could have reached the far side? `None`: as its method says, and
            yes for a built-in exception, which names no request. `True`: yes, a POST too. `False`: never. One that
            did not get as far as a connection is repeated in any case.
        sleep: how to pause; `async` for an async function.

    Raises:
        TypeError: at decoration, for generators, classes and whatever else is not finished when its call returns.
        ValueError: at decoration, for limits that allow no try.
    """
    policy = _Policy(attempts, total_seconds, first_delay_seconds, max_delay_seconds, idempotent, sleep)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if _is_async(function):
            # R is a coroutine here, which the type checker cannot see.
            return cast(Callable[P, R], _again_async(policy, cast(Callable[P, Awaitable[Any]], function)))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return policy.controller(Retrying, time.sleep)(functools.partial(function, *args, **kwargs))

        return call

    return decorate


def retry_attempts(  # noqa: PLR0913 - as above
    *,
    attempts: int | None = None,
    total_seconds: float | None = None,
    first_delay_seconds: float | None = None,
    max_delay_seconds: float | None = None,
    idempotent: bool | None = None,
    sleep: Sleep | None = None,
) -> AsyncIterable[AttemptManager]:
    """The same by hand: `async for attempt in retry_attempts(): with attempt: ...`.

    The loop ends after the first block that does not fail. A block under way is not cut short at `total_seconds`.
    """
    policy = _Policy(attempts, total_seconds, first_delay_seconds, max_delay_seconds, idempotent, sleep)
    return policy.controller(_Attempts, asyncio.sleep)


class RetryBudget:
    """Retries that the process may still make, so that all callers together do not trample a far side that is down.

    A token bucket: each first try puts in `budget_ratio`, each second `budget_min_per_second`, each retry takes one.
    It starts with, and saves up, what is named below. Other settings begin a new bucket.
    """

    SAVED_SECONDS = 30
    SAVED_TRIES = 100

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._terms: RetrySettings | None = None
        self._tokens = 0.0
        self._filled_at = 0.0

    def earn(self) -> None:
        terms = get_settings().retry
        with self._lock:
            self._fill(terms, terms.budget_ratio)

    def spend(self) -> bool:
        """Take one retry out, if there is one."""
        terms = get_settings().retry
        with self._lock:
            self._fill(terms, 0)
            # Ten tenths of a retry are one, whatever binary fractions make of them.
            enough = self._tokens > 1 - 1e-9
            self._tokens -= enough
            return enough

    def _fill(self, terms: RetrySettings, extra: float) -> None:
        now = time.monotonic()
        saved = self.SAVED_SECONDS * terms.budget_min_per_second
        if terms is not self._terms:
            self._terms, self._tokens, self._filled_at = terms, saved, now
        capacity = max(1, saved + self.SAVED_TRIES * terms.budget_ratio)
        grown = self._tokens + (now - self._filled_at) * terms.budget_min_per_second + extra
        self._tokens, self._filled_at = min(capacity, grown), now


_budget = RetryBudget()


class _WithoutBudget(stop_base):
    def __call__(self, _: RetryCallState) -> bool:
        return not _budget.spend()


@dataclass(frozen=True, slots=True)
class _Policy:
    """What the caller said; `None` is what the settings say."""

    attempts: int | None
    total_seconds: float | None
    first_delay_seconds: float | None
    max_delay_seconds: float | None
    idempotent: bool | None
    sleep: Sleep | None

    def __post_init__(self) -> None:
        if self.attempts is not None and self.attempts < 1:
            raise ValueError("attempts: at least 1, the first try counts")
        if self.total_seconds is not None and not self.total_seconds > 0:
            raise ValueError("total_seconds: more than 0")
        for name in ("first_delay_seconds", "max_delay_seconds"):
            delay = getattr(self, name)
            if delay is not None and not delay >= 0:
                raise ValueError(f"{name}: 0 or more")

    def seconds(self) -> float:
        return _given(self.total_seconds, get_settings().retry.total_seconds)

    def controller(self, kind: type[Controller], sleep: Sleep) -> Controller:
        settings = get_settings()
        return kind(
            sleep=cast(Any, _given(self.sleep, sleep)),  # tenacity's own type differs between sync and async
            before=_count_first_try,
            retry=retry_if_exception(self._worth_another_try),
            wait=wait_random_exponential(
                multiplier=_given(self.first_delay_seconds, settings.retry.first_delay_seconds),
                max=_given(self.max_delay_seconds, settings.retry.max_delay_seconds),
            )
            + wait_exception(_asked_seconds),
            # The budget is asked last, so that it pays for no retry that the others forbid.
            stop=stop_any(
                stop_after_attempt(_given(self.attempts, 1 + settings.app.max_retries)),
                stop_before_delay(self.seconds()),
                _WithoutBudget(),
            ),
            before_sleep=_log,
            reraise=True,
        )

    def _worth_another_try(self, error: BaseException) -> bool:
        if not _is_network_error(error):
            return False
        if self.idempotent or isinstance(error, NEVER_SENT):
            return True
        methods = {request.method for request in _requests(error)}
        return self.idempotent is None and methods <= IDEMPOTENT_METHODS


def _again_async(policy: _Policy, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        failure: Exception | None = None

        async def one_try() -> T:
            nonlocal failure
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                failure = error
                raise

        deadline = asyncio.timeout(policy.seconds())
        try:
            async with deadline:
                return await policy.controller(AsyncRetrying, asyncio.sleep)(one_try)
        except TimeoutError:
            if failure is None or not deadline.expired():
                raise
        # Out here, so that the exception keeps the cause and context that it came with.
        raise failure

    return call


class _Attempts(AsyncRetrying):
    async def __anext__(self) -> AttemptManager:
        return _Attempt((await super().__anext__()).retry_state)


class _Attempt(AttemptManager):
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        # tenacity would hold back whatever ends the block, a cancellation too, until the loop goes round.
        if error is not None and not _is_network_error(error):
            return None
        return super().__exit__(kind, error, traceback)


def _is_async(function: object) -> bool:
    # An object that can be called is what its __call__ is.
    plain = inspect.isroutine(function) or isinstance(function, functools.partial)
    body: Any = function if plain else getattr(type(function), "__call__")  # noqa: B004, B009 - the method itself
    if (
        not callable(function)
        or isinstance(function, type | staticmethod)
        or inspect.isgeneratorfunction(body)
        or inspect.isasyncgenfunction(body)
    ):
        raise TypeError(f"retry_on_network() takes a function, sync or async, that is no generator: {function!r}")
    return inspect.iscoroutinefunction(body)


def _is_network_error(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING_STATUSES
    return isinstance(error, NETWORK_ERRORS)


def _requests(error: BaseException) -> list[httpx.Request]:
    """All that were sent for this call, the one that failed last. None, if the exception does not know."""
    if isinstance(error, httpx.HTTPStatusError):
        # A redirected POST ends as a GET; to repeat the call is to repeat the POST.
        return [*(answer.request for answer in error.response.history), error.request]
    if isinstance(error, httpx.RequestError):
        with suppress(RuntimeError):  # made by hand, without a request
            return [error.request]
    return []


def _asked_seconds(error: BaseException) -> float:
    if not isinstance(error, httpx.HTTPStatusError):
        return 0
    return asked_seconds(error.response.headers.get("Retry-After", ""))


def asked_seconds(value: str) -> float:
    """`Retry-After` (RFC 9110 §10.2.3) in seconds; 0 if it is absent, in the past or nonsense."""
    # Fractions are against the RFC and seen in the wild.
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0
    # asctime, the oldest of the three forms of a date, names no zone and means GMT.
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, (when - datetime.now(UTC)).total_seconds())


def _count_first_try(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        _budget.earn()


def _log(state: RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    requests = _requests(error)
    # No URL and no text of the exception, which quotes the URL: secrets travel in both.
    logger.bind(
        attempt=state.attempt_number,
        wait_seconds=round(state.upcoming_sleep, 3),
        error=type(error).__name__,
        status=error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None,
        host=requests[-1].url.host if requests else None,
    ).warning("Network call failed, trying again")


def _given(said: T | None, default: T) -> T:
    return default if said is None else said

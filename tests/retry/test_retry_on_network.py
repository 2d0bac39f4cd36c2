"""Calls to a far side that fails in each way that a network knows, over real sockets."""

import asyncio
import functools
import inspect
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, assert_type

import httpx
import pytest
from loguru import logger

from src import config, retry
from src.config import AppSettings, RetrySettings, Settings, use_settings
from src.retry import RetryBudget, retry_attempts, retry_on_network

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PATIENT = 30  # seconds; a test that works never waits so long
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the real ones takes longer than the test


def settings(max_retries: int = 3, **limits: float) -> Settings:
    quick = {"first_delay_seconds": 0.001, "max_delay_seconds": 0.002, "budget_ratio": 1, "budget_min_per_second": 1000}
    return Settings(app=AppSettings(max_retries=max_retries), retry=RetrySettings(**(quick | limits)))


@pytest.fixture(autouse=True)
def _quick_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_current", None)
    monkeypatch.setattr(retry, "_budget", RetryBudget())
    use_settings(settings())


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns as often as they can, so that a missing lock shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def answer(status: int, *headers: str, body: str = "ok") -> Reply:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
        writer.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        await writer.drain()

    return write


async def disconnect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def stay_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def reset_mid_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly the beg")
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await reader.read()


class FarSide:
    """Answers request after request with what its script says, then with 200."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.script: list[Reply] = []
        self.always: Reply = answer(200)
        self.seen: list[str] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.seen.append(head.split()[0])
                self.asked.set()
                reply = self.script.pop(0) if self.script else self.always
                await reply(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def listening(sock: socket.socket) -> AsyncIterator[FarSide]:
    far_side = FarSide(sock.getsockname()[1])
    server = await asyncio.start_server(far_side.serve, sock=sock)
    async with server:
        yield far_side
        far_side.hang_up()


def bound_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
async def far_side() -> AsyncIterator[FarSide]:
    async with listening(bound_socket()) as far_side:
        yield far_side


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENT, verify=NO_CERTIFICATES) as client:
        yield client


class Pauses(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def get(client: httpx.AsyncClient, url: str, method: str = "GET", **more: Any) -> str:
    response = await client.request(method, url, **more)
    response.raise_for_status()
    return response.text


# What is tried again


async def test_a_call_as_the_patterns_type_it_survives_two_failures(far_side: FarSide) -> None:
    @retry_on_network()
    async def fetch_user(user_id: int) -> Any:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{far_side.url}users/{user_id}")
            response.raise_for_status()
            return response.json()

    far_side.script = [answer(503), disconnect, answer(200, body='{"id": 7}')]

    assert await fetch_user(7) == {"id": 7}
    assert len(far_side.seen) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_status_is_tried_again(far_side: FarSide, client: httpx.AsyncClient, status: int) -> None:
    far_side.script = [answer(status)]

    assert await retry_on_network()(get)(client, far_side.url) == "ok"
    assert len(far_side.seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 501, 505])
async def test_a_lasting_status_is_not(far_side: FarSide, client: httpx.AsyncClient, status: int) -> None:
    far_side.script = [answer(status)]

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network()(get)(client, far_side.url)
    assert len(far_side.seen) == 1


async def test_a_refused_connection_is_tried_again_until_somebody_listens(client: httpx.AsyncClient) -> None:
    sock = bound_socket()
    server: asyncio.Server | None = None
    far_side = FarSide(sock.getsockname()[1])

    async def start_far_side(_: float) -> None:
        nonlocal server
        server = await asyncio.start_server(far_side.serve, sock=sock)

    assert await retry_on_network(sleep=start_far_side)(get)(client, far_side.url) == "ok"
    assert server is not None
    server.close()
    far_side.hang_up()


async def test_a_reset_in_the_middle_of_a_reply_is_tried_again(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [reset_mid_reply]

    assert await retry_on_network()(get)(client, far_side.url) == "ok"
    assert len(far_side.seen) == 2


async def test_a_dropped_keep_alive_is_tried_again(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [answer(200), disconnect]
    await client.get(far_side.url)

    assert await retry_on_network()(get)(client, far_side.url) == "ok"
    assert (len(far_side.seen), far_side.connections) == (3, 2)


async def test_a_read_time_out_is_tried_again(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [stay_silent]
    patience = iter([httpx.Timeout(PATIENT, read=0.01), httpx.Timeout(PATIENT)])

    @retry_on_network()
    async def fetch() -> str:
        return await get(client, far_side.url, timeout=next(patience))

    assert await fetch() == "ok"
    assert len(far_side.seen) == 2


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, BrokenPipeError, httpx.ReadError])
async def test_an_error_that_names_no_request_is_tried_again(error: Callable[[str], Exception]) -> None:
    failures = [error("once")]

    @retry_on_network()
    async def fetch() -> str:
        if failures:
            raise failures.pop()
        return "ok"

    assert await fetch() == "ok"


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, httpx.InvalidURL, httpx.UnsupportedProtocol])
async def test_an_error_that_is_not_the_networks_is_not(error: Callable[[str], Exception]) -> None:
    tries = 0

    @retry_on_network()
    async def fetch() -> None:
        nonlocal tries
        tries += 1
        raise error("no")

    with pytest.raises(error):  # type: ignore[call-overload] # each is a class
        await fetch()
    assert tries == 1


async def test_a_sync_function_is_tried_again(far_side: FarSide) -> None:
    @retry_on_network()
    def fetch(path: str, *, fn: str) -> str:
        response = httpx.get(far_side.url + path, headers={"X-Fn": fn}, timeout=PATIENT)
        response.raise_for_status()
        return response.text

    far_side.script = [answer(503), disconnect]

    assert await asyncio.to_thread(fetch, "users", fn="a name that tenacity uses itself") == "ok"
    assert len(far_side.seen) == 3


# Requests that must not happen twice


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("failure", [answer(503), disconnect, reset_mid_reply], ids=["503", "disconnect", "reset"])
async def test_a_method_that_is_not_idempotent_is_not_repeated(
    far_side: FarSide, client: httpx.AsyncClient, method: str, failure: Reply
) -> None:
    far_side.script = [failure]

    with pytest.raises(httpx.HTTPError):
        await retry_on_network()(get)(client, far_side.url, method)
    assert far_side.seen == [method]


async def test_a_post_is_repeated_when_the_caller_says_so(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [answer(503), disconnect]

    assert await retry_on_network(idempotent=True)(get)(client, far_side.url, "POST") == "ok"
    assert far_side.seen == ["POST"] * 3


async def test_a_post_that_never_left_is_repeated(client: httpx.AsyncClient) -> None:
    pauses = Pauses()
    with bound_socket() as nobody, pytest.raises(httpx.ConnectError):
        await retry_on_network(sleep=pauses)(get)(client, f"http://127.0.0.1:{nobody.getsockname()[1]}/", "POST")
    assert len(pauses) == 3


async def test_a_get_is_not_repeated_when_the_caller_forbids_it(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [answer(503)]

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network(idempotent=False)(get)(client, far_side.url)
    assert len(far_side.seen) == 1


async def test_a_post_that_was_redirected_to_a_get_is_not_repeated(
    far_side: FarSide, client: httpx.AsyncClient
) -> None:
    far_side.script = [answer(303, "Location: /made"), answer(503)]

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network()(get)(client, far_side.url, "POST", follow_redirects=True)
    assert far_side.seen == ["POST", "GET"]


# What surfaces


async def test_the_last_exception_of_the_function_itself_surfaces(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = answer(503)
    raised = []

    @retry_on_network()
    async def fetch() -> str:
        try:
            return await get(client, far_side.url)
        except httpx.HTTPStatusError as error:
            raised.append(error)
            raise

    with pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch()
    assert len(raised) == 4
    assert caught.value is raised[-1]


async def test_a_cancellation_ends_a_try_under_way(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = stay_silent
    call = asyncio.ensure_future(retry_on_network()(get)(client, far_side.url))
    await far_side.asked.wait()

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(far_side.seen) == 1


async def test_a_cancellation_ends_a_pause(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = answer(503)
    pausing = asyncio.Event()

    async def pause_for_good(_: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(retry_on_network(sleep=pause_for_good)(get)(client, far_side.url))
    await pausing.wait()

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(far_side.seen) == 1


# Limits


async def test_max_retries_counts_the_tries_after_the_first(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = answer(503)
    fetch = retry_on_network()(get)

    for max_retries in (0, 2):
        use_settings(settings(max_retries))
        far_side.seen.clear()
        with pytest.raises(httpx.HTTPStatusError):
            await fetch(client, far_side.url)
        assert len(far_side.seen) == 1 + max_retries


async def test_arguments_win_over_settings(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = answer(503)
    pauses = Pauses()
    fetch = retry_on_network(attempts=2, first_delay_seconds=0, max_delay_seconds=0, sleep=pauses)(get)

    with pytest.raises(httpx.HTTPStatusError):
        await fetch(client, far_side.url)
    assert pauses == [0]


async def test_pauses_are_random_below_a_bound_that_doubles_up_to_a_maximum() -> None:
    use_settings(settings(6, first_delay_seconds=1, max_delay_seconds=5, total_seconds=3600))
    rounds = [Pauses() for _ in range(60)]

    async def fetch() -> None:
        raise httpx.ReadError("always")

    for pauses in rounds:
        with pytest.raises(httpx.ReadError):
            await retry_on_network(sleep=pauses)(fetch)()

    for number, bound in enumerate([1, 2, 4, 5, 5, 5]):
        drawn = [pauses[number] for pauses in rounds]
        assert len(set(drawn)) == len(drawn)
        assert 0 <= min(drawn) < bound / 2 < max(drawn) <= bound


async def test_no_pause_begins_that_would_end_beyond_the_total_time(
    far_side: FarSide, client: httpx.AsyncClient
) -> None:
    far_side.always = answer(503, "Retry-After: 40")
    pauses = Pauses()

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network(total_seconds=39, sleep=pauses)(get)(client, far_side.url)
    assert pauses == []


async def test_tries_end_with_the_total_time(far_side: FarSide, client: httpx.AsyncClient) -> None:
    use_settings(settings(20, total_seconds=0.1))
    far_side.always = answer(503, "Retry-After: 0.04")

    with pytest.raises((httpx.HTTPStatusError, TimeoutError)):
        await retry_on_network()(get)(client, far_side.url)
    assert len(far_side.seen) <= 3


async def test_a_first_try_that_hangs_is_cut_short_at_the_total_time(
    far_side: FarSide, client: httpx.AsyncClient
) -> None:
    far_side.always = stay_silent

    with pytest.raises(TimeoutError):
        await retry_on_network(total_seconds=0.05)(get)(client, far_side.url, timeout=None)
    assert len(far_side.seen) <= 1


async def test_a_later_try_that_hangs_is_cut_short_with_the_exception_of_the_one_before() -> None:
    cause = OSError("underneath")
    failure = httpx.ReadError("first")
    tries = 0

    @retry_on_network(total_seconds=0.05)
    async def fetch() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise failure from cause
        await asyncio.Event().wait()

    with pytest.raises(httpx.ReadError) as caught:
        await fetch()
    assert caught.value is failure
    assert caught.value.__cause__ is cause


async def test_a_time_out_around_the_call_belongs_to_who_set_it(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.always = stay_silent

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05) as outer:
            await retry_on_network()(get)(client, far_side.url)
    assert outer.expired()
    assert len(far_side.seen) <= 1


# Retry-After


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds_is_waited_for(far_side: FarSide, client: httpx.AsyncClient, status: int) -> None:
    far_side.script = [answer(status, "Retry-After: 7")]
    pauses = Pauses()

    assert await retry_on_network(sleep=pauses)(get)(client, far_side.url) == "ok"
    assert [7 <= pause < 7.01 for pause in pauses] == [True]


@pytest.mark.parametrize("form", [http_date, datetime.ctime])
async def test_retry_after_as_a_date_is_waited_for(
    far_side: FarSide, client: httpx.AsyncClient, form: Callable[[datetime], str]
) -> None:
    far_side.script = [answer(503, f"Retry-After: {form(datetime.now(UTC) + timedelta(hours=1))}")]
    pauses = Pauses()

    assert await retry_on_network(total_seconds=7200, sleep=pauses)(get)(client, far_side.url) == "ok"
    assert [3500 < pause < 3601 for pause in pauses] == [True]


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-5",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "soon",
        "",
        "1, 2",
        "nan",
        "1e9",
        "Sun, 06 Nov 1994 08:49:37 +9999999999999",
        "٣",
    ],
)
async def test_a_retry_after_that_is_past_or_nonsense_leaves_the_ordinary_pause(
    far_side: FarSide, client: httpx.AsyncClient, value: str
) -> None:
    far_side.script = [answer(503, f"Retry-After: {value}")]
    pauses = Pauses()

    assert await retry_on_network(sleep=pauses)(get)(client, far_side.url) == "ok"
    assert [0 <= pause <= 0.001 for pause in pauses] == [True]


@pytest.mark.parametrize("value", ["31", "9" * 5000, http_date(datetime(2999, 1, 1, tzinfo=UTC))])
async def test_a_retry_after_beyond_the_total_time_ends_the_call_at_once(
    far_side: FarSide, client: httpx.AsyncClient, value: str
) -> None:
    far_side.script = [answer(429, f"Retry-After: {value}")]
    pauses = Pauses()

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network(sleep=pauses)(get)(client, far_side.url)
    assert pauses == []


# The budget of the process


async def test_the_budget_is_one_for_all_functions_of_the_process(far_side: FarSide, client: httpx.AsyncClient) -> None:
    use_settings(settings(budget_ratio=0.5, budget_min_per_second=0))
    far_side.always = answer(503)

    def fetch_sync() -> None:
        httpx.get(far_side.url, timeout=PATIENT, verify=NO_CERTIFICATES).raise_for_status()

    async def fetch_by_hand() -> None:
        async for attempt in retry_attempts():
            with attempt:
                await get(client, far_side.url)

    for call in (
        functools.partial(retry_on_network()(get), client, far_side.url),
        functools.partial(asyncio.to_thread, retry_on_network()(fetch_sync)),
        fetch_by_hand,
    ):
        for _ in range(10):
            with pytest.raises(httpx.HTTPStatusError):
                await call()
    assert len(far_side.seen) == 30 + 15


async def test_without_a_budget_there_are_no_retries(far_side: FarSide, client: httpx.AsyncClient) -> None:
    use_settings(settings(budget_ratio=0, budget_min_per_second=0))
    far_side.script = [answer(503)]

    with pytest.raises(httpx.HTTPStatusError):
        await retry_on_network()(get)(client, far_side.url)
    assert len(far_side.seen) == 1


async def test_a_retry_that_other_limits_forbid_costs_no_budget(far_side: FarSide, client: httpx.AsyncClient) -> None:
    use_settings(settings(budget_ratio=0.5, budget_min_per_second=0))
    far_side.script = [answer(503), answer(503), answer(503), answer(200)]

    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError):
            await retry_on_network(attempts=1)(get)(client, far_side.url)

    assert await retry_on_network()(get)(client, far_side.url) == "ok"


def test_a_fresh_process_has_a_reserve_and_saves_up_no_more_than_its_share() -> None:
    use_settings(settings(budget_ratio=0.5, budget_min_per_second=0.1))
    budget = RetryBudget()

    reserve = sum(budget.spend() for _ in range(100))
    for _ in range(10_000):
        budget.earn()
    saved = sum(budget.spend() for _ in range(100))

    assert (reserve, saved) == (3, 53)


def test_ten_tenths_of_a_retry_are_one() -> None:
    use_settings(settings(budget_ratio=0.1, budget_min_per_second=0))
    budget = RetryBudget()

    for _ in range(10):
        assert not budget.spend()
        budget.earn()

    assert budget.spend()
    assert not budget.spend()


def test_other_settings_begin_a_new_budget() -> None:
    budget = RetryBudget()

    use_settings(settings(budget_ratio=0, budget_min_per_second=0))
    assert not budget.spend()
    use_settings(settings(budget_ratio=0, budget_min_per_second=1))
    assert budget.spend()


def test_threads_share_the_budget_without_losing_count(hasty_threads: None) -> None:
    use_settings(settings(budget_ratio=1, budget_min_per_second=0))
    budget = RetryBudget()

    def earn(_: int) -> None:
        for _ in range(10):
            budget.earn()

    def spend(_: int) -> int:
        return sum(budget.spend() for _ in range(80))

    with ThreadPoolExecutor(8) as threads:
        for _ in range(120):
            list(threads.map(earn, range(8)))
            assert sum(threads.map(spend, range(8))) == 80


# The loop by hand


async def test_the_loop_by_hand_ends_with_the_first_block_that_works(
    far_side: FarSide, client: httpx.AsyncClient
) -> None:
    far_side.script = [answer(503), disconnect]
    numbers, texts = [], []

    async for attempt in retry_attempts():
        with attempt:
            numbers.append(attempt.retry_state.attempt_number)
            texts.append(await get(client, far_side.url))

    assert texts == ["ok"]
    assert numbers == [1, 2, 3]


async def test_the_loop_by_hand_raises_the_last_exception_itself() -> None:
    raised = []

    with pytest.raises(httpx.ReadError) as caught:  # noqa: PT012 - the loop is what is tested
        async for attempt in retry_attempts(attempts=3):
            with attempt:
                raised.append(httpx.ReadError("again"))
                raise raised[-1]

    assert len(raised) == 3
    assert caught.value is raised[-1]


@pytest.mark.parametrize("error", [asyncio.CancelledError, ValueError])
async def test_the_loop_by_hand_holds_back_nothing_but_network_errors(error: type[BaseException]) -> None:
    reached = False

    with pytest.raises(error):  # noqa: PT012 - the loop is what is tested
        async for attempt in retry_attempts():
            with attempt:
                raise error
            reached = True

    assert not reached


async def test_the_loop_by_hand_can_be_left(far_side: FarSide, client: httpx.AsyncClient) -> None:
    async def fetch() -> str | None:
        async for attempt in retry_attempts():
            with attempt:
                return await get(client, far_side.url)
        return None

    assert await fetch() == "ok"
    assert len(far_side.seen) == 1


# The decorator as such


async def test_a_decorated_function_looks_like_itself() -> None:
    async def fetch(user_id: int, *, deep: bool = False) -> str:
        """Fetch."""
        return f"{user_id} {deep}"

    again = retry_on_network()(fetch)

    assert_type(await again(1, deep=True), str)
    assert again.__name__ == "fetch"
    assert again.__doc__ == "Fetch."
    assert inspect.signature(again) == inspect.signature(fetch)
    assert inspect.iscoroutinefunction(again)


def test_a_decorated_sync_function_stays_sync() -> None:
    def fetch(user_id: int) -> str:
        return f"{user_id}"

    again = retry_on_network()(fetch)

    assert_type(again(1), str)
    assert again.__name__ == "fetch"
    assert inspect.signature(again) == inspect.signature(fetch)
    assert not inspect.iscoroutinefunction(again)


async def test_methods_partials_and_callable_objects_are_functions_too() -> None:
    class Gateway:
        def __init__(self) -> None:
            self.failures = [ConnectionResetError()]

        @retry_on_network()
        async def fetch(self, key: str) -> str:
            return await self(key)

        async def __call__(self, key: str) -> str:
            if self.failures:
                raise self.failures.pop()
            return key

    assert await Gateway().fetch("a") == "a"
    assert await retry_on_network()(Gateway())("a") == "a"
    assert await retry_on_network()(functools.partial(Gateway().__call__, "a"))() == "a"


async def stream() -> AsyncIterator[int]:
    yield 1


def numbers() -> Iterator[int]:
    yield 1


class StreamingGateway:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    "thing",
    [
        stream,
        numbers,
        functools.partial(stream),
        StreamingGateway(),
        dict,
        staticmethod(len),
        classmethod(repr),
        42,
    ],
)
def test_what_cannot_be_repeated_is_refused_at_decoration(thing: Any) -> None:
    with pytest.raises(TypeError, match="sync or async"):
        retry_on_network()(thing)


@pytest.mark.parametrize(
    "limits",
    [
        {"attempts": 0},
        {"total_seconds": 0},
        {"total_seconds": float("nan")},
        {"first_delay_seconds": -1},
        {"max_delay_seconds": -1},
    ],
)
def test_limits_that_allow_no_try_are_refused_at_decoration(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        retry_on_network(**limits)


def test_decorating_reads_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_current", None)

    @retry_on_network()
    def fetch() -> None: ...

    assert config._current is None


async def test_each_retry_is_logged_without_what_a_url_may_hide(far_side: FarSide, client: httpx.AsyncClient) -> None:
    far_side.script = [answer(503), disconnect]
    records: list[Any] = []
    sink = logger.add(lambda message: records.append(message.record), level="WARNING")

    try:
        await retry_on_network(sleep=Pauses())(get)(
            client, far_side.url + "s3cret?token=s3cret", auth=("s3cret", "s3cret")
        )
    finally:
        logger.remove(sink)

    logged = [record["extra"] for record in records]
    assert [(extra["attempt"], extra["error"], extra["status"], extra["host"]) for extra in logged] == [
        (1, "HTTPStatusError", 503, "127.0.0.1"),
        (2, "RemoteProtocolError", None, "127.0.0.1"),
    ]
    assert all(0 <= extra["wait_seconds"] <= 0.002 for extra in logged)
    assert {record["level"].name for record in records} == {"WARNING"}
    assert "s3cret" not in repr(records)

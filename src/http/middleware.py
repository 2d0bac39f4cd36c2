"""What stands around each request: pure ASGI classes, outermost first.

Guard     request id, security headers, access line, last resort for any exception
Proxies   X-Forwarded-* from those whom the operator named, from nobody else
Limits    one valid Host, header and body sizes, concurrency, a deadline for the whole request
"""

import asyncio
import os
import re
from ipaddress import ip_address, ip_network
from time import perf_counter, time_ns
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.config import Settings
from src.http.errors import BodyTooLargeError, code_response, crash, route_template
from src.shared.errors import ErrorCode
from src.shared.logging import RequestContext, enter_request, leave_request, log_access

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024

REQUEST_ID = "undercroft.request_id"
_GUARDED = "undercroft.guarded"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_JSON = re.compile(rb"application/(?:\w+\+)?json\b", re.IGNORECASE)
_UNSENDABLE = re.compile(rb"[\r\n\x00]")
SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
# Of values, which are somebody's: not of files and pages, which may be kept.
NO_STORE: Final = (b"cache-control", b"no-store")


class Guard:
    """Each request has an id, each answer carries it, each ends in one access line, and no exception
    reaches the server: the connection stays usable."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        context = RequestContext(request_id(scope), scope)
        guarded = Guarded(scope, send, context.request_id)
        token = enter_request(context)
        try:
            await guarded.answer(self.app, receive)
        finally:
            log_request(scope, context, route_template(scope), started, guarded.status, guarded.size)
            leave_request(token)


class Guarded:
    """An answer on its way out: what is added to it, and what is known of it afterwards."""

    __slots__ = ("_answered", "_held", "_request_id", "_scope", "_send", "broke_off", "size", "status")

    def __init__(self, scope: Scope, send: Send, own_id: str) -> None:
        scope[_GUARDED] = self
        scope[REQUEST_ID] = self._request_id = own_id
        self._scope = scope
        self._send = send
        self._answered = self.broke_off = False
        self._held: Message | None = None
        self.status = 0
        self.size = 0

    async def answer(self, app: ASGIApp, receive: Receive) -> None:
        try:
            await app(self._scope, receive, self.send)
            if self._held is not None:
                await self._send(self._held)
        except Exception as error:  # noqa: BLE001 - the last resort: whatever came, the client gets an answer
            await self._rescue(error)

    async def _rescue(self, error: Exception) -> None:
        if self._answered:
            # Starlette answered a crash and raised it again, or a stream broke off: nothing more can be said. When
            # the answer is not finished, returning makes the server cut the connection, so the client sees it.
            return
        request = Request(self._scope)
        await (await crash(request, error))(self._scope, _nothing_more, self.send)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = self._with_ours(list(message.get("headers", ())))
            if unsendable(headers):
                # Here it is still a crash with an answer; the server would drop the connection without a word.
                raise ValueError("A response header has a line break or a NUL in it")
            self._answered = True
            self.status = message["status"]
            message["headers"] = headers
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            if self.broke_off and not message.get("more_body", False):
                # Who ends an answer that broke off, and then raises, did not mean that it is whole.
                self._held = message
                return
        await self._send(message)

    def _with_ours(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        headers = [(name, value) for name, value in headers if name.lower() != b"x-request-id"]
        headers.append((b"x-request-id", self._request_id.encode()))
        headers.extend(header for header in SECURITY_HEADERS if header[0] not in present)
        if NO_STORE[0] not in present and any(is_json(header) for header in headers):
            headers.append(NO_STORE)
        return headers


def is_json(header: tuple[bytes, bytes]) -> bool:
    return header[0].lower() == b"content-type" and _JSON.match(header[1]) is not None


def unsendable(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(_UNSENDABLE.search(name) or _UNSENDABLE.search(value) for name, value in headers)


def log_request(  # noqa: PLR0917, PLR0913 - the columns of the line
    scope: Scope, context: RequestContext, route: str | None, started: float, status: int, size: int
) -> None:
    client = scope["client"]
    log_access(
        (
            time_ns(),
            scope["method"],
            route,
            scope["path"],
            status,
            (perf_counter() - started) * 1000,
            context.request_id,
            context.user_id,
            client[0] if client else None,
            size,
        )
    )


class Stream:
    """An answer that may break off half-way: a team's `BaseHTTPMiddleware` would end it as if it were whole."""

    def __init__(self, response: ASGIApp) -> None:
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        under_way = False

        async def send_noted(message: Message) -> None:
            nonlocal under_way
            under_way = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        try:
            await self._response(scope, receive, send_noted)
        except Exception:
            if under_way and _GUARDED in scope:
                scope[_GUARDED].broke_off = True
            raise


def request_id(scope: Scope) -> str:
    """The client's, if it is harmless; else 128 random bits."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    if not _fresh_ids:
        _make_ids()
    return _fresh_ids.pop()


_fresh_ids: list[str] = []


def _make_ids() -> None:
    """Many at once: asking the system for each costs more than the rest of the guard."""
    digits = os.urandom(16 * _IDS_AT_ONCE).hex()
    _fresh_ids.extend(digits[start : start + 32] for start in range(0, len(digits), 32))


_IDS_AT_ONCE = 256
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_ids.clear)  # or two processes would have the same


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


class Proxies:
    """`X-Forwarded-For` and `-Proto` count when the peer is a trusted proxy; the client is the last address
    that no trusted proxy wrote (RFC 7239 §5.2 reads the same way)."""

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...]) -> None:
        self.app = app
        self.trusted = [ip_network(network) for network in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            self.believe(scope)
        await self.app(scope, receive, send)

    def believe(self, scope: Scope) -> None:
        """Once for a request: who the client is, and how it came, after this."""
        client = scope.get("client")
        if not client:
            return
        if client[1] == 0:
            # No TCP peer has port 0: plain `uvicorn src.main:app` has believed a header already, as it does by default
            # when it comes from loopback. `python -m src serve` switches that off.
            client = scope["client"] = ("127.0.0.1", 0)
            if any(name == b"x-forwarded-proto" for name, _ in scope["headers"]):
                scope["scheme"] = "http" if scope["type"] == "http" else "ws"
        if self.trusted and self._trusts(client[0]):
            self._believe(scope)

    def _believe(self, scope: Scope) -> None:
        forwarded_for = [
            part.strip()
            for name, value in scope["headers"]
            if name == b"x-forwarded-for"
            for part in value.decode("latin-1").split(",")
        ]
        for address in reversed(forwarded_for):
            if not _is_address(address):
                break
            scope["client"] = (address, 0)
            if not self._trusts(address):
                break
        protocols = [
            value.decode("latin-1").strip() for name, value in scope["headers"] if name == b"x-forwarded-proto"
        ]
        if protocols and protocols[-1] in ("http", "https"):
            scope["scheme"] = protocols[-1] if scope["type"] == "http" else protocols[-1].replace("http", "ws")

    def _trusts(self, address: str) -> bool:
        if not _is_address(address):
            return False
        parsed = ip_address(address)
        return any(parsed in network for network in self.trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Limits:
    """What one request may cost. Refusals are enveloped like any other."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.max_body_bytes = settings.http.max_body_bytes
        self.deadlines = Deadlines(settings.http.request_timeout_seconds)
        self.under_way = 0
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts if not host.startswith("*"))
        self._suffixes = tuple(host[1:].lower() for host in settings.allowed_hosts if host.startswith("*"))
        self._welcome: set[bytes] = set()
        self._max_concurrency = settings.http.max_concurrency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            code, facts = refusal
            await code_response(scope, code, data=facts)(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            self.under_way += 1
            try:
                await self.within_deadline(scope, receive, send)
            finally:
                self.under_way -= 1

    def refusal(self, scope: Scope) -> tuple[ErrorCode, dict[str, object] | None] | None:
        headers, host, too_long, total = scope["headers"], None, False, 0
        for name, value in headers:
            total += len(name) + len(value)
            if name == b"host":
                # Of two hosts none counts.
                host = value if host is None else b""
            elif name == b"content-length" and _too_long(value, self.max_body_bytes):
                too_long = True
        if len(headers) > MAX_HEADERS or total > MAX_HEADER_BYTES:
            return ErrorCode.HEADERS_TOO_LARGE, None
        if host not in self._welcome and not self._answers_to(host):
            return ErrorCode.HOST_NOT_ALLOWED, None
        if self.under_way >= self._max_concurrency:
            return ErrorCode.SERVICE_UNAVAILABLE, None
        if too_long:
            return ErrorCode.BODY_TOO_LARGE, {"limit_bytes": self.max_body_bytes}
        return None

    def _answers_to(self, host: bytes | None) -> bool:
        if host is None:
            return False
        name = _HOST.fullmatch(host.decode("latin-1").lower())
        welcome = name is not None and (
            name[1] in self._hosts or (name[1].endswith(self._suffixes) if self._suffixes else False)
        )
        if welcome and len(self._welcome) < _MAX_WELCOME:
            self._welcome.add(host)
        return welcome

    async def within_deadline(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The deadline runs until the answer starts: a stream may take its time afterwards."""
        deadline = self.deadlines.start()

        async def send_noted(message: Message) -> None:
            self.deadlines.end(deadline)
            await send(message)

        try:
            await self.app(scope, CountedBody(receive, self.max_body_bytes), send_noted)
        except asyncio.CancelledError:
            if not deadline.passed():
                raise
            await code_response(scope, ErrorCode.DEADLINE_EXCEEDED)(scope, receive, send)
        finally:
            self.deadlines.end(deadline)


_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_MAX_WELCOME = 1024


def _too_long(content_length: bytes, limit: int) -> bool:
    return content_length.isdigit() and int(content_length[:20]) > limit


class CountedBody:
    """`receive`, up to the limit."""

    __slots__ = ("_left", "_limit", "_receive")

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = self._left = limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLargeError(self._limit)
        return message


class Deadline:
    __slots__ = ("_late", "due", "task")

    def __init__(self, task: asyncio.Task[object], due: float) -> None:
        self.task = task
        self.due = due
        self._late = False

    def expire(self) -> None:
        self._late = True
        self.task.cancel()

    def passed(self) -> bool:
        """Whether the cancellation that just came was this deadline's alone; then it is over."""
        return self._late and self.task.uncancel() == 0


class Deadlines:
    """All requests have the same time, so the one that began first ends first: one timer serves them all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._under_way: dict[Deadline, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, task: "asyncio.Task[object] | None" = None) -> Deadline:
        """For this task, or the current one: it is cancelled when the time is up."""
        if task is None:
            task = asyncio.current_task()
            assert task is not None
        loop = task.get_loop()
        deadline = Deadline(task, loop.time() + self._seconds)
        if loop is not self._loop:
            self._under_way, self._loop, self._timer = {}, loop, None
        self._under_way[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.due, self._expire)
        return deadline

    def end(self, deadline: Deadline) -> None:
        self._under_way.pop(deadline, None)

    def _expire(self) -> None:
        assert self._loop is not None
        self._timer, now = None, self._loop.time()
        for deadline in list(self._under_way):
            if deadline.due > now:
                self._timer = self._loop.call_at(deadline.due, self._expire)
                return
            del self._under_way[deadline]
            deadline.expire()

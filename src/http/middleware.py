"""What stands around each request: pure ASGI classes, outermost first.

Guard     request id, security headers, access line, last resort for any exception
Proxies   X-Forwarded-* from those whom the operator named, from nobody else
Limits    one valid Host, header and body sizes, concurrency, a deadline for the whole request
"""

import asyncio
import re
import secrets
from ipaddress import ip_address, ip_network
from time import perf_counter
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.config import Settings
from src.http.errors import BodyTooLargeError, code_response, crash
from src.shared.errors import ErrorCode
from src.shared.logging import RequestContext, enter_request, leave_request, log_access

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 16 * 1024

_GUARDED = "undercroft.guarded"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNSENDABLE = re.compile(rb"[\r\n\x00]")
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}


class Guard:
    """Each request has an id, each answer carries it, each ends in one access line, and no exception
    reaches the server: the connection stays usable."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _GuardedRequest(scope, send).run(self.app, receive)


class _GuardedRequest:
    __slots__ = (
        "_answered",
        "_bytes",
        "_held",
        "_scope",
        "_send",
        "_started",
        "_status",
        "broke_off",
        "context",
        "request_id",
    )

    def __init__(self, scope: Scope, send: Send) -> None:
        scope[_GUARDED] = self
        self.request_id = scope["undercroft.request_id"] = _request_id(scope)
        self.context = RequestContext(self.request_id)
        self._scope = scope
        self._send = send
        self._started = perf_counter()
        self._answered = self.broke_off = False
        self._held: Message | None = None
        self._status = 0
        self._bytes = 0

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        token = enter_request(self.context)
        try:
            await app(self._scope, receive, self.send)
            if self._held is not None:
                await self._send(self._held)
        except Exception as error:  # noqa: BLE001 - the last resort: whatever came, the client gets an answer
            await self._rescue(error)
        finally:
            self._log()
            leave_request(token)

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
            if any(_UNSENDABLE.search(name) or _UNSENDABLE.search(value) for name, value in headers):
                # Here it is still a crash with an answer; the server would drop the connection without a word.
                raise ValueError("A response header has a line break or a NUL in it")
            self._answered = True
            self._status = message["status"]
            message["headers"] = headers
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))
            if self.broke_off and not message.get("more_body", False):
                # Who ends an answer that broke off, and then raises, did not mean that it is whole.
                self._held = message
                return
        await self._send(message)

    def _with_ours(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        headers = [(name, value) for name, value in headers if name.lower() != b"x-request-id"]
        headers.append((b"x-request-id", self.request_id.encode()))
        headers.extend((name, value) for name, value in _SECURITY_HEADERS.items() if name not in present)
        return headers

    def _log(self) -> None:
        client = self._scope.get("client")
        log_access(
            method=self._scope["method"],
            route=_route(self._scope),
            path=self._scope["path"],
            status=self._status,
            duration_ms=(perf_counter() - self._started) * 1000,
            request_id=self.request_id,
            user_id=self.context.user_id,
            client=client[0] if client else None,
            size=self._bytes,
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


def _route(scope: Scope) -> str | None:
    """The route's template with its prefixes: what statistics group by."""
    context = (
        scope.get("fastapi", {}).get("effective_route_context") if isinstance(scope.get("fastapi"), dict) else None
    )
    return getattr(context, "path", None) or getattr(scope.get("route"), "path", None)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(16)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


class Proxies:
    """`X-Forwarded-For` and `-Proto` count when the peer is a trusted proxy; the client is the last address
    that no trusted proxy wrote (RFC 7239 §5.2 reads the same way)."""

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...]) -> None:
        self.app = app
        self.trusted = [ip_network(network) for network in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and client[1] == 0:
            # No TCP peer has port 0: plain `uvicorn src.main:app` has believed a header already, as it does by default
            # when it comes from loopback. `python -m src serve` switches that off.
            client = scope["client"] = ("127.0.0.1", 0)
            if any(name == b"x-forwarded-proto" for name, _ in scope["headers"]):
                scope["scheme"] = "http" if scope["type"] == "http" else "ws"
        if scope["type"] in ("http", "websocket") and client and self._trusts(client[0]):
            self._believe(scope)
        await self.app(scope, receive, send)

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
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts if not host.startswith("*"))
        self._suffixes = tuple(host[1:].lower() for host in settings.allowed_hosts if host.startswith("*"))
        self._max_body_bytes = settings.http.max_body_bytes
        self._max_concurrency = settings.http.max_concurrency
        self._deadline_seconds = settings.http.request_timeout_seconds
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            code, facts = refusal
            await code_response(scope, code, data=facts)(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            self._under_way += 1
            try:
                await self._within_deadline(scope, receive, send)
            finally:
                self._under_way -= 1

    def _refusal(self, scope: Scope) -> tuple[ErrorCode, dict[str, object] | None] | None:
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return ErrorCode.HEADERS_TOO_LARGE, None
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self._answers_to(hosts[0]):
            return ErrorCode.HOST_NOT_ALLOWED, None
        if self._under_way >= self._max_concurrency:
            return ErrorCode.SERVICE_UNAVAILABLE, None
        if any(name == b"content-length" and _too_long(value, self._max_body_bytes) for name, value in headers):
            return ErrorCode.BODY_TOO_LARGE, {"limit_bytes": self._max_body_bytes}
        return None

    def _answers_to(self, host: bytes) -> bool:
        name = _HOST.fullmatch(host.decode("latin-1").lower())
        return name is not None and (
            name[1] in self._hosts or (name[1].endswith(self._suffixes) if self._suffixes else False)
        )

    async def _within_deadline(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The deadline runs until the answer starts: a stream may take its time afterwards."""
        task = asyncio.current_task()
        assert task is not None
        started = late = False
        received_bytes = 0

        def expire() -> None:
            nonlocal late
            if not started:
                late = True
                task.cancel()

        timer = asyncio.get_running_loop().call_later(self._deadline_seconds, expire)

        async def receive_counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_body_bytes:
                raise BodyTooLargeError(self._max_body_bytes)
            return message

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive_counted, send_noted)
        except asyncio.CancelledError:
            if not late or task.uncancel() > 0:
                raise
            await code_response(scope, ErrorCode.DEADLINE_EXCEEDED)(scope, receive, send)
        finally:
            timer.cancel()


_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def _too_long(content_length: bytes, limit: int) -> bool:
    return content_length.isdigit() and int(content_length[:20]) > limit

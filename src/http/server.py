"""uvicorn, started with limits that match ours, and its protocol class with ends to its patience and less work per request.

`SteadyProtocol` bounds what a client can make a connection hold or wait for before there is a request, and after its
answer. `QuickProtocol` besides hands a request to the app's own entrance (`Direct`), where it has one, and writes an
answer that is finished at once. Everything else is uvicorn's; with a version of it that we do not know its own class serves.
"""

import asyncio
import logging
import socket
import struct
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import httptools
from loguru import logger
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from src.config import Settings, get_settings
from src.http.errors import envelope
from src.http.middleware import NO_STORE, SECURITY_HEADERS, request_id
from src.http.readiness import leaving
from src.shared.errors import ErrorCode, explain, http_status

KNOWN_UVICORN: Final = "0.54."
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a head that comes in pieces, request line included, beyond its first piece; `Limits` judges one that is whole."""


def server_options(settings: Settings) -> dict[str, Any]:  # Any: uvicorn's arguments
    """For `uvicorn.run`."""
    http = settings.http
    return {
        "host": http.host,
        "port": http.port,
        "workers": http.workers,
        "http": _protocol(settings),
        "log_config": None,
        "access_log": False,
        # Its own default believes X-Forwarded-* from loopback; ours believes those who are named.
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": max(1, int(http.shutdown_seconds - settings.drain_seconds)),
        "lifespan": "on",
    }


def _protocol(settings: Settings) -> str | type[asyncio.Protocol]:
    if not version("uvicorn").startswith(KNOWN_UVICORN):
        logger.bind(uvicorn=version("uvicorn")).warning(
            "uvicorn's own protocol class serves, which waits for headers without an end: this version is not known"
        )
        return "auto"
    return QuickProtocol if settings.http.compiled_routes else SteadyProtocol


class SteadyProtocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: uvicorn's own
        super().__init__(*arguments, **named)
        http = get_settings().http
        self._head_seconds = http.header_timeout_seconds
        self._send_seconds = http.send_timeout_seconds
        self._shortest = min(self._head_seconds, self.timeout_keep_alive)
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unfinished: object = None  # the scope whose bytes are counted
        self._beside = 0  # so many came since a head began, or since the last piece of a body
        self._had_body = False
        self._ahead: RequestResponseCycle | None = None  # at work while others of its connection wait
        self._unsent = 0
        self._stuck_since = 0.0
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._wait(self._head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self._nobody_listens()
        super().connection_lost(exc)

    def _nobody_listens(self) -> None:
        """uvicorn tells only the newest request that its client is gone; the one at work would write to nobody, and fail."""
        for cycle in (self._ahead, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def handle_websocket_upgrade(self) -> None:
        self._stop_timers()  # the connection is another class's from now on
        super().handle_websocket_upgrade()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._send_timer = None

    # One timer a connection. uvicorn sets and cancels one with each request, which costs more than looking at a clock.
    # It fires no later than the shortest patience from now, so that who waits has only to write down until when.

    def _wait(self, seconds: float) -> None:
        self._due = self.loop.time() + seconds
        if self._timer is None:
            self._timer = self.loop.call_later(self._shortest, self._close_if_due)

    def _close_if_due(self) -> None:
        self._timer = None
        if self.transport.is_closing() or self._at_work():
            return  # what ends the answer waits again
        left = self._due - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(min(left, self._shortest), self._close_if_due)
        elif self._within_head():
            self.refuse(ErrorCode.REQUEST_TIMEOUT)
        else:
            self.timeout_keep_alive_handler()

    def _at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr] # uvicorn begins with None

    def _within_head(self) -> bool:
        return self.scope is not None and "method" not in self.scope  # type: ignore[redundant-expr] # as above

    def _unset_keepalive_if_required(self) -> None:
        """Nothing is set a request."""

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_sending()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._ahead = cycle
            self._start_asgi_task(cycle, app)
            return
        self._ahead = None
        self._wait(self.timeout_keep_alive)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if leaving():
            cycle.keep_alive = False  # the next request finds a process that stays
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse(ErrorCode.MALFORMED_REQUEST)
            return
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or "method" not in self.scope:  # type: ignore[redundant-expr] # as above
            self._count(len(data))

    def _count(self, size: int) -> None:
        """Bytes that made no request whole: the time for that runs, and what httptools keeps of them has an end."""
        if self._unfinished is not self.scope:
            self._unfinished, self._beside = self.scope, 0
            if not self._at_work() or self._within_head():
                self._wait(self._head_seconds)
            return
        self._beside = 0 if self._had_body else self._beside + size
        self._had_body = False
        if self._beside > MAX_HEAD_BYTES:
            self.refuse(ErrorCode.HEADERS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        existing = self.cycle
        super().on_headers_complete()
        if len(self.pipeline) == 1:
            self._ahead = self._ahead or existing
        # What is still added are trailers. Nobody reads them, and the scope must not change under those who have it.
        self.headers = _Whole(self.headers) if self.parser.should_upgrade() else _NO_MORE

    def on_body(self, body: bytes) -> None:
        self._had_body = True
        super().on_body(body)

    def refuse(self, code: ErrorCode) -> None:
        """What came is no request, or none that is waited for: say so where that can still be said, and close."""
        cycle = self.cycle
        if self._at_work():
            if self.pipeline or not cycle.more_body:
                # It came behind a request that is being answered: that answer is the last one.
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            self._nobody_listens()
        if not (self._at_work() and cycle.response_started):
            self.transport.write(self._refusal(code))
        self.transport.close()
        self._watch_sending()

    def _refusal(self, code: ErrorCode) -> bytes:
        own_id, status = request_id({"headers": ()}), http_status(code)
        logger.bind(code=code.name, request_id=own_id, client=self.client and self.client[0]).info("Not a request")
        body = envelope(code, explain(code).meaning, b"null")
        headers = [
            *self.server_state.default_headers,
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"x-request-id", own_id.encode()),
            *SECURITY_HEADERS,
            NO_STORE,
            (b"connection", b"close"),
        ]
        lines = (b"%b: %b\r\n" % header for header in headers)
        return b"".join((STATUS_LINE[status], *lines, b"\r\n", body))

    # A client that reads nothing: uvicorn would wait for it as long as it stays.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def _watch_sending(self) -> None:
        self._unsent, self._stuck_since = self.transport.get_write_buffer_size(), self.loop.time()
        if self._unsent and self._nothing_is_added() and self._send_timer is None:
            self._send_timer = self.loop.call_later(self._send_seconds, self._abort_if_stuck)

    def _nothing_is_added(self) -> bool:
        return self.flow.write_paused or self.transport.is_closing()

    def _abort_if_stuck(self) -> None:
        self._send_timer = None
        if not self._nothing_is_added():
            return  # what comes next is watched again
        left = self._stuck_since + self._send_seconds - self.loop.time()
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_sending()
        elif left > 0:
            self._send_timer = self.loop.call_later(left, self._abort_if_stuck)
        else:
            self._nobody_listens()
            # With a reset: else the kernel would go on offering what nobody takes.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()


_AT_ONCE: Final = struct.pack("ii", 1, 0)


class _Whole(list[tuple[bytes, bytes]]):
    """Headers that nothing is added to."""

    def append(self, _: tuple[bytes, bytes], /) -> None:
        """Nowhere."""


_NO_MORE: Final = _Whole()


class QuickProtocol(SteadyProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: uvicorn's own
        super().__init__(*arguments, **named)
        self._default_headers: tuple[object, bytes] = (None, b"")
        # Any: a Direct, or None; uvicorn types messages one by one
        self.direct: Any = getattr(self.app, "direct", None)

    def on_headers_complete(self) -> None:
        scope, url = self.scope, self.url
        if (
            self.limit_concurrency is not None
            or self.root_path
            or b"%" in url
            or b"#" in url
            or url[:1] != b"/"
            or url[:2] == b"//"
            or self.parser.should_upgrade()
            or self.parser.get_http_version() != "1.1"
        ):
            super().on_headers_complete()
            return
        path, _, query = url.partition(b"?")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = path.decode("ascii")
        scope["raw_path"] = path
        scope["query_string"] = query
        self.headers = _NO_MORE
        existing = self.cycle
        cycle = self.cycle = QuickCycle(self)
        if existing is None or existing.response_complete:  # type: ignore[redundant-expr] # uvicorn begins with None
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
            self._ahead = self._ahead or existing

    def on_body(self, body: bytes) -> None:
        # Not uvicorn's: one call less.
        self._had_body = True
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if not isinstance(cycle, QuickCycle):
            super().on_message_complete()
        elif not (cycle.response_complete or (self.parser.should_upgrade() and self._should_upgrade())):
            cycle.complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not isinstance(cycle, QuickCycle) or self.config.reset_contextvars:
            super()._start_asgi_task(cycle, app)
            return
        if leaving():
            cycle.keep_alive = False
        # The cycle takes itself out of the set at its end: a callback would go once more through the event loop.
        cycle.task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(cycle.task)

    def default_header_block(self) -> bytes:
        """The date, above all: the same for a second."""
        headers = self.server_state.default_headers
        if self._default_headers[0] is not headers:
            self._default_headers = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._default_headers[1]


class QuickCycle(RequestResponseCycle):
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    access_log = False
    body = b""  # type: ignore[assignment] # uvicorn adds to it, and puts a bytearray in its place
    task: "asyncio.Task[None] | None" = None
    _event: asyncio.Event | None = None
    _came = False

    def __init__(self, protocol: QuickProtocol) -> None:
        # Not uvicorn's: what is the same for each request of a connection is its protocol's, or the class's.
        self.protocol = protocol
        self.scope = protocol.scope
        self.transport = protocol.transport
        self.keep_alive = protocol.parser.should_keep_alive()
        self.waiting_for_100_continue = protocol.expect_100_continue

    @property
    def flow(self) -> FlowControl:  # type: ignore[override] # as those below: read by uvicorn on ways that few requests take
        return self.protocol.flow

    @property
    def logger(self) -> logging.Logger:  # type: ignore[override] # as above
        return self.protocol.logger

    @property
    def access_logger(self) -> logging.Logger:  # type: ignore[override] # as above
        return self.protocol.access_logger

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:  # type: ignore[override] # as above
        return self.protocol.server_state.default_headers

    def on_response(self) -> None:
        self.protocol.on_response_complete()

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override] # as above
        """Set when something came. Nobody waits for the body of a GET."""
        if self._event is None:
            self._event = asyncio.Event()
            if self._came:
                self._event.set()
        return self._event

    def complete(self) -> None:
        """The body has come."""
        self.more_body = False
        if self._event is None:
            self._came = True
        else:
            self._event.set()

    async def run_asgi(self, app: ASGI3Application) -> None:
        direct = self.protocol.direct
        try:
            if direct is None:
                await super().run_asgi(app)
                return
            await direct(self.scope, self.receive, self.send, self)
            if not self.response_complete:
                await super().run_asgi(_nothing)  # says so, unless the client is gone
        except BaseException as error:
            if direct is None:
                raise
            await super().run_asgi(partial(_raise, error))
        finally:
            self.protocol.tasks.discard(self.task)
            # Or each request would leave a circle behind: the garbage collector then stops the process for 50 ms at a time.
            self.task = None

    def respond(self, status: int, head: bytes, body: bytes) -> bool:
        """Write a whole answer in one go; `head` is its header block, with the length of the body in it.

        False when that is not possible now: the client reads slowly, or is gone, or asked for no body.
        """
        line, protocol = STATUS_LINE.get(status), self.protocol
        if (
            protocol.flow.write_paused
            or self.disconnected
            or self.response_started
            or self.scope["method"] == "HEAD"
            or not line
        ):
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"".join((line, protocol.default_header_block(), head, end, body)))
        if self._event is not None:
            self._event.set()
        if not self.keep_alive:
            self.transport.close()
        protocol.on_response_complete()
        return True


async def _nothing(*_: object) -> None:
    """An app that returns."""


async def _raise(error: BaseException, *_: object) -> None:
    raise error

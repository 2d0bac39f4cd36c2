"""uvicorn, started with limits that match ours, and its protocol class with less work per request.

The class hands a request to the app's own entrance (`Direct`), where it has one, writes an answer that is finished at
once, and has one timer a connection for idle clients instead of one a request. Everything else is uvicorn's; with a version of it that we do not know its own class serves.
"""

import asyncio
import logging
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from loguru import logger
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from src.config import Settings

KNOWN_UVICORN: Final = "0.54."


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
        "timeout_graceful_shutdown": int(http.shutdown_seconds),
        "lifespan": "on",
    }


def _protocol(settings: Settings) -> str | type[asyncio.Protocol]:
    if not settings.http.compiled_routes:
        return "auto"
    if not version("uvicorn").startswith(KNOWN_UVICORN):
        logger.bind(uvicorn=version("uvicorn")).warning(
            "uvicorn's own protocol class serves: this version is not known"
        )
        return "auto"
    return QuickProtocol


class QuickProtocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: uvicorn's own
        super().__init__(*arguments, **named)
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._default_headers: tuple[object, bytes] = (None, b"")
        # Any: a Direct, or None; uvicorn types messages one by one
        self.direct: Any = getattr(self.app, "direct", None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)

    # One timer a connection. uvicorn sets and cancels one with each request, which costs more than looking at a clock.

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return  # at work: what ends the answer sets the timer again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._close_if_idle)
        else:
            self.timeout_keep_alive_handler()

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
        existing = self.cycle
        cycle = self.cycle = QuickCycle(self)
        if existing is None or existing.response_complete:  # type: ignore[redundant-expr] # uvicorn begins with None
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

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

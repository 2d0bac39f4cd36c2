"""Guard, proxies and limits in one pass, for requests that a compiled route answers.

Whatever is not the plain case (another route, a team's middleware, a refusal, an exception) takes the way through the
classes of `middleware.py`; what they add to an answer, and what they write down of it, is the same here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Protocol

from sqlalchemy.exc import DBAPIError
from starlette.responses import Response as RawResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from src.http.attempts import run_again
from src.http.compiled import OUTCOME, CompiledRoutes, enter
from src.http.errors import code_response
from src.http.middleware import (
    NO_STORE,
    REQUEST_ID,
    SECURITY_HEADERS,
    CountedBody,
    Guarded,
    Limits,
    Proxies,
    log_request,
    request_id,
    unsendable,
)
from src.shared.errors import ErrorCode
from src.shared.logging import RequestContext, enter_request, leave_request


class Exchange(Protocol):
    """A request and its answer, as our own server has them."""

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """That serves it."""

    def respond(self, status: int, head: bytes, body: bytes, /) -> bool:
        """Write a whole answer at once, `head` being its header block. False says that it must go the usual way."""


Direct = Callable[[Scope, Receive, Send, Exchange | None], Awaitable[None]]
"""An app's entrance for our own server."""

_JSON = (b"content-type", b"application/json")
_HEAD = b"content-length: %d\r\ncontent-type: application/json\r\nx-request-id: %b\r\n" + b"".join(
    b"%b: %b\r\n" % header for header in (*SECURITY_HEADERS, NO_STORE)
)


class Front:
    """Before the whole stack, which is `ordinary`; its `limits` and `proxies` are ours too."""

    def __init__(
        self, app: ASGIApp, ordinary: ASGIApp, routes: CompiledRoutes, limits: Limits, proxies: Proxies
    ) -> None:
        self._app = app
        self._ordinary = ordinary
        self._routes = routes
        self._limits = limits
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serve(scope, receive, send, None)

    async def serve(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None) -> None:  # noqa: C901, PLR0912, PLR0915 - in one piece, since each call costs
        scope["app"] = self._app
        found = self._routes.find(scope) if scope["type"] == "http" else None
        if found is None or found[0].sends or self._limits.refusal(scope) is not None:
            await self._ordinary(scope, receive, send)
            return
        started = perf_counter()
        compiled, entry, values = found
        limits = self._limits
        self._proxies.believe(scope)
        if compiled.reads or exchange is None:
            enter(scope, entry, values)  # else nobody would look
        own_id = scope[REQUEST_ID] = request_id(scope)
        context = RequestContext(own_id, scope)
        token = enter_request(context)
        limits.under_way += 1
        deadline = limits.deadlines.start(None if exchange is None else exchange.task)
        status = size = 0
        try:
            body = CountedBody(receive, limits.max_body_bytes) if compiled.reads else receive
            try:
                outcome = await compiled.call(scope, body, send, values)
            except DBAPIError as lost:
                outcome = await run_again(lambda: compiled.call(scope, body, send, values), scope, lost)
            if type(outcome) is bytes:
                status, size = compiled.status, len(outcome)
            elif type(outcome) is tuple:
                status, outcome = outcome
                size = len(outcome)
            else:
                limits.deadlines.end(deadline)
                guarded = Guarded(scope, send, own_id)
                enter(scope, entry, values)
                if not _only_sends(outcome):
                    scope[OUTCOME], outcome = outcome, limits.within_deadline
                await guarded.answer(outcome, receive)
                status, size = guarded.status, guarded.size
                return
            if exchange is not None and exchange.respond(status, _HEAD % (size, own_id.encode()), outcome):
                return
            limits.deadlines.end(deadline)
            headers = [
                (b"content-length", b"%d" % size),
                _JSON,
                (b"x-request-id", own_id.encode()),
                *SECURITY_HEADERS,
                NO_STORE,
            ]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": outcome})
        except asyncio.CancelledError:
            if not deadline.passed():
                raise
            guarded = Guarded(scope, send, own_id)
            enter(scope, entry, values)
            await guarded.answer(code_response(scope, ErrorCode.DEADLINE_EXCEEDED), receive)
            status, size = guarded.status, guarded.size
        except Exception as error:  # noqa: BLE001 - told where FastAPI's own path tells it: at its router, to the same handlers
            if status:
                return  # the connection broke while the answer was sent
            limits.deadlines.end(deadline)
            scope[OUTCOME] = error
            enter(scope, entry, values)
            guarded = Guarded(scope, send, own_id)
            await guarded.answer(limits.within_deadline, receive)
            status, size = guarded.status, guarded.size
        finally:
            limits.deadlines.end(deadline)
            limits.under_way -= 1
            log_request(scope, context, entry.path, started, status, size)
            leave_request(token)


def _only_sends(response: RawResponse) -> bool:
    """Whether nothing can go wrong with it any more: no stream, no file, no background task, no broken header."""
    return (
        type(response).__call__ is RawResponse.__call__
        and response.background is None
        and hasattr(response, "body")
        and not unsendable(response.raw_headers)
    )

"""A payment provider for development and tests: what it does with a payment is said by the source that pays.

It keeps its books in memory, and is no part of the service: they speak over HTTP alone.
"""

import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from threading import Thread
from time import time
from typing import Any, Final
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from src.core.payments.gateway import ChargeStatus
from src.shared import outgoing, signatures
from src.shared.types import new_id

Json = dict[str, Any]  # Any: JSON
_CALLBACK_SECONDS: Final = 10.0
_CALLBACK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of a payment by one source."""

    meaning: str
    status: ChargeStatus = ChargeStatus.SUCCEEDED
    decline_code: str = ""
    later: ChargeStatus | None = None
    """What a pending one becomes when it is released."""
    outages: int = 0
    """So many requests are answered 503, and nothing is charged."""
    lost: int = 0
    """So many requests are carried out and answered 503."""
    silences: int = 0
    """So many requests are carried out and not answered at all."""
    callbacks: tuple[ChargeStatus, ...] = ()
    """What is called back after the answer; without an entry nothing is."""
    spends: bool = False
    """The source is good for one request: later ones with it are refused."""
    early: bool = False
    """The callback comes before the answer."""
    forged: bool = False
    """And is signed by somebody else, and not true."""


_PENDING, _SUCCEEDED, _DECLINED = ChargeStatus.PENDING, ChargeStatus.SUCCEEDED, ChargeStatus.DECLINED
SCRIPTS: Final[Mapping[str, Script]] = {
    "tok_approve": Script("approved", callbacks=(_SUCCEEDED,)),
    "tok_decline": Script("declined", _DECLINED, "insufficient_funds", callbacks=(_DECLINED,)),
    "tok_timeout": Script("approved; the first answer never comes, and nothing is called back", silences=1),
    "tok_lost": Script("approved; the first answer is 503, and nothing is called back", lost=1),
    "tok_spent": Script(
        "approved; the first answer is 503, and later ones that the source is spent", lost=1, spends=True
    ),
    "tok_outage": Script("503 twice, then approved", outages=2, callbacks=(_SUCCEEDED,)),
    "tok_down": Script("503 for ever; nothing is charged", outages=1_000_000),
    "tok_silent": Script(
        "approved; no answer ever comes, only a callback", silences=1_000_000, callbacks=(_SUCCEEDED,)
    ),
    "tok_no_callback": Script("approved; nothing is called back"),
    "tok_twice": Script("approved; called back twice", callbacks=(_SUCCEEDED, _SUCCEEDED)),
    "tok_early": Script("approved; called back before the answer", callbacks=(_SUCCEEDED,), early=True),
    "tok_disorder": Script("approved; called back in the wrong order", callbacks=(_SUCCEEDED, _PENDING)),
    "tok_late": Script("pending; approved and called back when it is released", _PENDING, later=_SUCCEEDED),
    "tok_late_decline": Script("pending; declined and called back when it is released", _PENDING, later=_DECLINED),
    "tok_forged": Script(
        "pending; somebody else calls back that it is approved",
        _PENDING,
        later=_DECLINED,
        callbacks=(_SUCCEEDED,),
        forged=True,
    ),
}


@dataclass
class Booked:
    """One charge in the provider's books."""

    reference: str
    source: str
    status: ChargeStatus
    amount_minor: int
    currency: str
    decline_code: str = ""
    refunded_minor: int = 0
    is_refunded_by_key: bool = False
    """And not by hand."""
    asked: int = 0

    def told(self) -> Json:
        return {
            "reference": self.reference,
            "status": self.status,
            "amount_minor": self.amount_minor,
            "currency": self.currency,
            "decline_code": self.decline_code,
            "refunded_minor": self.refunded_minor,
        }


@dataclass
class PaymentProvider:
    api_key: str
    callback_secret: str
    callback_url: str
    books: dict[str, Booked] = field(default_factory=dict)
    """By reference."""
    called_back: list[tuple[str, int]] = field(default_factory=list)
    """(reference, how it was answered) of each callback; 0: not at all."""
    charged: Callable[[Booked], Awaitable[None]] | None = None
    """Called when money has moved, before anybody hears of it."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/charges", self._charge, methods=["POST"]),
                Route("/charges/{reference}", self._find, methods=["GET"]),
                Route("/charges/{reference}/refunds", self._refund, methods=["POST"]),
                Route("/charges/{reference}/release", self._release, methods=["POST"]),
            ]
        )

    async def _charge(self, request: Request) -> Response:
        if not self._knows(request):
            return _problem(401, "unknown key")
        asked = await request.json()
        reference, script = str(UUID(asked["reference"])), SCRIPTS.get(asked["source"])
        if script is None or request.headers.get("Idempotency-Key") != f"charge-{reference}":
            return _problem(422, f"sources are {', '.join(SCRIPTS)}")
        booked = self.books.setdefault(
            reference, Booked(reference, asked["source"], _PENDING, asked["amount_minor"], asked["currency"])
        )
        booked.asked += 1
        is_spent = script.spends and booked.asked > 1
        if booked.asked <= script.outages or is_spent:
            return _problem(422, "the source is spent") if is_spent else _problem(503, "out of order")
        afterwards = None
        if booked.asked == script.outages + 1:
            booked.decline_code = script.decline_code
            await self._move(booked, script.status)
            if script.early or script.silences:
                await self._call_back(booked, script)
            else:
                afterwards = BackgroundTask(self._call_back, booked, script)
        if booked.asked <= script.silences:
            return await _say_nothing(request)
        if booked.asked <= script.lost:
            return _problem(503, "it was carried out all the same")
        return JSONResponse(booked.told(), background=afterwards)

    async def _move(self, booked: Booked, status: ChargeStatus) -> None:
        booked.status = status
        if status is _SUCCEEDED and self.charged is not None:
            await self.charged(booked)

    async def _find(self, request: Request) -> Response:
        booked = self._booked(request)
        if booked is None or booked.asked <= SCRIPTS[booked.source].outages:
            return _problem(404, "no such charge")
        return JSONResponse(booked.told())

    async def _refund(self, request: Request) -> Response:
        booked = self._booked(request)
        if booked is None or booked.status is not _SUCCEEDED:
            return _problem(404, "no such charge")
        if request.headers.get("Idempotency-Key") != f"refund-{booked.reference}":
            return _problem(422, "a refund has a key of its own")
        if booked.refunded_minor and not booked.is_refunded_by_key:
            return _problem(409, "it was given back already")
        booked.refunded_minor, booked.is_refunded_by_key = (await request.json())["amount_minor"], True
        return JSONResponse(booked.told())

    async def _release(self, request: Request) -> Response:
        """What a bank would say hours later. Without a key: it is for whoever plays with it."""
        booked = self.books.get(request.path_params["reference"])
        script = None if booked is None else SCRIPTS[booked.source]
        if booked is None or script is None or script.later is None or booked.status is not _PENDING:
            return _problem(404, "no charge that waits")
        await self._move(booked, script.later)
        await self._send(booked, script.later)
        return JSONResponse(booked.told())

    def _booked(self, request: Request) -> Booked | None:
        return self.books.get(request.path_params["reference"]) if self._knows(request) else None

    def _knows(self, request: Request) -> bool:
        return compare_digest(request.headers.get("Authorization", ""), f"Bearer {self.api_key}")

    async def _call_back(self, booked: Booked, script: Script) -> None:
        for status in script.callbacks:
            await self._send(booked, status, secret=signatures.make_secret() if script.forged else "")

    async def _send(self, booked: Booked, status: ChargeStatus, *, secret: str = "") -> None:
        letter = {"type": f"charge.{status}", "data": {"reference": booked.reference, "status": status}}
        body = json.dumps(letter).encode()
        key = signatures.read_secret(secret or self.callback_secret)
        headers = signatures.signed_headers([key], f"evt_{new_id().hex}", int(time()), body)
        answer = 0
        # Whoever does not answer is not called back again: to be asked is enough.
        with suppress(Exception):
            reply = await outgoing.call(
                "POST",
                self.callback_url,
                headers={"Content-Type": "application/json", **headers},
                body=body,
                seconds=_CALLBACK_SECONDS,
                most_bytes=_CALLBACK_BYTES,
            )
            answer = reply.status
        self.called_back.append((booked.reference, answer))


async def _say_nothing(request: Request) -> Response:
    """Until whoever asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return _problem(503, "nobody hears it")


def _problem(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def listening_socket(port: int = 0) -> socket.socket:
    """0: whichever is free."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def make_server(provider: PaymentProvider) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(provider.app(), log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1)
    )


@contextmanager
def served_beside(provider: PaymentProvider) -> Iterator[str]:
    """In a thread of this process: its address."""
    with listening_socket() as listening:
        server = make_server(provider)
        # A daemon, so that no failure between here and the end keeps the process; ended all the same: an event loop
        # that still runs while the interpreter is taken down crashes it.
        thread = Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

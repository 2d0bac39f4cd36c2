"""JSON as RFC 8259 has it and as two parsers read it alike: UTF-8, no NaN, no duplicate keys, no lone surrogates.

Nor anything that could come in but not go out again: numbers beyond a float, nesting beyond the serialiser.
"""

import json
import math
import re
from collections.abc import AsyncGenerator
from typing import Any, Final, NoReturn

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from src.http.attempts import UNREPEATABLE

MAX_SHALLOW_BRACKETS = 100
_BODY: Final = "undercroft.body"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def strict_request(request: Request) -> Request:
    """The same request, whose `json()` refuses what is not JSON."""
    return StrictRequest(request.scope, request.receive, request._send)  # noqa: SLF001 - as FastAPI's custom request classes do


class StrictRequest(Request):
    """Its body outlives it in the scope, for a request of the same scope: see `attempts.py`."""

    async def body(self) -> bytes:
        """As Starlette reads it, but not through `stream()`: two generators for what comes in one message."""
        if "_body" in self.__dict__:
            return self._body
        if _BODY in self.scope:
            self._body = self.scope[_BODY]
            return self._body
        if self._stream_consumed:
            return await super().body()  # which refuses
        chunks = []
        while not self._stream_consumed:
            message = await self._receive()
            if message["type"] == "http.request":
                chunks.append(message.get("body", b""))
                self._stream_consumed = not message.get("more_body", False)
            elif message["type"] == "http.disconnect":
                self._is_disconnected = True
                raise ClientDisconnect
        self._body = self.scope[_BODY] = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._body

    async def stream(self) -> AsyncGenerator[bytes, None]:
        if _BODY in self.scope:
            await self.body()
        else:
            self.scope[UNREPEATABLE] = True
        async for part in super().stream():
            yield part

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = strict_json(await self.body())
        return self._json


def strict_json(body: bytes) -> Any:
    """Parse or refuse: json.JSONDecodeError, which FastAPI tells the client as `json_invalid`."""
    try:
        text = body.decode()
        if body.count(b"[") + body.count(b"{") > MAX_SHALLOW_BRACKETS:
            _refuse_depth(body)
        value = _DECODER.decode(text)
        if _SURROGATE_ESCAPE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise json.JSONDecodeError(_REASONS[type(error)], "", 0) from None
    return value


class _DuplicateKeyError(ValueError):
    pass


class _NotJsonError(ValueError):
    pass


class _TooDeepError(ValueError):
    pass


_REASONS: dict[type[Exception], str] = {
    UnicodeDecodeError: "not UTF-8",
    UnicodeEncodeError: "lone surrogate",
    _TooDeepError: "nested too deep",
    ValueError: "number too large",
    _DuplicateKeyError: "duplicate key",
    _NotJsonError: "NaN and Infinity are not JSON",
}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


def _no_constant(_name: str) -> NoReturn:
    raise _NotJsonError


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)


def _refuse_depth(body: bytes) -> None:
    try:
        from_json(body)  # stops at 200 levels; the serialiser could not write more than 255, the envelope included
    except ValueError as error:
        if "recursion limit" in str(error):
            raise _TooDeepError from None

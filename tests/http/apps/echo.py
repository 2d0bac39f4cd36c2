"""Answers that show what a server made of a request: finished ones, streams, and some that are long."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, Depends, Request, WebSocket
from starlette.responses import PlainTextResponse, StreamingResponse

from src.http.app import create_app

LONG = "x" * 100_000

app = create_app()


def seen(request: Request) -> dict[str, Any]:  # Any: JSON
    scope = request.scope
    return {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "version": scope["http_version"],
        "headers": [f"{name!r}: {value!r}" for name, value in scope["headers"]],
        "scheme": scope["scheme"],
        "root_path": scope["root_path"],
    }


@app.get("/seen")
@app.get("/seen/{part}")
@app.get("/seen/{part}/{other}")
@app.get("/")
async def see(request: Request) -> Any:  # Any: JSON
    return seen(request)


@app.get("/rest/{rest:path}")
async def see_rest(request: Request) -> Any:  # Any: JSON
    return seen(request)


@app.head("/seen")
async def see_head() -> str:
    return "head"


@app.api_route("/body", methods=["POST", "PUT"])
async def echo(body: Annotated[Any, Body()]) -> Any:  # Any: JSON
    return body


@app.post("/late")
async def see_late(request: Request) -> Any:  # Any: JSON
    """What the headers are when the body has come."""
    await request.body()
    return seen(request)


@app.post("/unread")
async def leave_unread() -> str:
    return "unread"


@app.get("/long")
async def long() -> str:
    return LONG


@app.websocket("/socket")
async def socket(connection: WebSocket) -> None:
    await connection.accept()
    await connection.send_text(f"you said {await connection.receive_text()}")
    await connection.close()


_released = asyncio.Event()


@app.get("/held")
async def held() -> str:
    """Until somebody calls /release."""
    await _released.wait()
    return "released"


@app.get("/release")
async def release() -> str:
    _released.set()
    return "released"


async def closing() -> AsyncIterator[None]:
    yield


@app.get("/yield")
async def with_dependency(_: Annotated[None, Depends(closing)]) -> str:
    return "sent by the route itself"


@app.get("/text")
async def text() -> PlainTextResponse:
    return PlainTextResponse("text")


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(iter([b"one", b"two"]))


@app.post("/streamed")
async def stream_beside_the_body(request: Request) -> StreamingResponse:
    """Begins to answer before the body has come."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"begun"
        async for part in request.stream():
            yield part

    return StreamingResponse(parts())


@app.get("/odd-status")
async def odd_status() -> PlainTextResponse:
    return PlainTextResponse("odd", 599)


@app.get("/no-such-status", status_code=777)
async def no_such_status() -> str:
    return "no status line for it"

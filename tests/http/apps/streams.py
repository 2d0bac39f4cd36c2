"""What the envelope must not touch: no body, other bodies, streams, and other applications."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import asyncio
import json
import tempfile
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi import Response as RawResponse
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.routing import Route

from src.http import Response, unwrapped

router = APIRouter()
DOCUMENT = json.dumps({"code": 1, "values": list(range(100))}).encode()

SECONDS = 15
"""Longest wait of a thread for its test."""

_released: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
_blocked: dict[str, threading.Event] = defaultdict(threading.Event)


@router.post("/release/{name}")
async def release(name: str) -> None:
    """Lets the stream of that name go on: the test says when, no clock does."""
    _released[name].set()


@router.get("/none/204", status_code=204)
async def no_content() -> None:
    return None


@router.get("/none/explicit-204")
async def explicit_no_content():
    return Response.success({"id": 1}, code=204)


@router.get("/none/injected-204")
async def injected_no_content(response: RawResponse):
    response.status_code = 204
    return {"id": 1}


@router.get("/none/json-204")
async def json_no_content():
    return RawResponse(status_code=204)


@router.get("/none/205")
async def reset_content():
    return Response.success(code=205)


@router.get("/none/304")
async def not_modified(response: RawResponse):
    response.headers["ETag"] = '"3"'
    response.status_code = 304


@router.get("/redirect")
async def redirect():
    return RedirectResponse("/value/dict")


@router.get("/redirect/class", response_class=RedirectResponse, status_code=303)
async def redirect_class():
    return "/value/dict"


@router.get("/redirect/json")
async def redirect_json():
    return JSONResponse({"see": "/value/dict"}, 302, {"Location": "/value/dict"})


@router.get("/html")
async def html():
    return HTMLResponse("<p>hello</p>")


@router.get("/text")
async def text():
    return PlainTextResponse('{"looks": "like json"}')


@router.get("/file")
async def file(request: Request):
    return FileResponse(request.app.state.document, media_type="application/json", filename="document.json")


@router.get("/file/inline")
async def inline_file(request: Request):
    return FileResponse(request.app.state.document)


async def _slowly(name: str) -> AsyncIterator[bytes]:
    yield b'{"first": 1, '
    await _released[name].wait()
    yield b'"last": 2}'


@router.get("/stream/json/{name}")
async def json_stream(name: str):
    return StreamingResponse(_slowly(name), media_type="application/json")


@router.get("/stream/generator/{name}", response_class=StreamingResponse)
async def generator_stream(name: str) -> AsyncIterator[bytes]:
    async for part in _slowly(name):
        yield part


@router.get("/stream/lines/{name}")
async def json_lines(name: str) -> AsyncIterator[dict[str, int]]:
    yield {"first": 1}
    await _released[name].wait()
    yield {"last": 2}


@router.get("/stream/plain-lines")
def plain_json_lines() -> Iterator[dict[str, int]]:
    yield {"first": 1}
    yield {"last": 2}


@router.get("/stream/events/{name}", response_class=EventSourceResponse)
async def events(name: str) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(data={"first": 1}, event="tick", id="1")
    await _released[name].wait()
    yield ServerSentEvent(data={"last": 2})


sockets = APIRouter()


@sockets.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"echo": await websocket.receive_json()})
    await websocket.close()


@router.get("/standard")
@unwrapped
async def standard() -> dict[str, str]:
    return {"access_token": "x"}


@router.get("/standard/plain-def")
@unwrapped
def plain_standard() -> dict[str, str]:
    return {"access_token": "x"}


@router.get("/never")
async def never() -> None:
    await asyncio.Event().wait()


@router.get("/never/plain-def/{name}")
def never_plainly(request: Request, name: str) -> None:
    _blocked[name].wait(SECONDS)


@router.post("/unblock/{name}")
async def unblock(name: str) -> None:
    _blocked[name].set()


@router.post("/upload")
async def upload(request: Request) -> int:
    return len(await request.body())


@router.get("/seen")
async def seen(request: Request) -> dict[str, str | None]:
    """What the service takes its caller to be."""
    return {
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "host": request.url.hostname,
    }


@router.get("/never/answer/{name}")
async def wait_for(name: str) -> str:
    await _released[name].wait()
    return name


async def _starlette_value(_request: StarletteRequest) -> JSONResponse:
    return JSONResponse({"plain": True})


async def _starlette_crash(_request: StarletteRequest) -> JSONResponse:
    raise RuntimeError("canary-mounted")


def _plain_fastapi() -> FastAPI:
    app = FastAPI()

    @app.get("/value")
    async def value() -> dict[str, Any]:
        return {"plain": True}

    return app


def add_streams(app: FastAPI) -> None:
    document = Path(tempfile.mkdtemp(prefix="undercroft-document-", dir=Path.cwd())) / "document.json"
    document.write_bytes(DOCUMENT)
    app.state.document = document
    app.include_router(router)
    app.include_router(sockets)
    app.mount("/mounted/fastapi", _plain_fastapi())
    app.mount(
        "/mounted/starlette", Starlette(routes=[Route("/value", _starlette_value), Route("/crash", _starlette_crash)])
    )

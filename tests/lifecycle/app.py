"""A team's streams: one that ends, and one that does not."""

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from src.http.app import create_app

PARTS = 20
app = create_app()


async def _parts(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d\n" % number
        await asyncio.sleep(0.05)


@app.get("/parts")
async def parts() -> StreamingResponse:
    return StreamingResponse(_parts(PARTS))


@app.get("/endless")
async def endless() -> StreamingResponse:
    return StreamingResponse(_parts(1_000_000))

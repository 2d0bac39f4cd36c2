"""Patterns, Structured logging: read from the standard output of the server, as production writes it."""

import json
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.server import Server
from tests.support.waiting import eventually


async def logged(server: Server, message: str, request_id: str) -> dict[str, Any]:  # Any: whatever a line says
    """The line with this message that the request wrote; lines are written a moment after the answer."""
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        lines = [json.loads(line) for line in server.output().splitlines() if request_id in line]
        found[:] = [line for line in lines if line["message"] == message]
        return bool(found)

    await eventually(is_there)
    (line,) = found
    return line


async def test_what_is_bound_becomes_fields_of_a_json_line(server: Server, client: httpx2.Client) -> None:
    request_id = uuid4().hex

    client.post("/logging/orders/7/completed", headers={"X-Request-ID": request_id})

    line = await logged(server, "Order completed", request_id)
    assert line["level"] == "INFO"
    assert line["order_id"] == 7
    assert line["amount"] == "1234567.890"
    assert line["request_id"] == request_id


async def test_exception_brings_its_traceback_by_itself(server: Server, client: httpx2.Client) -> None:
    request_id = uuid4().hex

    answer = client.post("/logging/orders/8/failed", headers={"X-Request-ID": request_id})

    line = await logged(server, "Order processing failed", request_id)
    assert answer.status_code == 200
    assert line["level"] == "ERROR"
    exception = json.dumps(line["exception"])
    assert "LookupError" in exception
    assert "parcel of order 8 is lost" in exception
    assert "load_parcel" in exception
    assert "structured_logging.py" in exception

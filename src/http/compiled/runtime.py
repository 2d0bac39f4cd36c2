"""What the generated coroutines call: the rarer turns of a request, as FastAPI and the envelope take them."""

import email.message
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, NoReturn

from fastapi._body_limit import get_body_limit_error
from fastapi._compat import Undefined
from fastapi._compat.v2 import _regenerate_error_with_loc
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.routing import _extract_endpoint_context
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import ValidationError
from starlette.background import BackgroundTasks
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import Request
from starlette.responses import Response as RawResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from src.http.attempts import BEFORE_COMMIT
from src.http.envelope import open_envelope, wrapped
from src.http.errors import envelope
from src.http.middleware import Stream
from src.http.response import Response

JSON = "application/json"
Outcome = bytes | tuple[int, bytes] | RawResponse
Context = Callable[[Scope], Any]  # Any: FastAPI's private type


def endpoint_context(dependant: Dependant) -> Context:
    """Where an endpoint stands in the code, for the text of FastAPI's own exceptions."""

    def context(scope: Scope) -> Any:  # Any: FastAPI's private type
        found = _extract_endpoint_context(dependant.call)
        if dependant.path:
            found["path"] = f"{scope['method']} {scope.get('root_path', '').rstrip('/')}{dependant.path}"
        return found

    return context


def find_header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


async def read_body(request: Request, strict_content_type: bool, context: Context) -> Any:  # noqa: FBT001 # Any: JSON, bytes, or Undefined
    """As FastAPI reads it: JSON where the content type says so, else the bytes."""
    try:
        body = await request.body()
        if not body:
            return Undefined
        kind = find_header(request.scope, b"content-type")
        if kind == JSON or (_is_json(kind) if kind else not strict_content_type):
            return await request.json()
    except json.JSONDecodeError as error:
        raise RequestValidationError(
            [
                {
                    "type": "json_invalid",
                    "loc": ("body", error.pos),
                    "msg": "JSON decode error",
                    "input": {},
                    "ctx": {"error": error.msg},
                }
            ],
            body=error.doc,
            endpoint_ctx=context(request.scope),
        ) from error
    except HTTPException:
        raise
    except Exception as error:
        if MAX_BODY_SIZE_SCOPE_KEY in request.scope and (known := get_body_limit_error(error)):
            raise known from error
        raise HTTPException(status_code=400, detail="There was an error parsing the body") from error
    return body


def _is_json(content_type: str) -> bool:
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def errors_of(invalid: ValidationError, loc: tuple[str, ...]) -> list[Any]:  # Any: pydantic's error details
    """As `ModelField.validate` tells them. To ask it once more would run a validator, or empty a generator, twice."""
    return _regenerate_error_with_loc(errors=invalid.errors(include_url=False), loc_prefix=loc)


def invalid_request(
    errors: list[Any], body: Any, where: Any
) -> RequestValidationError:  # Any: as above; what came in; Context's
    return RequestValidationError(errors, body=None if body is Undefined else body, endpoint_ctx=where)


def invalid_answer(
    errors: list[Any], value: Any, where: Any
) -> ResponseValidationError:  # Any: as above; what was returned
    return ResponseValidationError(errors=errors, body=value, endpoint_ctx=where)


def new_response() -> RawResponse:
    """The `Response` that dependencies and endpoints may set headers and a status on: without either at first."""
    response = RawResponse.__new__(RawResponse)
    response.status_code = None  # type: ignore[assignment] # as FastAPI has it: nobody has set one
    response.background = None
    response.body = b""
    response.raw_headers = []
    return response


def answer(  # noqa: PLR0917, PLR0913 - an answer has these parts
    value: RawResponse | Response[Any],  # Any: the response model judges it
    scope: Scope,
    serialise: Callable[[Any, Scope], bytes],  # Any: as above
    status: int,
    response: RawResponse | None,
    background: BackgroundTasks | None,
) -> Outcome:
    """What an endpoint has put into an envelope or a response by itself."""
    if isinstance(value, RawResponse):
        if value.background is None:
            value.background = background
        return wrapped(value, None)
    if response is None:
        response = new_response()
    data, msg, code = open_envelope(value, response)
    made = serialise(data, scope)
    if response.raw_headers or background is not None:
        return wrapped(_raw(made, status, response, background), (msg, code))
    status = response.status_code or status
    if not is_body_allowed_for_status_code(status):
        return wrapped(_raw(made, status, response, background), (msg, code))
    return status, envelope(code if code is not None else status, msg, made)


def dressed(
    outcome: bytes, prefix: int, status: int, response: RawResponse | None, background: BackgroundTasks | None
) -> RawResponse:
    """A finished value whose headers, status or background tasks were set on the way."""
    return wrapped(_raw(outcome[prefix:-1], status, response, background), ("success", None))


def _raw(data: bytes, status: int, response: RawResponse | None, background: BackgroundTasks | None) -> RawResponse:
    if response is not None and response.status_code:
        status = response.status_code
    made = RawResponse(data, status, media_type=JSON, background=background)
    if not is_body_allowed_for_status_code(status):
        made.body = b""
    if response is not None:
        made.headers.raw.extend(response.headers.raw)
    return made


def as_response(outcome: Outcome, status: int) -> RawResponse:
    if isinstance(outcome, RawResponse):
        return outcome
    status, body = outcome if isinstance(outcome, tuple) else (status, outcome)
    # As RawResponse(body, status, media_type=JSON) makes it, at a third of the price.
    response = new_response()
    response.status_code = status
    response.body = body
    response.media_type = JSON
    response.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    return response


async def run_before_commit(scope: Scope, outcome: Outcome, status: int) -> Outcome:
    response = as_response(outcome, status)
    body, headers = response.body, list(response.raw_headers)
    for finisher in scope[BEFORE_COMMIT]:
        await finisher(response)
    untouched = response.body is body and response.raw_headers == headers and response.background is None
    untouched = untouched and response is not outcome
    return (response.status_code, bytes(body)) if untouched else response


async def deliver(outcome: Outcome, status: int, scope: Scope, receive: Receive, send: Send) -> None:
    response = as_response(outcome, status)
    sent: ASGIApp = response if hasattr(response, "body") else Stream(response)
    await sent(scope, receive, send)


async def fail(generator: AsyncGenerator[Any, None], error: BaseException) -> None:  # Any: what a dependency yields
    """What a dependency does with an exception, which it raises again: it or another."""
    try:
        await generator.athrow(error)
    except RuntimeError as changed:
        # Python turns these two into another exception where they leave a generator (PEP 479).
        if not (isinstance(error, StopIteration | StopAsyncIteration) and changed.__cause__ is error):
            raise


async def finish(generator: AsyncGenerator[Any, None]) -> None:  # Any: what a dependency yields
    """What stands behind the `yield` of a dependency: the COMMIT, say."""
    try:
        await generator.__anext__()
    except StopAsyncIteration:
        return
    _complain()


def _complain() -> NoReturn:
    raise RuntimeError("generator didn't stop")

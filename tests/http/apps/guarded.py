"""The service with a team's own middleware around its routes, which does what the caller asks for."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from src.exceptions import BusinessException
from src.http.app import create_app
from src.shared.errors import ErrorCode
from tests.http.apps.letters import add_letters
from tests.http.apps.refusals import CANARY, SecretMechanismError, add_refusals
from tests.http.apps.streams import add_streams


def _do(wish: str) -> None:
    match wish:
        case "crash":
            raise SecretMechanismError(CANARY)
        case "refuse":
            raise BusinessException(ErrorCode.PERMISSION_DENIED, data={"required": ["a:b"]})
        case "http":
            raise HTTPException(429, "Slow down", {"Retry-After": "7"})


class Based(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        wish = request.headers.get("x-based", "")
        _do(wish)
        if wish == "answer":
            return PlainTextResponse("from the middleware")
        if wish == "read":
            await request.body()
        response = await call_next(request)
        _do(wish.removesuffix("-after"))
        response.headers["X-Based"] = "passed"
        return response


class Pure:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _do(dict(scope["headers"]).get(b"x-pure", b"").decode())
        await self.app(scope, receive, send)


def _guarded() -> FastAPI:
    app = create_app()
    add_letters(app)
    add_refusals(app)
    add_streams(app)
    app.add_middleware(Based)
    app.add_middleware(Pure)
    return app


app = _guarded()

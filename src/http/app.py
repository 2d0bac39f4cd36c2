"""Hanging up the service: `create_app()` and what happens around its life."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from fastapi import FastAPI
from loguru import logger
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src import __version__
from src.cache import close_cache, get_cache
from src.config import Settings, get_settings, refuse_weak, use_settings, with_secret
from src.http.compiled import install
from src.http.docs import install_docs
from src.http.envelope import install_envelope
from src.http.errors import install_error_handlers
from src.http.front import Direct, Exchange, Front
from src.http.idempotency import install_idempotency
from src.http.middleware import Guard, Limits, Proxies
from src.http.openapi import install_openapi, operation_id
from src.http.readiness import get_readiness
from src.http.router import root
from src.jobs import working
from src.shared.database import close_engine
from src.shared.leases import keeping_lease
from src.shared.logging import set_up_logging, shut_down_logging


class Undercroft(FastAPI):
    """FastAPI, with what stands around each request built in: the guard is the outermost layer whatever a team
    adds with `add_middleware`, and the routes get their envelopes when the app starts, those added later included."""

    settings: Settings
    _front: Front | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, partial(self._send_of_lifespan, send))
        elif self._front is None:
            await super().__call__(self._whole(scope), receive, send)
        else:
            await self._serve_below(scope, receive, send, None)

    @property
    def direct(self) -> Direct | None:
        """For our own server: fewer calls on the way to a compiled route."""
        if self._front is None:
            return None
        return self._serve_below if self.root_path else self._front.serve

    async def _serve_below(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None) -> None:
        assert self._front is not None
        scope = self._whole(scope)
        if self.root_path:
            scope["root_path"] = self.root_path
        await self._front.serve(scope, receive, send, exchange)

    def _whole(self, scope: Scope) -> Scope:
        """What the proxy stripped belongs to the path (ASGI); without it Starlette finds nothing that is mounted."""
        prefix, path = self.root_path or scope.get("root_path", ""), scope["path"]
        if prefix and path != prefix and not path.startswith(f"{prefix}/"):
            return {**scope, "path": prefix + path}
        return scope

    async def _send_of_lifespan(self, send: Send, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete" and self._native_telemetry.enabled():
            self._front = None  # somebody set it up while the app started; FastAPI's own way tells it of each request
        await send(message)

    def build_middleware_stack(self) -> ASGIApp:
        install_envelope(self)
        routes = install(self) if self.settings.http.compiled_routes else None
        limits = Limits(super().build_middleware_stack(), self.settings)
        proxies = Proxies(limits, self.settings.http.trusted_proxies)
        guard = Guard(proxies)
        foreign = self.user_middleware or self.max_body_size is not None or self._native_telemetry.enabled()
        if routes is not None and not foreign:
            # What a team puts around its app must see each request; then compiled routes stand at the router's place only.
            self._front = Front(self, guard, routes, limits, proxies)
        return guard


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service. `settings`, or those of the process's sources, become the settings of the process.

    Raises:
        ConfigurationError: names each setting that is missing, weak or wrong.
    """
    settings = settings if settings is not None else get_settings()
    refuse_weak(settings)
    settings = use_settings(with_secret(settings))
    app = Undercroft(
        title=settings.app.name,
        version=__version__,
        lifespan=_lifespan,
        # The pages are ours, without a foreign host; a redirect for a slash would follow the Host header.
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        root_path=settings.http.root_path,
    )
    app.settings = settings
    app.include_router(root)
    install_error_handlers(app)
    install_idempotency(app)
    install_openapi(app)
    if settings.docs_enabled:
        install_docs(app)
    if settings.http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.http.cors_origins,
            allow_credentials=settings.http.cors_allow_credentials,
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Idempotency-Replayed", "Retry-After"],
        )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    assert isinstance(app, Undercroft)
    set_up_logging(app.settings)
    readiness = await get_readiness()
    readiness.draining = False
    await get_cache()  # a CACHE__URL that cannot be read stops the process here, not its first user
    # What a start leaves behind stays as long as the process: to look it through again costs each full collection 50 ms,
    # in which nobody is answered.
    gc.freeze()
    logger.bind(env=app.settings.app.env.value).info("Started")
    if app.settings.production and app.settings.mail.url.startswith("file:"):
        logger.warning("MAIL__URL is not set: nobody gets a mail, they are written to a folder")
    try:
        with readiness.drained_first(app.settings.drain_seconds):
            async with (
                keeping_lease(app.settings.auth.principal_cache_seconds),
                working() if app.settings.outbox.dispatch else nullcontext(),
            ):
                yield
    finally:
        readiness.draining = True
        logger.info("Stopping")
        await close_cache()
        await close_engine()
        shut_down_logging()

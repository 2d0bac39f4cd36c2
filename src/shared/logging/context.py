"""Who is being served: each log line that is written during a request says so by itself."""

from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from uuid import UUID

from src.shared.inline import Scope


@dataclass(slots=True)
class RequestContext:
    """What the outermost middleware knows at first (`request_id`), and what is found out on the way.

    One mutable object, not one variable a field: dependencies may run in copies of the context, and a variable
    that is set in a copy is not seen by the middleware that writes the access line.
    """

    request_id: str
    scope: Scope | None = None
    user_id: UUID | str | None = None
    route: str | None = None


_request: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def current_request() -> RequestContext | None:
    return _request.get()


# The variable's own methods: each request calls both.
enter_request: Callable[[RequestContext], Token[RequestContext | None]] = _request.set
leave_request: Callable[[Token[RequestContext | None]], None] = _request.reset

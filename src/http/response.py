"""The envelope as teams type it: `Response.success(...)`, `Response.error(...)`, `Response[T]`."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from src.shared.errors import ErrorCode, explain

T = TypeVar("T")


class Response(BaseModel, Generic[T]):
    """`{code, msg, data}`. A route may return a bare value as well: it is wrapped.

    `data` still passes through the route's response model, so that a column which the model
    leaves out does not escape through the explicit form.
    """

    code: int | None
    msg: str
    data: T

    @classmethod
    def success(
        cls, data: Any = None, msg: str = "success", code: int | None = None
    ) -> "Response[Any]":  # Any: the response model judges it
        """`code` in 200..299 is the HTTP status too; without one it is the route's status."""
        return cls.model_construct(code=code, msg=msg, data=data)

    @classmethod
    def error(cls, code: ErrorCode, msg: str = "", data: Any = None) -> "Response[Any]":  # Any: JSON-like facts
        """A refusal that is returned: like raising `BusinessException`, it rolls back. `msg` defaults to the code's text."""
        code = ErrorCode(code)
        return cls.model_construct(code=code, msg=msg or explain(code).meaning, data=data)

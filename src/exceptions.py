"""The one exception with which a domain says no."""

from collections.abc import Mapping
from typing import Any

from src.shared.errors import ErrorCode, explain


class BusinessException(Exception):  # noqa: N818 - the name that teams type
    """A refusal: a code for programs, a sentence for people, facts in `data`.

    It rolls the request's transaction back and becomes an enveloped 4xx at the front desk.
    `msg` defaults to the code's own text; `data` must be JSON-like and is shown to the client.
    """

    def __init__(self, code: ErrorCode, msg: str = "", data: Mapping[str, Any] | list[Any] | None = None) -> None:
        self.code = code
        self.msg = msg or explain(code).meaning
        self.data = data
        super().__init__(self.msg)

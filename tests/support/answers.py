"""Reading answers of the service, and asking it many things at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import httpx2

from src.shared.errors import ERROR_CODE_TO_HTTP, ErrorCode

T = TypeVar("T")
# They differ from one answer to the next, whatever the answer says.
_PASSING = {"date", "x-request-id"}


def data_of(answer: httpx2.Response, status: int = 200) -> Any:  # Any: JSON
    """What is in the envelope of an answer that must be a success."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"code", "msg", "data"}
    assert body["code"] == status
    return body["data"]


def refused(answer: httpx2.Response, code: ErrorCode) -> Any:  # Any: JSON
    """What is in the envelope of an answer that must refuse with this code."""
    assert (answer.status_code, answer.json()["code"]) == (ERROR_CODE_TO_HTTP[code], code), answer.text
    return answer.json()["data"]


def refused_fields(answer: httpx2.Response) -> set[str]:
    """The fields that a 422 complains about."""
    return {error["field"] for error in refused(answer, ErrorCode.INVALID_REQUEST)["errors"]}


def told(answer: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that an answer tells: two that tell the same cannot be told apart."""
    headers = {name: value for name, value in answer.headers.items() if name not in _PASSING}
    return answer.status_code, answer.content, headers


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Their results, in order; all calls start together."""
    waiting = list(calls)
    start = Barrier(len(waiting))

    def run(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(waiting)) as threads:
        return list(threads.map(run, waiting))

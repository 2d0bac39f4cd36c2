"""`Depends(idempotent)` or `Depends(idempotency_required)` on a write: a retry with the same key gets the first answer.

The dependency claims the key in the request's transaction; the route's envelope keeps the finished bytes there
before COMMIT. A refusal rolls both back, so the key is free for a second attempt.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request
from pydantic import StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response as RawResponse

from src.auth.dependencies import CurrentUser
from src.exceptions import BusinessException
from src.http.envelope import before_commit, keeps_answer, reads_body
from src.idempotency import services as idempotency
from src.shared.database import SessionDep
from src.shared.errors import ErrorCode
from src.shared.watching import vouch

IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
_Key = Annotated[
    IdempotencyKey | None, Header(description="A fresh random value for each new intent, the same one for its retries")
]


class ReplayedAnswer(Exception):  # noqa: N818 - not an error: the way past an endpoint that must not run twice
    def __init__(self, answer: idempotency.Answer) -> None:
        self.answer = answer


@reads_body
@keeps_answer
async def idempotent(request: Request, session: SessionDep, user: CurrentUser, idempotency_key: _Key = None) -> None:
    """A key is honoured when there is one."""
    if idempotency_key is not None:
        await _claim(request, session, user, idempotency_key)


@reads_body
@keeps_answer
async def idempotency_required(
    request: Request, session: SessionDep, user: CurrentUser, idempotency_key: _Key = None
) -> None:
    """No write without a key. Refused: IDEMPOTENCY_KEY_REQUIRED."""
    await _claim(request, session, user, await required_key(idempotency_key))


async def required_key(idempotency_key: _Key = None) -> str:
    """For what keeps it itself, since others are asked in between. Refused: IDEMPOTENCY_KEY_REQUIRED."""
    if idempotency_key is None:
        raise BusinessException(ErrorCode.IDEMPOTENCY_KEY_REQUIRED)
    return idempotency_key


async def _claim(request: Request, session: AsyncSession, user: CurrentUser, key: str) -> None:
    body, query = await request.body(), request.scope["query_string"]
    # What is asked for stands in the query and in a precondition too, where there is one.
    precondition = request.headers.get("if-match", "").encode("latin-1")
    asked = b"\n".join((*filter(None, (query, precondition)), body))
    claimed = idempotency.claim_for(user.id, f"{request.method} {request.scope['path']}", key, asked)
    answer = await idempotency.claim(session, claimed)
    if answer is not None:
        # Who committed it may have died, or given up waiting, before it counted everywhere.
        await vouch(session)
        raise ReplayedAnswer(answer)

    async def keep(response: RawResponse) -> None:
        media_type = next(
            (str(value, "latin-1") for name, value in response.raw_headers if name == b"content-type"), ""
        )
        await idempotency.keep(
            session, claimed, idempotency.Answer(response.status_code, media_type, bytes(response.body))
        )

    before_commit(request, keep)


async def _replay(_request: Request, replayed: Exception) -> RawResponse:
    assert isinstance(replayed, ReplayedAnswer)
    answer = replayed.answer
    headers = {"Idempotency-Replayed": "true"}
    if answer.media_type:
        headers["content-type"] = answer.media_type
    return RawResponse(answer.body, answer.status, headers)


def install_idempotency(app: FastAPI) -> None:
    app.add_exception_handler(ReplayedAnswer, _replay)


Idempotent = Depends(idempotent)
IdempotencyRequired = Depends(idempotency_required)
RequiredKey = Annotated[str, Depends(required_key)]

"""The service with routes that show who answered and what is remembered, and with faults to plant in it."""

import os

from fastapi import APIRouter, Depends

from src.auth import current_user, principals, require_permissions
from src.auth.dependencies import CurrentUser
from src.main import create_app
from src.shared import leases, watching
from src.shared.database import SessionDep
from src.shared.generation import Generation
from src.users import User

router = APIRouter()


@router.get("/guarded", dependencies=[Depends(require_permissions("order:read"))])
async def guarded() -> int:
    return os.getpid()


@router.get("/remembers")
async def remembers() -> bool:
    return principals.may_remember()


@router.put("/me/{name}")
async def rename(name: str, user: CurrentUser) -> None:
    user.username = name


@router.put("/me/{name}/and-refuse")
async def rename_and_refuse(name: str, user: CurrentUser) -> None:
    user.username = name
    raise LookupError


@router.get("/me")
async def me(session: SessionDep, user: CurrentUser, again: User = Depends(current_user)) -> dict[str, object]:  # noqa: B008, FAST002 - as everybody types it
    found = await session.get(User, user.id)
    told = user.username
    await session.refresh(user)
    return {"name": told, "same": user is again is found, "in_session": user in session, "refreshed": user.username}


match os.environ.get("PLANTED_FAULT"):
    case "never advances":
        Generation.advance = lambda self: None  # type: ignore[method-assign] # the fault
    case "never waits":
        watching.Watch.wait_for_others = lambda self, pooled, *, in_transaction=False: None  # type: ignore[method-assign] # the fault
    case "trusts briefly":
        vars(leases).update(TRUSTED_SECONDS=0.5, _RENEWED_EVERY_SECONDS=0.05)  # not to wait for long
app = create_app()
app.include_router(router)

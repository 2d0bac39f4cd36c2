"""The service with routes that demand roles by name, as a team would write them."""

from fastapi import APIRouter, Depends

from src.auth import require_roles
from src.main import create_app

# One for each test: a name is given once.
DEMANDED = ("auditor", "inspector", "warden", "registrar", "bursar", "notary", "steward")
router = APIRouter()


async def _enter() -> str:
    return "welcome"


for name in DEMANDED:
    router.add_api_route(f"/rooms/{name}", _enter, name=name, dependencies=[Depends(require_roles(name))])

app = create_app()
app.include_router(router)

"""Patterns, Response format: a bare value and the explicit wrapper."""

# Typed as the document has it:
# mypy: disable-error-code="no-untyped-def"

from fastapi import APIRouter

from src.http import Response

router = APIRouter()


@router.get("/things")
async def list_things():
    # Return raw data (it is wrapped)
    return [{"id": 1}]


@router.post("/things")
async def create_thing(item: dict[str, str]):
    # Explicit wrapper
    return Response.success(data=item, msg="Created", code=201)

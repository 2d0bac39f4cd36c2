"""Patterns, Dependency injection: settings are injected."""

# Typed as the document has it:
# ruff: noqa: B008, FAST002
# mypy: disable-error-code="no-untyped-def"

from fastapi import APIRouter, Depends

from src.config import Settings, get_settings

router = APIRouter()


@router.get("/settings/max-retries")
async def handler(settings: Settings = Depends(get_settings)):
    max_retries = settings.app.max_retries
    return max_retries  # noqa: RET504 - the line above is the pattern

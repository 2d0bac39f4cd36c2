"""Patterns, Retry: a call to another service, tried again while the network has a bad moment."""

# Typed as the document has it:
# mypy: disable-error-code="no-untyped-def"

import httpx
from fastapi import APIRouter

from src.retry import retry_on_network

router = APIRouter()


@retry_on_network()
async def fetch_user(user_id: int):
    async with httpx.AsyncClient() as client:
        response = await client.get(f"https://api.example.com/users/{user_id}")
        response.raise_for_status()
        return response.json()


@router.get("/fetched-users/{user_id}")
async def show_user(user_id: int):
    return await fetch_user(user_id)

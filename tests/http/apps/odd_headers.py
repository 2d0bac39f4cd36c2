"""A route whose answer has a header that no server can send."""

from fastapi import APIRouter, HTTPException

from src.http.app import create_app

router = APIRouter()


@router.get("/broken-header")
async def broken_header(name: str) -> None:
    raise HTTPException(400, "no", headers={"X-Name": name})


app = create_app()
app.include_router(router)

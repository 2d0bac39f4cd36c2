"""The door: `uvicorn src.main:app`, or `python -m src serve`."""

from src.http.app import create_app

__all__ = ["app", "create_app"]

app = create_app()

"""The API's own pages: Swagger UI from this package, under a policy that lets nothing in from elsewhere."""

import html
from pathlib import Path

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

_FILES = Path(__file__).parent / "static" / "swagger-ui"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{root}/docs/assets/swagger-ui.css">
<link rel="stylesheet" href="{root}/docs/assets/index.css">
<link rel="icon" href="{root}/docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{root}/docs/assets/swagger-ui-bundle.js"></script>
<script src="{root}/docs/assets/swagger-initializer.js" data-openapi-url="{root}/openapi.json"></script>
</body>
</html>
"""


def install_docs(app: FastAPI) -> None:
    async def openapi(request: Request) -> Response:
        schema = app.openapi()
        root = request.scope.get("root_path", "").rstrip("/")
        if root:
            schema = schema | {"servers": [{"url": root}]}
        return Response(to_json(schema), media_type="application/json")

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        return HTMLResponse(
            _PAGE.replace("{root}", root).replace("{title}", html.escape(app.title)),
            headers={"Content-Security-Policy": _POLICY},
        )

    async def home(request: Request) -> Response:
        return RedirectResponse(request.scope.get("root_path", "").rstrip("/") + "/docs")

    app.add_route("/", home, include_in_schema=False)
    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=_FILES), name="docs-assets")

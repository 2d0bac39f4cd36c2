"""The service with a route that logs what it is sent in every way there is, and ends in an exception of those words."""

import logging
import warnings

from fastapi import Request
from loguru import logger

from src.main import create_app

app = create_app()


@app.post("/talks")
async def talk(request: Request) -> None:
    text = (await request.body()).decode("utf-8", "surrogatepass")
    logger.bind(value=text, nested={text: [text]}, **{text[:100]: 1}).info(text)
    logger.info("{}", text)
    logging.getLogger("library").warning("%s", text, extra={"value": text})
    warnings.warn(text, stacklevel=1)
    raise RuntimeError(text)

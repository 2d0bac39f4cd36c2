"""The way out: a mail server, or a folder where there is none."""

import os
import ssl
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
from anyio.to_thread import run_sync
from loguru import logger

from src.config import get_settings

_PORTS = {"smtp": 587, "smtps": 465}


async def send(message: EmailMessage, message_id: UUID) -> None:
    """
    Raises:
        aiosmtplib.SMTPException, OSError: it may be tried again; the receiver knows a repetition by its Message-ID.
    """
    url = urlsplit(get_settings().mail.url)
    if url.scheme == "file":
        path = Path(url.path) / f"{message_id}.eml"
        await run_sync(_write, path, message.as_bytes())
        logger.bind(path=str(path.absolute())).info("Mail written")
        return
    host, port = url.hostname or "", url.port or _PORTS[url.scheme]
    await aiosmtplib.send(
        message,
        hostname=host,
        port=port,
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
        timeout=get_settings().mail.timeout_seconds,
        **_encryption(url.scheme, url.query, host),
    )
    logger.bind(mail_id=str(message_id)).info("Mail sent")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def _encryption(scheme: str, query: str, host: str) -> dict[str, Any]:  # Any: aiosmtplib's own arguments
    """STARTTLS that is only asked for is no protection (RFC 8314 §3.3), so it is required, but on one's own machine."""
    if scheme == "smtps":
        return {"use_tls": True, "tls_context": ssl.create_default_context()}
    wanted = query.removeprefix("tls=") or ("auto" if _is_here(host) else "required")
    if wanted == "none":
        return {"start_tls": False}
    context = ssl.create_default_context()
    return {"start_tls": True if wanted == "required" else None, "tls_context": context}


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Writing mails, and sending what was written."""

import asyncio
import unicodedata
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Final

import idna
from loguru import logger
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import get_settings
from src.mail import rendering, transport
from src.mixins import utc_now
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.keys import pseudonym

KIND: Final = "mail"
_COUNTED: Final = timedelta(hours=1)


async def write(
    session: AsyncSession, template: str, *, to: str, is_proven: bool | None = None, sort: str = "own", **values: str
) -> bool:
    """A mail that is sent if the session's transaction is committed, and not otherwise; those that strangers can ask for
    come to one mailbox in order, and so do the others.

    Those others are brought about by somebody who is logged in: then `is_proven` says whether the address is known to be
    theirs, and `sort` which of them it must not be kept out by. False, and no mail, when the mailbox got as many of its sort
    as it may within the hour.

    Raises:
        jinja2.TemplateError: now rather than behind the caller's back.
    """
    content, mailbox = rendering.render(template, values), f"mail:{pseudonym(_mailbox(to))}"
    settings = get_settings().mail
    if is_proven is not None:
        mailbox += f":{sort}"
    most = settings.per_proven_mailbox if is_proven else settings.per_mailbox
    if await outbox.count_recent(session, mailbox, within=_COUNTED) >= most:
        logger.bind(template=template, mailbox=mailbox).warning("A mailbox got too many mails, this one is not sent")
        return False
    await outbox.publish(
        session,
        KIND,
        aggregate=mailbox,
        payload={
            "to": to,
            "subject": content.subject,
            "text": content.text,
            "html": content.html,
            "date": format_datetime(utc_now()),
        },
    )
    return True


def _mailbox(address: str) -> str:
    """However it is spelled."""
    local, _, domain = unicodedata.normalize("NFKC", address).casefold().rpartition("@")
    return f"{local}@{_ascii(domain)}"


async def deliver(event: Event) -> None:
    """The outbox's handler for what `write` wrote."""
    async with asyncio.timeout(get_settings().mail.timeout_seconds):
        await transport.send(_message(event), event.id)


def _message(event: Event) -> EmailMessage:
    sender = get_settings().mail.sender
    letter = {name: str(value) for name, value in event.payload.items()}
    message = EmailMessage(policy=SMTP.clone(utf8=not letter["to"].rpartition("@")[0].isascii()))
    message["From"] = sender
    message["To"] = _address(letter["to"])
    message["Subject"] = letter["subject"]
    message["Date"] = letter["date"]
    # The same for each attempt.
    message["Message-ID"] = f"<{event.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notice in return
    message.set_content(letter["text"])
    message.add_alternative(letter["html"], subtype="html")
    return message


def _address(to: str) -> Address:
    local, _, domain = to.rpartition("@")
    return Address(username=local, domain=_ascii(domain))


def _ascii(domain: str) -> str:
    """A mail server knows letters beyond ASCII in a domain by what they are in the DNS."""
    return domain if domain.isascii() else idna.encode(domain, uts46=True).decode()

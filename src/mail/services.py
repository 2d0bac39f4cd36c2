"""Writing mails, and sending what was written."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Final

import idna
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import get_settings
from src.mail import rendering, transport
from src.mixins import utc_now
from src.outbox import services as outbox
from src.outbox.services import Event
from src.shared.keys import pseudonym

KIND: Final = "mail"


async def write(session: AsyncSession, template: str, *, to: str, **values: str) -> None:
    """A mail that is sent if the session's transaction is committed, and not otherwise; to one address in order.

    Raises:
        jinja2.TemplateError: now rather than behind the caller's back.
    """
    content = rendering.render(template, values)
    await outbox.publish(
        session,
        KIND,
        aggregate=f"mail:{pseudonym(to)}",
        payload={
            "to": to,
            "subject": content.subject,
            "text": content.text,
            "html": content.html,
            "date": format_datetime(utc_now()),
        },
    )


async def deliver(event: Event) -> None:
    """The outbox's handler for what `write` wrote."""
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
    # A mail server knows letters beyond ASCII in a domain by what they are in the DNS.
    return Address(username=local, domain=domain if domain.isascii() else idna.encode(domain, uts46=True).decode())

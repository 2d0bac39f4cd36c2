"""A real mail server, and what arrived there."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from threading import Condition

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.ports import reserved_port

PATIENCE_SECONDS = 20
# It lives in the process of the tests, some of which listen to all that is logged there.
logging.getLogger("mail.log").disabled = True
_CODE = re.compile(r"^    (\S{43})$", re.MULTILINE)


@dataclass(frozen=True)
class Mail:
    message: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        body = self.message.get_body(("plain",))
        assert body is not None
        return str(body.get_content()).replace("\r\n", "\n")

    @property
    def html(self) -> str:
        body = self.message.get_body(("html",))
        assert body is not None
        return str(body.get_content())

    @property
    def code(self) -> str:
        """What the reader is asked to type in."""
        found = _CODE.search(self.text)
        assert found, self.text
        return found[1]


@dataclass
class Mailbox:
    """Everybody's."""

    port: int = 0
    arrived: list[tuple[str, Mail]] = field(default_factory=list)
    """(address, mail)"""
    refusals: list[str] = field(default_factory=list)
    """What the server answers to the next mails instead of taking them."""
    held: set[str] = field(default_factory=set)
    """Addresses whose mails the server takes its time with."""
    begun: list[str] = field(default_factory=list)
    """Addresses whose mails were given to the server, taken or not."""
    _changed: Condition = field(default_factory=Condition)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refusals:
            return self.refusals.pop(0)
        with self._changed:
            self.begun += envelope.rcpt_tos
            self._changed.notify_all()
        while self.held.intersection(envelope.rcpt_tos):  # noqa: ASYNC110 - a thread of the test's ends it
            await asyncio.sleep(0.01)
        assert isinstance(envelope.content, bytes)
        parsed = message_from_bytes(envelope.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        with self._changed:
            self.arrived += [(address, Mail(parsed)) for address in envelope.rcpt_tos]
            self._changed.notify_all()
        return "250 OK"

    def mails_to(self, address: str, *, about: str = "") -> list[Mail]:
        return [mail for to, mail in self.arrived if to == address and about in mail.subject]

    def wait_until_begun(self, address: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: address in self.begun, timeout=PATIENCE_SECONDS)

    def wait_for(self, address: str, *, about: str = "", number: int = 1) -> Mail:
        """The latest of them, when so many have arrived."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: len(self.mails_to(address, about=about)) >= number, timeout=PATIENCE_SECONDS
            )
        assert there, f"{number} mails about {about!r} to {address}; there are {self.mails_to(address)}"
        return self.mails_to(address, about=about)[-1]


@contextmanager
def running_mail_server(port: int | None = None) -> Iterator[Mailbox]:
    """On the given port of 127.0.0.1, or on one that is free."""
    with reserved_port() if port is None else nullcontext(port) as own:
        mailbox = Mailbox(own)
        controller = Controller(mailbox, hostname="127.0.0.1", port=own, enable_SMTPUTF8=True)
        controller.start()
        try:
            yield mailbox
        finally:
            controller.stop()

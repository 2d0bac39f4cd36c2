"""docs/accounts.md is what happens: its requests are sent, and its answers are those of the service."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.server import PROJECT
from tests.support.service import own_place
from tests.support.transcript import NAME, Reader

PAGE = PROJECT / "docs" / "accounts.md"
BLOCK = re.compile(r"```(http|mail)\n(.*?)```", re.DOTALL)


@dataclass
class AccountReader(Reader):
    mailbox: Mailbox = field(default_factory=Mailbox)

    def follow(self, kind: str, text: str) -> None:
        if kind == "mail":
            self.receive(text)
        else:
            self.send(text)

    def receive(self, text: str) -> None:
        head, _, body = text.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        mail = self.mailbox.wait_for(headers["To"], about=headers["Subject"])
        assert mail.subject == headers["Subject"]
        found = re.fullmatch(
            NAME.sub(r"(?P<\1>\\S+)", re.escape(body).replace(r"\<", "<").replace(r"\>", ">")), mail.text
        )
        assert found, mail.text
        self.known |= found.groupdict()


@pytest.fixture
def reader(database_kind: Kind) -> Iterator[AccountReader]:
    with (
        running_mail_server() as mailbox,
        own_place(database_kind, MAIL__URL=mailbox.url) as place,
        place.service() as service,
    ):
        yield AccountReader(service.client, mailbox=mailbox)


def test_the_page_is_what_happens(reader: AccountReader) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))

    for kind, text in blocks:
        reader.follow(kind, text)

    paths = [text.split()[1].rpartition("/")[2] for kind, text in blocks if kind == "http"]
    assert paths[:6] == ["register", "verify", "login", "profile", "refresh", "logout"]

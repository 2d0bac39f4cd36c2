"""docs/accounts.md is what happens: its requests are sent, and its answers are those of the service."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.server import PROJECT
from tests.support.service import Service, own_place

PAGE = PROJECT / "docs" / "accounts.md"
BLOCK = re.compile(r"```(http|mail)\n(.*?)```", re.DOTALL)
NAME = re.compile(r"<(\w+)>")
ANYTHING = "…"


@dataclass
class Reader:
    service: Service
    mailbox: Mailbox
    known: dict[str, str] = field(default_factory=dict)

    def follow(self, kind: str, text: str) -> None:
        if kind == "mail":
            self.receive(text)
        else:
            self.send(text)

    def send(self, text: str) -> None:
        asked, _, told = text.partition("\n\n")
        (line, *rest), (status, answer) = asked.splitlines(), told.strip().split("\n", 1)
        method, path = line.split()
        headers = dict(self.filled(each).split(": ", 1) for each in rest if not each.startswith("{"))
        body = next((json.loads(self.filled(each)) for each in rest if each.startswith("{")), None)

        got = self.service.client.request(method, path, json=body, headers=headers)

        assert got.status_code == int(status), got.text
        self.compare(json.loads(answer), got.json())

    def receive(self, text: str) -> None:
        head, _, body = text.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        mail = self.mailbox.wait_for(headers["To"])
        assert mail.subject == headers["Subject"]
        found = re.fullmatch(
            NAME.sub(r"(?P<\1>\\S+)", re.escape(body).replace(r"\<", "<").replace(r"\>", ">")), mail.text
        )
        assert found, mail.text
        self.known |= found.groupdict()

    def filled(self, text: str) -> str:
        return NAME.sub(lambda match: self.known[match[1]], text)

    def compare(self, expected: Any, got: Any) -> None:  # Any: JSON
        if isinstance(expected, dict):
            assert list(expected) == list(got)
            for name, value in expected.items():
                self.compare(value, got[name])
        elif isinstance(expected, str) and (named := NAME.fullmatch(expected)):
            assert self.known.setdefault(named[1], got) == got
        elif expected != ANYTHING:
            assert got == expected


@pytest.fixture
def reader(database_kind: Kind) -> Iterator[Reader]:
    with (
        running_mail_server() as mailbox,
        own_place(database_kind, MAIL__URL=mailbox.url) as place,
        place.service() as service,
    ):
        yield Reader(service, mailbox)


def test_the_page_is_what_happens(reader: Reader) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))

    for kind, text in blocks:
        reader.follow(kind, text)

    paths = [text.split()[1].rpartition("/")[2] for kind, text in blocks if kind == "http"]
    assert paths[:6] == ["register", "verify", "login", "profile", "refresh", "logout"]

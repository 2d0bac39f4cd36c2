"""docs/second-factors.md is what happens: its requests are sent, and its answers are those of the service."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from src.auth.tokens import new_api_key
from tests.auth.test_accounts_page import AccountReader
from tests.support.authenticator import Authenticator
from tests.support.mail import running_mail_server
from tests.support.oidc import REDIRECT_URL, House, Somebody, Town
from tests.support.phone import Phone
from tests.support.postgres import Kind
from tests.support.server import PROJECT
from tests.support.service import own_place

PAGE = PROJECT / "docs" / "second-factors.md"
BLOCK = re.compile(r"```(http|mail|browser)\n(.*?)```", re.DOTALL)
VISIT = re.compile(r"(\S+@\S+) at Acme: <authorization_url>\n\n(\S+)\n")
APP_CODE = "<app code>"
CREATED, ASSERTED = '"<created passkey>"', '"<asserted passkey>"'


@dataclass
class PhoneOwner(AccountReader):
    database_url: str = ""
    phone: Phone | None = None
    authenticator: Authenticator = field(default_factory=Authenticator)
    provider: House = field(kw_only=True)
    visitors: dict[str, Somebody] = field(default_factory=dict)
    options: Any = None  # Any: JSON, of the answer before

    def follow(self, kind: str, text: str) -> None:
        if kind == "browser":
            self.visit(text)
        else:
            super().follow(kind, text)

    def visit(self, text: str) -> None:
        told = VISIT.fullmatch(text)
        assert told, text
        who = self.visitors.setdefault(told[1], Somebody(email=told[1]))
        back = self.provider.visit(self.known["authorization_url"], who)
        assert told[2] == f"{REDIRECT_URL}/acme?" + "&".join(f"{name}=<{name}>" for name in back)
        self.known |= back

    def send(self, text: str) -> Any:  # Any: JSON
        if text.partition("\n")[0].endswith("/begin"):
            for name in ("authorization_url", "browser_token"):
                self.known.pop(name, None)
        answer = super().send(text)
        self.options = answer["data"]
        return answer

    def filled(self, text: str) -> str:
        if APP_CODE in text:
            self.phone = self.phone or Phone(self.known["secret"], self.database_url)
            text = text.replace(APP_CODE, self.phone.code())
        for mark, answer in ((CREATED, self.authenticator.create), (ASSERTED, self.authenticator.get)):
            if mark in text:
                text = text.replace(mark, json.dumps(answer(self.options)))
        return super().filled(text)


def test_the_page_is_what_happens(database_kind: Kind, providers: Town) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    settings = providers.settings("acme")
    with (
        running_mail_server() as mailbox,
        own_place(database_kind, MAIL__URL=mailbox.url, **settings) as place,
        place.service() as service,
    ):
        reader = PhoneOwner(
            service.client, mailbox=mailbox, database_url=place.env["DB__URL"], provider=providers.house("acme")
        )

        for kind, text in blocks:
            reader.follow(kind, text)

    assert len(blocks) >= 35
    assert reader.authenticator.sign_count == 3
    assert reader.phone is not None
    assert len(reader.visitors) == 3


def test_the_pattern_for_scanners_is_that_of_the_keys() -> None:
    (pattern,) = set(re.findall(r"`(uck_\[\S+)`", PAGE.read_text(encoding="utf-8")))

    assert all(re.fullmatch(pattern, new_api_key()) for _ in range(100))

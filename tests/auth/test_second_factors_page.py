"""docs/second-factors.md is what happens: its requests are sent, and its answers are those of the service."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from src.auth.tokens import new_api_key
from tests.support.authenticator import Authenticator
from tests.support.phone import Phone
from tests.support.postgres import Kind
from tests.support.server import PROJECT
from tests.support.service import own_place
from tests.support.transcript import Reader

PAGE = PROJECT / "docs" / "second-factors.md"
BLOCK = re.compile(r"```http\n(.*?)```", re.DOTALL)
APP_CODE = "<app code>"
CREATED, ASSERTED = '"<created passkey>"', '"<asserted passkey>"'


@dataclass
class PhoneOwner(Reader):
    database_url: str = ""
    phone: Phone | None = None
    authenticator: Authenticator = field(default_factory=Authenticator)
    options: Any = None  # Any: JSON, of the answer before

    def send(self, text: str) -> Any:  # Any: JSON
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


def test_the_page_is_what_happens(database_kind: Kind) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    with own_place(database_kind) as place, place.service() as service:
        reader = PhoneOwner(service.client, database_url=place.env["DB__URL"])

        for block in blocks:
            reader.send(block)

    assert len(blocks) >= 18
    assert reader.authenticator.sign_count == 3
    assert reader.phone is not None


def test_the_pattern_for_scanners_is_that_of_the_keys() -> None:
    (pattern,) = set(re.findall(r"`(uck_\[\S+)`", PAGE.read_text(encoding="utf-8")))

    assert all(re.fullmatch(pattern, new_api_key()) for _ in range(100))

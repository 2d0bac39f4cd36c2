"""Reading a page of documentation aloud to a running service: its requests are sent, its answers are compared.

In a page `…` is anything, and `<name>` is what was received under that name before.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx2

ANYTHING = "…"
NAME = re.compile(r"<(\w+)>")


@dataclass
class Reader:
    client: httpx2.Client
    known: dict[str, str] = field(default_factory=dict)

    def send(self, text: str) -> Any:  # Any: JSON
        """`METHOD path`, headers, a body; an empty line; a status and the answer, which is given back."""
        asked, _, told = text.partition("\n\n")
        (line, *rest), (status, answer) = asked.splitlines(), told.strip().split("\n", 1)
        method, path = self.filled(line).split()
        headers = dict(self.filled(each).split(": ", 1) for each in rest if not each.startswith("{"))
        body = next((json.loads(self.filled(each)) for each in rest if each.startswith("{")), None)

        got = self.client.request(method, path, json=body, headers=headers)

        assert got.status_code == int(status), got.text
        self.compare(json.loads(answer), got.json())
        return got.json()

    def filled(self, text: str) -> str:
        return NAME.sub(lambda match: self.known[match[1]], text)

    def compare(self, expected: Any, got: Any) -> None:  # Any: JSON
        if isinstance(expected, dict):
            assert list(expected) == list(got)
            for name, value in expected.items():
                self.compare(value, got[name])
        elif isinstance(expected, list):
            assert len(expected) == len(got)
            for each, theirs in zip(expected, got, strict=True):
                self.compare(each, theirs)
        elif isinstance(expected, str) and (named := NAME.fullmatch(expected)):
            assert self.known.setdefault(named[1], got) == got
        elif expected != ANYTHING:
            assert got == expected

"""Texts that a log must survive, wherever they come from."""

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.support.server import PROJECT

CORPORA: Final = PROJECT.parent / "shared" / "corpora"
HOSTILE: Final = [
    "",
    "a\x00b",
    "\x01\x1f\x7f",
    "\x80\x9f",
    "two\r\nlines\n2026-01-01T00:00:00.000000Z INFO     forged",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J",
    "\u2028line\u2029paragraph\x85next\x0b\x0c",
    "\u202eabc\u202c\u2066\u200b\ufeff",
    "\ud800",
    "a\udfff\ud83d",
    "\ufffe\uffff",
    "😀" * 3000,
    "\x7f" * 8192,
    "\x00" * 8192,
    '"' * 9000,
    "\\" * 9000,
    "x" * 1_000_000,
    "{}",
    "{",
    "{0.__class__.__mro__}",
    "{record[extra]}",
    "%s %d %(x)s %",
    "<red>markup</red></>\\<level>",
    '","level":"CRITICAL","x":"',
    "$(id) `id` ${jndi:ldap://x/a}",
    "İ" * 100,
]


def hostile_texts() -> Iterator[str]:
    """What is lent from outside of the project, where it is there."""
    yield from HOSTILE
    if (CORPORA / "blns" / "blns.json").exists():
        yield from json.loads((CORPORA / "blns" / "blns.json").read_text())
    if (CORPORA / "hostile" / "hostile-values.json").exists():
        values = json.loads((CORPORA / "hostile" / "hostile-values.json").read_text())
        yield from (value if isinstance(value, str) else repr(value) for value in _leaves(values))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value

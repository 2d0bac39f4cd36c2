"""A password is what was typed: of any characters, up to 1,024 of them, and nothing that is only like it."""

import random
import string
import unicodedata
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN
from tests.support.answers import data_of, refused

LONGEST = "".join(random.Random(7).choices(string.ascii_letters, k=1024))
PASSWORDS = {
    "small letters": "plumlanternquarry",
    "digits": "73920461885137290",
    "signs": "}!;)(*&^%|#@~<{",
    "spaces around": "  plum lantern quarry  ",
    "other alphabets": "слива фонарь карьер",
    "beyond the first plane": "🌂🪁🧿🪐🦔🛶🧵🪗🦩🧊🪶🛼",
    "an accent": "crème-brûlée-quarry",
    "the longest": LONGEST,
}


def registered(client: httpx2.Client, password: str) -> str:
    email = f"{uuid4().hex}@example.com"
    data_of(client.post("/api/v1/auth/register", json={"email": email, "password": password}), 201)
    return email


@pytest.mark.parametrize("kind", PASSWORDS)
def test_a_password_may_be_of_any_characters(client: httpx2.Client, kind: str) -> None:
    email = registered(client, PASSWORDS[kind])

    data_of(client.post(LOGIN, json={"email": email, "password": PASSWORDS[kind]}))


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        ("small letters", "PlumLanternQuarry"),
        ("small letters", "plumlanternquarry "),
        ("spaces around", "plum lantern quarry"),
        ("an accent", unicodedata.normalize("NFD", PASSWORDS["an accent"])),
        ("an accent", "creme-brulee-quarry"),
        ("the longest", LONGEST[:-1]),
        ("the longest", LONGEST[:-1] + "!"),
        ("the longest", LONGEST[:72]),
    ],
)
def test_what_is_only_like_the_password_is_wrong(client: httpx2.Client, kind: str, typed: str) -> None:
    email = registered(client, PASSWORDS[kind])

    refused(client.post(LOGIN, json={"email": email, "password": typed}), ErrorCode.INVALID_CREDENTIALS)

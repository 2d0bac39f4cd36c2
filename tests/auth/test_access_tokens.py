"""Access tokens that somebody made, bent or kept: each is refused alike, and none is an error of ours."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import time
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import insert

from src.auth.models import SigningKey
from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN
from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of, refused
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import running_server
from tests.support.tables import execute

SECRET = "the secret of this server, known to its tests and to nobody else"
# How a token is read does not depend on the database: one server, started here since its key must be known.
Claims = dict[str, Any]
Forge = Callable[[Claims, Claims], str]
"""Takes the header and the claims of a token that is good."""


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    url = fresh_database("sqlite")
    ring = insert(SigningKey).values(id=KEY_ID, algorithm="HS256", created_at=datetime.now(UTC))
    execute(url, ring)
    with (
        running_server({"DB__URL": url, "AUTH__SECRET": SECRET, **PATIENT}) as server,
        httpx2.Client(base_url=server.url, timeout=15, verify=False) as client,
    ):
        yield client
    drop_database(url)


@pytest.fixture(scope="module")
def letter(client: httpx2.Client) -> dict[str, str]:
    account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    data_of(client.post("/api/v1/auth/register", json=account), 201)
    answer: dict[str, str] = data_of(client.post(LOGIN, json=account))
    return answer


def derived(purpose: str) -> bytes:
    """RFC 5869, by hand as well: one block of output is all that is asked for."""
    extracted = hmac.digest(bytes(32), SECRET.encode(), "sha256")
    return hmac.digest(extracted, f"undercroft/{purpose}/v1".encode() + b"\x01", "sha256")


def sealed(name: str) -> str:
    return name + hmac.digest(derived("access-token"), f"kid/{name}".encode(), "sha256").hex()[:16]


KEY_ID = sealed("h" + "0123456789abcdef")


def key() -> bytes:
    return hmac.digest(derived("access-token"), f"key/{KEY_ID[:17]}".encode(), "sha256")


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(part: str) -> Claims:
    claims: Claims = json.loads(base64.urlsafe_b64decode(part + "=="))
    return claims


def sign(header: object, claims: object, *, secret: bytes | None = None, digest: str = "sha256") -> str:
    """By hand, so that what is wrong with it is up to the test and not to a library."""
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{encoded(hmac.digest(key() if secret is None else secret, signed.encode(), digest))}"


def without(part: Claims, name: str) -> Claims:
    return {key: value for key, value in part.items() if key != name}


def ask(client: httpx2.Client, token: str | bytes) -> httpx2.Response:
    raw = token if isinstance(token, bytes) else token.encode()
    return client.get("/api/v1/profile", headers=[(b"Authorization", (b"Bearer " + raw).strip())])


def test_a_token_signed_by_hand_like_ours_is_accepted(client: httpx2.Client, letter: dict[str, str]) -> None:
    """The positive control of this page: the forgeries below fail for what is wrong with them."""
    header, claims, _ = letter["access_token"].split(".")

    data_of(ask(client, sign(decoded(header), decoded(claims))))


def test_a_token_says_who_and_until_when_and_not_what_they_may(letter: dict[str, str]) -> None:
    header, claims, _ = letter["access_token"].split(".")

    assert decoded(header).keys() == {"alg", "typ", "kid"}
    assert decoded(header)["typ"] == "at+jwt"
    assert decoded(claims).keys() == set(REQUIRED)
    assert 300 <= decoded(claims)["exp"] - decoded(claims)["iat"] <= 600


HEADERS: dict[str, Forge] = {
    "alg none, not signed": lambda h, c: sign(h | {"alg": "none"}, c).rpartition(".")[0] + ".",
    "alg none, signed": lambda h, c: sign(h | {"alg": "none"}, c),
    "alg nOnE": lambda h, c: sign(h | {"alg": "nOnE"}, c).rpartition(".")[0] + ".",
    "alg of another hash": lambda h, c: sign(h | {"alg": "HS512"}, c, digest="sha512"),
    "alg of another family": lambda h, c: sign(h | {"alg": "RS256"}, c),
    "alg missing": lambda h, c: sign(without(h, "alg"), c),
    "alg no text": lambda h, c: sign(h | {"alg": ["HS256"]}, c),
    "kid missing": lambda h, c: sign(without(h, "kid"), c),
    "kid foreign": lambda h, c: sign(h | {"kid": "ffffffffffffffff"}, c),
    "kid a path": lambda h, c: sign(h | {"kid": "../../../../dev/null"}, c, secret=b""),
    "kid no text": lambda h, c: sign(h | {"kid": 1}, c),
    "typ JWT": lambda h, c: sign(h | {"typ": "JWT"}, c),
    "typ missing": lambda h, c: sign(without(h, "typ"), c),
    "crit": lambda h, c: sign(h | {"crit": ["exp"]}, c),
    "crit b64": lambda h, c: sign(h | {"crit": ["b64"], "b64": False}, c),
    "jwk": lambda h, c: sign(h | {"jwk": {"kty": "oct", "k": encoded(b"mine" * 8)}}, c, secret=b"mine" * 8),
    "jku": lambda h, c: sign(h | {"jku": "http://127.0.0.1:9/keys"}, c),
    "zip": lambda h, c: sign(h | {"zip": "DEF"}, c),
    "anything more": lambda h, c: sign(h | {"x": 1}, c),
    "no object": lambda h, c: sign([h], c),
}
KEYS: dict[str, Forge] = {
    "another key": lambda h, c: sign(h, c, secret=b"k" * 32),
    "no key": lambda h, c: sign(h, c, secret=b""),
    "the secret itself": lambda h, c: sign(h, c, secret=SECRET.encode()),
    "the key of refresh tokens": lambda h, c: sign(h, c, secret=derived("refresh-token")),
    "the key's id": lambda h, c: sign(h, c, secret=h["kid"].encode()),
    "the key's hash": lambda h, c: sign(h, c, secret=hashlib.sha256(key()).digest()),
    "no signature": lambda h, c: sign(h, c).rpartition(".")[0] + ".",
    "half a signature": lambda h, c: sign(h, c)[:-20],
    "a signature of other claims": lambda h, c: (
        sign(h, c).rpartition(".")[0] + "." + sign(h, c | {"jti": "other"}).rpartition(".")[2]
    ),
}
WRONG: tuple[object, ...] = (None, True, 1.5, {}, [])
REQUIRED = ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "epoch")


def lacking(name: str) -> Forge:
    return lambda header, claims: sign(header, without(claims, name))


def saying(name: str, value: object) -> Forge:
    return lambda header, claims: sign(header, claims | {name: value})


CLAIMS: dict[str, Forge] = {
    **{f"{name} missing": lacking(name) for name in REQUIRED},
    **{f"{name} is {wrong!r}": saying(name, wrong) for name in REQUIRED for wrong in WRONG},
    "aud of another service": lambda h, c: sign(h, c | {"aud": "another-api"}),
    "aud of several": lambda h, c: sign(h, c | {"aud": [c["aud"], "another-api"]}),
    "iss of another service": lambda h, c: sign(h, c | {"iss": "Overcroft"}),
    "exp now": lambda h, c: sign(h, c | {"exp": int(time())}),
    "exp long ago": lambda h, c: sign(h, c | {"exp": 0}),
    "exp as text": lambda h, c: sign(h, c | {"exp": str(c["exp"])}),
    "nbf in a minute": lambda h, c: sign(h, c | {"nbf": int(time()) + 60}),
    "nbf never": lambda h, c: sign(h, c | {"nbf": 10**400}),
    "iat in a minute": lambda h, c: sign(h, c | {"iat": int(time()) + 60}),
    "another epoch": lambda h, c: sign(h, c | {"epoch": c["epoch"] + 1}),
    "epoch below all": lambda h, c: sign(h, c | {"epoch": -1}),
    "epoch beyond the column": lambda h, c: sign(h, c | {"epoch": 2**31}),
    "epoch beyond any column": lambda h, c: sign(h, c | {"epoch": 2**63}),
    "sub no id": lambda h, c: sign(h, c | {"sub": "admin"}),
    "sub a number": lambda h, c: sign(h, c | {"sub": 1}),
    "sub nobody": lambda h, c: sign(h, c | {"sub": str(uuid4())}),
    "sid no session": lambda h, c: sign(h, c | {"sid": str(uuid4())}),
    "sub and sid swapped": lambda h, c: sign(h, c | {"sub": c["sid"], "sid": c["sub"]}),
    "claims are a list": lambda h, c: sign(h, [c]),
    "claims are text": lambda h, c: sign(h, "claims"),
    "claims are null": lambda h, c: sign(h, None),
}
SHAPES: dict[str, Callable[[str, str], str | bytes]] = {
    "nothing": lambda access, refresh: "",
    "dots": lambda access, refresh: "..",
    "one part": lambda access, refresh: "abc",
    "two parts": lambda access, refresh: access.rpartition(".")[0],
    "four parts": lambda access, refresh: f"{access}.{access}",
    "the refresh token": lambda access, refresh: refresh,
    "padded": lambda access, refresh: f"{access}==",
    "10 kB": lambda access, refresh: access + "A" * 10_000,
    "10 kB of header": lambda access, refresh: encoded(b'{"alg":"' + b"A" * 9_000 + b'"}') + "." + access,
    "10 kB of nesting": lambda access, refresh: encoded(b"[" * 7_000) + "." + access.partition(".")[2],
    "not ASCII": lambda access, refresh: access.encode() + b"\xe9",
    "not even UTF-8": lambda access, refresh: b"\xff\xfe.\x80.\x80",
    "not base64": lambda access, refresh: "?.?.?",
    "as JSON": lambda access, refresh: json.dumps(
        dict(zip(("protected", "payload", "signature"), access.split("."), strict=True))
    ),
    "twice": lambda access, refresh: f"{access}, Bearer {access}",
    "with a space": lambda access, refresh: access.replace(".", ". "),
}


def assert_refused(answer: httpx2.Response) -> None:
    refused(answer, ErrorCode.INVALID_TOKEN)
    assert re.match(r"Bearer\b", answer.headers["WWW-Authenticate"])


@pytest.mark.parametrize("how", [*HEADERS, *KEYS, *CLAIMS])
def test_a_forged_token_is_refused(client: httpx2.Client, letter: dict[str, str], how: str) -> None:
    header, claims, _ = letter["access_token"].split(".")
    forge = (HEADERS | KEYS | CLAIMS)[how]

    answer = ask(client, forge(decoded(header), decoded(claims)))

    assert_refused(answer)


@pytest.mark.parametrize("how", SHAPES)
def test_what_is_no_token_is_refused(client: httpx2.Client, letter: dict[str, str], how: str) -> None:
    assert_refused(ask(client, SHAPES[how](letter["access_token"], letter["refresh_token"])))


def test_public_routes_refuse_a_bad_token_too(client: httpx2.Client) -> None:
    """Whoever sends one means to be somebody, and would else be shown what a stranger sees."""
    data_of(client.get("/api/v1/products"))

    assert_refused(client.get("/api/v1/products", headers=bearer("bad")))


@pytest.mark.parametrize("scheme", ["", "Basic", "Token", "Bear"])
def test_other_schemes_are_no_log_in(client: httpx2.Client, letter: dict[str, str], scheme: str) -> None:
    answer = client.get("/api/v1/profile", headers={"Authorization": f"{scheme} {letter['access_token']}".strip()})

    refused(answer, ErrorCode.NOT_AUTHENTICATED)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_name_of_the_scheme_has_no_case(client: httpx2.Client, letter: dict[str, str]) -> None:
    """RFC 9110 §11.1."""
    data_of(client.get("/api/v1/profile", headers={"Authorization": f"bearer {letter['access_token']}"}))


def test_an_access_token_is_no_refresh_token(client: httpx2.Client, letter: dict[str, str]) -> None:
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": letter["access_token"]})

    refused(answer, ErrorCode.INVALID_REFRESH_TOKEN)

"""Forged access tokens beyond those of tests/auth/test_access_tokens.py, and good ones in places where none belongs."""

import base64
import hmac
import json
from collections.abc import Callable
from time import time
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.auth import test_access_tokens as forging
from tests.auth.conftest import LOGIN
from tests.auth.test_access_tokens import Claims, Forge, ask, assert_refused, decoded, encoded, sign
from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of, refused

# A server whose key is known, and a log-in there.
client = forging.client
letter = forging.letter
LIMIT_BYTES = 2048


def parts(token: str) -> tuple[Claims, Claims]:
    header, claims, _ = token.split(".")
    return decoded(header), decoded(claims)


def sign_raw(header: bytes, claims: bytes) -> str:
    """For JSON that `json.dumps` would not write."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    return f"{signed}.{signature_of(signed)}"


def signature_of(signed: str) -> str:
    return encoded(hmac.digest(forging.key(), signed.encode(), "sha256"))


def with_time(name: str, literal: str) -> Forge:
    """A number as JSON may write it and Python would not."""
    return lambda h, c: sign_raw(as_json(h), as_json(c | {name: "HERE"}).replace(b'"HERE"', literal.encode()))


def as_json(part: object) -> bytes:
    return json.dumps(part).encode()


def twice(part: Claims, name: str, *values: object) -> bytes:
    """The member is there once with each value, at the end."""
    rest = as_json({key: value for key, value in part.items() if key != name})[:-1]
    return rest + b"".join(b',"%b":%b' % (name.encode(), as_json(value)) for value in values) + b"}"


def header_with(**values: object) -> Forge:
    return lambda h, c: sign(h | values, c)


def claims_with(**values: object) -> Forge:
    return lambda h, c: sign(h, c | values)


HEADERS: dict[str, Forge] = {
    "alg in lower case": header_with(alg="hs256"),
    "alg with a space": header_with(alg="HS256 "),
    "alg empty": header_with(alg=""),
    "alg null": header_with(alg=None),
    "alg of a JWE": header_with(alg="dir", enc="A128GCM"),
    "alg of a password": header_with(alg="PBES2-HS256+A128KW", p2c=2**31, p2s="AAAA"),
    "alg ES256, of zeros": lambda h, c: sign(h | {"alg": "ES256"}, c).rpartition(".")[0] + "." + encoded(bytes(64)),
    "kid SQL": header_with(kid="' UNION SELECT 'k' --"),
    "kid NUL": lambda h, c: sign(h | {"kid": h["kid"] + "\0"}, c),
    "kid a surrogate": header_with(kid="\ud800"),
    "kid empty": header_with(kid=""),
    "kid null": header_with(kid=None),
    "kid huge": header_with(kid="f" * 1200),
    "kid in upper case": lambda h, c: sign(h | {"kid": h["kid"].upper() + "A"}, c),
    "kid a list": lambda h, c: sign(h | {"kid": [h["kid"]]}, c),
    "kid a URL": header_with(kid="http://127.0.0.1:9/key"),
    "typ in upper case": header_with(typ="AT+JWT"),
    "typ with its prefix": header_with(typ="application/at+jwt"),
    "typ of another token": header_with(typ="secevent+jwt"),
    "typ null": header_with(typ=None),
    "typ a list": header_with(typ=["at+jwt"]),
    "cty of a nested token": header_with(cty="JWT"),
    "b64, not critical": header_with(b64=False),
    "crit empty": header_with(crit=[]),
    "x5u": header_with(x5u="http://127.0.0.1:9/certificate"),
    "x5c": header_with(x5c=["AAAA"]),
    "x5t": header_with(x5t="AAAA"),
    "the last alg is none": lambda h, c: sign_raw(twice(h, "alg", "HS256", "none"), as_json(c)),
    "the last typ is JWT": lambda h, c: sign_raw(twice(h, "typ", "at+jwt", "JWT"), as_json(c)),
    "the last kid is foreign": lambda h, c: sign_raw(twice(h, "kid", h["kid"], "f" * 16), as_json(c)),
}
CLAIMS: dict[str, Forge] = {
    "aud of a list of ours": lambda h, c: sign(h, c | {"aud": [c["aud"]]}),
    "aud empty": claims_with(aud=""),
    "aud that begins like ours": lambda h, c: sign(h, c | {"aud": c["aud"] + "-2"}),
    "iss a list": lambda h, c: sign(h, c | {"iss": [c["iss"]]}),
    "iss in other letters": lambda h, c: sign(h, c | {"iss": c["iss"].swapcase()}),
    "exp negative": claims_with(exp=-1),
    "exp a float": lambda h, c: sign(h, c | {"exp": c["exp"] + 0.5}),
    "exp infinite": with_time("exp", "Infinity"),
    "exp no number": with_time("exp", "NaN"),
    "exp beyond floats": with_time("exp", "1e400"),
    "exp with an exponent": with_time("exp", "9e9"),
    "exp below floats": claims_with(exp=-(10**400)),
    "nbf huge": claims_with(nbf=2**63),
    "nbf as text": claims_with(nbf="0"),
    "nbf a float": claims_with(nbf=0.5),
    "iat huge": claims_with(iat=2**63),
    "iat as text": claims_with(iat="0"),
    "iat beyond floats": claims_with(iat=10**400),
    "times in milliseconds": lambda h, c: sign(h, c | {name: c[name] * 1000 for name in ("iat", "nbf", "exp")}),
    "epoch as text": lambda h, c: sign(h, c | {"epoch": str(c["epoch"])}),
    "epoch far in the future": claims_with(epoch=2**31 - 1),
    "sub of a wildcard": claims_with(sub="%"),
    "sub NUL": lambda h, c: sign(h, c | {"sub": c["sub"] + "\0"}),
    "sub of nobody": claims_with(sub="00000000-0000-0000-0000-000000000000"),
    "sid a list": lambda h, c: sign(h, c | {"sid": [c["sid"]]}),
    "the last sub is of nobody": lambda h, c: sign_raw(as_json(h), twice(c, "sub", c["sub"], str(uuid4()))),
    "the last exp is over": lambda h, c: sign_raw(as_json(h), twice(c, "exp", c["exp"], int(time()) - 60)),
    "claims of a token in a token": lambda h, c: sign(h, sign(h, c)),
    "claims not UTF-8": lambda h, c: sign_raw(as_json(h), as_json(c)[:-1] + b',"x":"\xff"}'),
    "claims cut off": lambda h, c: sign_raw(as_json(h), as_json(c)[:-1]),
    "claims with something behind": lambda h, c: sign_raw(as_json(h), as_json(c) + b"x"),
    "claims empty": lambda h, c: sign_raw(as_json(h), b""),
    "claims too deep": lambda h, c: sign_raw(as_json(h), b"[" * 1200),
    "longer than any of ours": lambda h, c: sign(h, c | {"jti": "j" * LIMIT_BYTES}),
}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def last_bit_flipped(segment: str) -> str:
    """The same bytes for a reader that ignores what hangs over (RFC 4648 §3.5)."""
    return segment[:-1] + ALPHABET[ALPHABET.index(segment[-1]) ^ 1]


def jws_json(token: str, *, flattened: bool) -> str:
    protected, payload, signature = token.split(".")
    signed = {"protected": protected, "signature": signature}
    return json.dumps({"payload": payload} | (signed if flattened else {"signatures": [signed]}))


SHAPES: dict[str, Callable[[str], str]] = {
    "its signature not canonical": last_bit_flipped,
    "its signature one shorter": lambda token: token[:-1],
    "its signature twice": lambda token: token + token.rpartition(".")[2],
    "its signature in hexadecimal": lambda token: (
        token.rpartition(".")[0] + "." + base64.urlsafe_b64decode(token.rpartition(".")[2] + "=").hex()
    ),
    "its signature padded": lambda token: token + "=",
    "junk in its signature": lambda token: token[:-9] + "?" + token[-9:],
    "a tab in its signature": lambda token: token[:-9] + "\t" + token[-9:],
    "the other alphabet": lambda token: token[:-2] + "+/",
    "its payload detached": lambda token: "..".join(token.split(".")[::2]),
    "a dot behind": lambda token: token + ".",
    "a dot before": lambda token: "." + token,
    "in quotes": lambda token: f'"{token}"',
    "a comma behind": lambda token: token + ",",
    "percent-encoded": lambda token: token.replace(".", "%2E"),
    "its scheme twice": lambda token: f"Bearer {token}",
    "five parts, as a JWE": lambda token: f"{encoded(as_json({'alg': 'dir', 'enc': 'A128GCM'}))}..{token}",
    "as JSON with one signature": lambda token: jws_json(token, flattened=True),
    "as JSON with many": lambda token: jws_json(token, flattened=False),
}


@pytest.mark.parametrize("how", [*HEADERS, *CLAIMS])
def test_a_forged_token_is_refused(client: httpx2.Client, letter: dict[str, str], how: str) -> None:
    header, claims = parts(letter["access_token"])

    answer = ask(client, (HEADERS | CLAIMS)[how](header, claims))

    assert_refused(answer)
    data_of(ask(client, sign(header, claims)))


@pytest.mark.parametrize("how", SHAPES)
def test_a_good_token_in_another_shape_is_refused(client: httpx2.Client, letter: dict[str, str], how: str) -> None:
    assert_refused(ask(client, SHAPES[how](letter["access_token"])))
    data_of(ask(client, letter["access_token"]))


def test_of_a_member_that_is_there_twice_the_last_one_counts(client: httpx2.Client, letter: dict[str, str]) -> None:
    """RFC 7515 §4 allows that or a refusal. The forged forms above are refused for their last one."""
    header, claims = parts(letter["access_token"])

    for token in (
        sign_raw(twice(header, "alg", "none", "HS256"), as_json(claims)),
        sign_raw(as_json(header), twice(claims, "sub", str(uuid4()), claims["sub"])),
    ):
        assert data_of(ask(client, token))["id"] == claims["sub"]


def test_a_token_of_the_greatest_length_is_read_and_no_longer_one(
    client: httpx2.Client, letter: dict[str, str]
) -> None:
    header, claims = parts(letter["access_token"])

    def of_length(count: int) -> str:
        """Some lengths no base64 has, so it is the first one from there."""
        fitting = (sign(header, claims | {"jti": "j" * size}) for size in range(LIMIT_BYTES))
        return next(token for token in fitting if len(token) >= count)

    longest = of_length(LIMIT_BYTES - 1)
    assert len(longest) <= LIMIT_BYTES
    data_of(ask(client, longest))
    assert_refused(ask(client, of_length(LIMIT_BYTES + 1)))


@pytest.fixture(scope="module")
def other(client: httpx2.Client) -> dict[str, str]:
    """Somebody else, logged in."""
    account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    data_of(client.post("/api/v1/auth/register", json=account), 201)
    answer: dict[str, str] = data_of(client.post(LOGIN, json=account))
    return answer


@pytest.mark.parametrize("swapped", ["sub", "sid"])
def test_an_account_and_a_session_that_do_not_belong_together_are_nobody(
    client: httpx2.Client, letter: dict[str, str], other: dict[str, str], swapped: str
) -> None:
    header, mine = parts(letter["access_token"])
    _, theirs = parts(other["access_token"])

    assert_refused(ask(client, sign(header, mine | {swapped: theirs[swapped]})))

    both = sign(header, mine | {"sub": theirs["sub"], "sid": theirs["sid"]})
    assert data_of(ask(client, both))["id"] == theirs["sub"]


def test_a_signature_of_somebody_elses_token_does_not_fit(
    client: httpx2.Client, letter: dict[str, str], other: dict[str, str]
) -> None:
    mine, theirs = letter["access_token"], other["access_token"]

    assert_refused(ask(client, mine.rpartition(".")[0] + "." + theirs.rpartition(".")[2]))

    for token in (mine, theirs):
        data_of(ask(client, token))


Ask = Callable[[httpx2.Client, str], httpx2.Response]
PROFILE = "/api/v1/profile"


def in_header(name: str) -> Ask:
    return lambda client, token: client.get(PROFILE, headers={name: f"Bearer {token}"})


ELSEWHERE: dict[str, tuple[Ask, ErrorCode]] = {
    "the query": (
        lambda client, token: client.get(PROFILE, params={"access_token": token}),
        ErrorCode.INVALID_REQUEST,
    ),
    "a cookie": (
        lambda client, token: client.get(
            PROFILE, headers={"Cookie": f"access_token={token}; Authorization=Bearer {token}"}
        ),
        ErrorCode.NOT_AUTHENTICATED,
    ),
    "a form (RFC 6750 §2.2)": (
        lambda client, token: client.post("/api/v1/auth/logout-all", data={"access_token": token}),
        ErrorCode.NOT_AUTHENTICATED,
    ),
    "a body": (
        lambda client, token: client.post("/api/v1/auth/logout-all", json={"access_token": token}),
        ErrorCode.NOT_AUTHENTICATED,
    ),
    **{
        name: (in_header(name), ErrorCode.NOT_AUTHENTICATED)
        for name in ("Proxy-Authorization", "X-Authorization", "X-Forwarded-Authorization", "X-Access-Token")
    },
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_token_counts_in_its_header_alone(client: httpx2.Client, letter: dict[str, str], place: str) -> None:
    offer, code = ELSEWHERE[place]

    refused(offer(client, letter["access_token"]), code)

    data_of(client.get(PROFILE, headers=bearer(letter["access_token"])))


@pytest.mark.parametrize("second", ["the same", "a bad one", "Basic"])
def test_two_authorization_headers_are_nobody(client: httpx2.Client, letter: dict[str, str], second: str) -> None:
    """It is a field of one value (RFC 9110 §5.3): a proxy may have judged the other one."""
    good = f"Bearer {letter['access_token']}"
    more = {"the same": good, "a bad one": "Bearer bad", "Basic": "Basic bWU6bWU="}[second]
    data_of(client.get(PROFILE, headers={"Authorization": good}))

    answer = client.get(PROFILE, headers=[("Authorization", good), ("Authorization", more)])

    assert answer.is_client_error


@pytest.mark.parametrize("space", [b"\xa0", b"\x85"])
def test_what_is_a_space_in_other_alphabets_is_none_around_a_token(
    client: httpx2.Client, letter: dict[str, str], space: bytes
) -> None:
    data_of(ask(client, letter["access_token"]))

    assert_refused(ask(client, space + letter["access_token"].encode()))

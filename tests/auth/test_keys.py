"""The ring of keys that sign access tokens: turning it, taking one out, and showing what others may check with."""

import base64
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from src.shared.errors import ErrorCode
from tests.support.answers import data_of, refused
from tests.support.postgres import Kind
from tests.support.service import Place, Service, own_place

JWKS = "/.well-known/jwks.json"


@pytest.fixture(scope="module")
def place(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind) as place:
        yield place


@pytest.fixture(scope="module")
def service(place: Place) -> Iterator[Service]:
    with place.service() as service:
        yield service


def header_of(token: str) -> dict[str, Any]:  # Any: JSON
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    return header


def published(service: Service) -> list[dict[str, str]]:
    answer = service.client.get(JWKS)
    assert answer.status_code == 200
    assert answer.json().keys() == {"keys"}
    keys: list[dict[str, str]] = answer.json()["keys"]
    return keys


def rotate(place: Place, *options: str) -> str:
    code, said = place.run("rotate-keys", *options)
    assert code == 0, said
    found = re.search(r"key (\S+)", said)
    assert found
    return found[1]


def test_a_new_key_signs_and_what_the_old_one_signed_is_still_good(service: Service, place: Place) -> None:
    email = service.register()
    before = service.log_in(email)["access_token"]

    new = rotate(place)

    after = service.log_in(email)["access_token"]
    assert header_of(after)["kid"] == new != header_of(before)["kid"]
    for token in (before, after):
        data_of(service.get("profile", token=token))


def test_a_key_that_is_taken_out_is_good_for_nothing_any_more(service: Service, place: Place) -> None:
    letter = service.log_in(service.register())
    data_of(service.get("profile", token=letter["access_token"]))

    rotate(place, "--at-once")

    refused(service.get("profile", token=letter["access_token"]), ErrorCode.INVALID_TOKEN)
    fresh = data_of(service.post("auth/refresh", {"refresh_token": letter["refresh_token"]}))
    data_of(service.get("profile", token=fresh["access_token"]))


def test_a_key_that_only_we_have_is_not_published(service: Service) -> None:
    service.log_in(service.register())

    assert published(service) == []


@pytest.mark.parametrize("kid", ["h" + "0" * 32, "x" + "0" * 32, "h", "", "../../dev/null", "h" + "g" * 32])
def test_a_key_that_we_did_not_name_is_none(service: Service, kid: str) -> None:
    token = service.log_in(service.register())["access_token"]
    _, claims, _ = token.split(".")
    header = base64.urlsafe_b64encode(json.dumps(header_of(token) | {"kid": kid}).encode()).rstrip(b"=").decode()
    signature = base64.urlsafe_b64encode(hmac.digest(b"", f"{header}.{claims}".encode(), "sha256")).rstrip(b"=")

    forged = f"{header}.{claims}.{signature.decode()}"

    refused(service.get("profile", token=forged), ErrorCode.INVALID_TOKEN)


def test_others_can_check_what_an_asymmetric_key_signed(place: Place) -> None:
    with place.service(AUTH__TOKEN_ALGORITHM="Ed25519") as service:
        token = service.log_in()["access_token"]
        data_of(service.get("profile", token=token))

        (key,) = published(service)
        assert (key["kid"], key["alg"], key["use"], key["kty"]) == (header_of(token)["kid"], "Ed25519", "sig", "OKP")
        assert key.keys() == {"kid", "alg", "use", "kty", "crv", "x"}  # and not `d`, which signs
        checked = jwt.decode(
            token,
            OKPKey.import_key({name: key[name] for name in ("kty", "crv", "x")}),
            algorithms=["Ed25519"],
            registry=JWSRegistry(algorithms=["Ed25519"]),
        )
        assert checked.claims["aud"] == "undercroft-api"

        # RFC 8725 §3.1: what everybody knows must not be taken for a secret.
        claims = token.split(".")[1]
        for secret in (key["x"].encode(), base64.urlsafe_b64decode(key["x"] + "="), json.dumps(key).encode()):
            for algorithm in ("HS256", "Ed25519"):
                header = json.dumps(header_of(token) | {"alg": algorithm}).encode()
                signed = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.{claims}"
                mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=")
                refused(service.get("profile", token=f"{signed}.{mac.decode()}"), ErrorCode.INVALID_TOKEN)


def test_the_algorithm_can_be_changed_without_anybody_noticing(place: Place) -> None:
    with place.service() as service:
        before = service.log_in()["access_token"]
    with place.service(AUTH__TOKEN_ALGORITHM="Ed25519") as service:
        data_of(service.get("profile", token=before))
        assert header_of(service.log_in()["access_token"])["alg"] == "Ed25519"


def test_the_secret_can_be_changed_while_the_previous_one_is_named(database_kind: Kind) -> None:
    with own_place(database_kind) as place:
        with place.service() as service:
            letter = service.log_in()
        fresh = uuid4().hex + uuid4().hex
        with place.service(AUTH__SECRET=fresh, AUTH__PREVIOUS_SECRETS=place.env["AUTH__SECRET"]) as service:
            data_of(service.get("profile", token=letter["access_token"]))
            assert header_of(service.log_in()["access_token"])["kid"] != header_of(letter["access_token"])["kid"]
        with place.service(AUTH__SECRET=fresh) as service:
            refused(service.get("profile", token=letter["access_token"]), ErrorCode.INVALID_TOKEN)
            data_of(service.post("auth/refresh", {"refresh_token": letter["refresh_token"]}))

"""Access tokens (JWS, RFC 7519 and RFC 9068), opaque tokens, API keys. Nothing here knows the database."""

import base64
import hashlib
import hmac
import json
import re
import secrets
import string
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any, Final, get_args
from uuid import UUID
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, OKPKey
from joserfc.jws import JWSRegistry

from src.config import Settings, TokenAlgorithm, get_settings
from src.shared.keys import keys_for
from src.shared.types import MAX_INT32

TYPE: Final = "at+jwt"
AUDIENCE: Final = "undercroft-api"
LEEWAY_SECONDS: Final = 5
MAX_TOKEN_BYTES: Final = 2048
ALGORITHMS: Final[tuple[TokenAlgorithm, ...]] = get_args(TokenAlgorithm)
_HEADER: Final = frozenset({"alg", "typ", "kid"})
# One algorithm a key, and the key's name says which: the first letter of each.
_KINDS: Final[dict[str, TokenAlgorithm]] = {algorithm[0].lower(): algorithm for algorithm in ALGORITHMS}
_KEY_ID = re.compile(r"([a-z][0-9a-f]{16})([0-9a-f]{16})")
API_KEY_PREFIX: Final = "uck_"
_BODY_LETTERS: Final = 43
_CHECKSUM_LETTERS: Final = 6
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_API_KEY: Final = re.compile(
    rf"{API_KEY_PREFIX}(?P<body>[0-9A-Za-z]{{{_BODY_LETTERS}}})(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_LETTERS}}})"
)
_REGISTRIES: Final = {
    algorithm: JWSRegistry(algorithms=[algorithm], strict_check_header=False) for algorithm in ALGORITHMS
}


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Who, in which session, under which epoch: no roles or permissions, they are read when they are needed."""

    subject: str
    user_id: UUID
    """The same."""
    session_id: UUID
    auth_epoch: int
    key_id: str
    valid_from: int
    expires_at: int
    """Seconds since 1970, as its `valid_from`."""

    def are_current(self, now: float) -> bool:
        return self.valid_from <= now + LEEWAY_SECONDS and now < self.expires_at


@dataclass(frozen=True, slots=True)
class KeyClaims:
    """An API key says nothing by itself: whose it is stands in the database."""

    key_hash: str

    def are_current(self, _: float) -> bool:
        return True


Claims = AccessClaims | KeyClaims


# Keys


@dataclass(frozen=True, slots=True)
class _Key:
    algorithm: TokenAlgorithm
    jwk: OctKey | OKPKey


def new_key_id(algorithm: TokenAlgorithm) -> str:
    name = algorithm[0].lower() + secrets.token_hex(8)
    return name + _seal_of(name, keys_for("access-token")[0])


def _seal_of(name: str, root: bytes) -> str:
    return hmac.digest(root, b"kid/" + name.encode(), "sha256").hex()[:16]


def _key(key_id: str) -> _Key | None:
    """The key follows from its id, so no process has to be told of a new one; of an id that we did not make there is
    none. Whether it is still in use is up to the database."""
    named = _KEY_ID.fullmatch(key_id)
    if named is None or named[1][0] not in _KINDS:
        return None
    for root in keys_for("access-token"):
        if hmac.compare_digest(_seal_of(named[1], root), named[2]):
            return _made(_KINDS[named[1][0]], hmac.digest(root, b"key/" + named[1].encode(), "sha256"))
    return None


def signs(key_id: str) -> bool:
    """Whether it was made under the current secret: those of previous ones only read."""
    name, seal = key_id[:-16], key_id[-16:]
    return hmac.compare_digest(_seal_of(name, keys_for("access-token")[0]), seal)


@lru_cache(maxsize=64)
def _made(algorithm: TokenAlgorithm, secret: bytes) -> _Key:
    if algorithm == "HS256":
        return _Key(algorithm, OctKey.import_key(secret))
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return _Key(
        algorithm,
        OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": _base64(secret), "x": _base64(public)}),
    )


def public_key(key_id: str) -> dict[str, str] | None:
    """As a JWK (RFC 7517 §4); None where whoever checks could also sign."""
    key = _key(key_id)
    if key is None or not isinstance(key.jwk, OKPKey):
        return None
    shape = key.jwk.as_dict(private=False)
    return {name: str(shape[name]) for name in ("kty", "crv", "x")} | {
        "alg": key.algorithm,
        "use": "sig",
        "kid": key_id,
    }


# Access tokens


def make_access_token(user_id: UUID, session_id: UUID, auth_epoch: int, *, key_id: str) -> str:
    """Under a key that `signs`."""
    settings, now, key = get_settings(), int(time()), _key(key_id)
    assert key is not None
    claims = {
        "iss": settings.app.name,
        "aud": AUDIENCE,
        "sub": str(user_id),
        "sid": str(session_id),
        "jti": secrets.token_urlsafe(12),
        "iat": now,
        "nbf": now,
        "exp": now + settings.auth.access_token_ttl_seconds,
        "epoch": auth_epoch,
    }
    header = {"alg": key.algorithm, "typ": TYPE, "kid": key_id}
    return jwt.encode(header, claims, key.jwk, registry=_REGISTRIES[key.algorithm])


def read_token(token: str) -> Claims | None:
    """None for what is neither an access token of ours, current and complete, nor an API key as we write them."""
    return read_api_key(token) if token.startswith(API_KEY_PREFIX) else read_access_token(token)


def read_access_token(token: str) -> AccessClaims | None:
    """The claims of a token that is ours, current and complete; None for anything else."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        return None
    try:
        key_id = json.loads(_decode(token.partition(".")[0]))["kid"]
        key = _key(key_id)
        if key is None:
            return None
        decoded = jwt.decode(token, key.jwk, algorithms=[key.algorithm], registry=_REGISTRIES[key.algorithm])
        if not _header_ok(decoded.header, key_id, key):
            return None
        return _claims(decoded.claims, key_id, get_settings())
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _header_ok(header: dict[str, Any], key_id: str, key: _Key) -> bool:  # Any: whatever a client put there
    return header.keys() == _HEADER and (header["alg"], header["typ"], header["kid"]) == (key.algorithm, TYPE, key_id)


def _claims(
    claims: dict[str, Any], key_id: str, settings: Settings
) -> AccessClaims | None:  # Any: as above, though signed
    times = [claims["iat"], claims["nbf"], claims["exp"]]
    if any(type(moment) is not int for moment in times) or type(claims["epoch"]) is not int:
        return None
    issued, not_before, expires = times
    if claims["iss"] != settings.app.name or claims["aud"] != AUDIENCE:
        return None
    if not all(isinstance(claims[name], str) for name in ("sub", "sid", "jti")):
        return None
    if not 0 <= claims["epoch"] <= MAX_INT32:
        return None
    user_id, session_id = UUID(claims["sub"]), UUID(claims["sid"])
    read = AccessClaims(str(user_id), user_id, session_id, claims["epoch"], key_id, max(issued, not_before), expires)
    return read if read.are_current(time()) else None


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# Opaque tokens


def new_opaque_token() -> str:
    """256 bits: so many need no slow hash."""
    return secrets.token_urlsafe(32)


def hash_opaque_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def successors(token: str) -> list[str]:
    """The one successor of a refresh token. Derived, since only hashes are stored: whoever lost the answer to a
    refresh can be given the same one again. Behind it what it would have been under previous secrets."""
    return [_base64(hmac.digest(key, token.encode(), "sha256")) for key in keys_for("refresh-token")]


# API keys


def new_api_key() -> str:
    """`uck_`, 256 bits in 43 characters, a checksum in 6: a scanner of source code knows one when it sees it, without
    asking us, and what was cut off or made up is refused without a look into the database."""
    body = _base62(int.from_bytes(secrets.token_bytes(32)), _BODY_LETTERS)
    return API_KEY_PREFIX + body + _checksum(body)


def read_api_key(key: str) -> KeyClaims | None:
    written = _API_KEY.fullmatch(key)
    if written is None or _checksum(written["body"]) != written["checksum"]:
        return None
    return KeyClaims(hash_opaque_token(key))


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), _CHECKSUM_LETTERS)


def _base62(number: int, letters: int) -> str:
    written = ""
    for _ in range(letters):
        number, rest = divmod(number, len(_ALPHABET))
        written = _ALPHABET[rest] + written
    return written

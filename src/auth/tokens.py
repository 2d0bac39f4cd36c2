"""Access tokens (JWS, RFC 7519 and RFC 9068) and opaque refresh tokens. Nothing here knows the database."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import cache
from time import time
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from src.config import Settings, get_settings
from src.shared.types import MAX_INT32

ALGORITHM: Final = "HS256"
TYPE: Final = "at+jwt"
AUDIENCE: Final = "undercroft-api"
LEEWAY_SECONDS: Final = 5
MAX_TOKEN_BYTES: Final = 2048
_HEADER: Final = frozenset({"alg", "typ", "kid"})


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Who, in which session, under which epoch: no roles or permissions, they are read when they are needed."""

    subject: str
    user_id: UUID
    """The same."""
    session_id: UUID
    auth_epoch: int
    valid_from: int
    expires_at: int
    """Seconds since 1970, as its `valid_from`."""

    def are_current(self, now: float) -> bool:
        return self.valid_from <= now + LEEWAY_SECONDS and now < self.expires_at


@dataclass(frozen=True, slots=True)
class _Keys:
    access: OctKey
    access_id: str
    refresh: bytes


def _derive(secret: bytes, purpose: str) -> bytes:
    """One secret in the settings, a key of its own for each purpose (RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=f"undercroft/{purpose}/v1".encode()).derive(secret)


@cache
def _keys(secret: str) -> _Keys:
    access = _derive(secret.encode(), "access-token")
    return _Keys(
        OctKey.import_key(access),
        hashlib.sha256(b"kid" + access).hexdigest()[:16],
        _derive(secret.encode(), "refresh-token"),
    )


def _current(settings: Settings) -> _Keys:
    return _keys(settings.auth.secret.get_secret_value())


_registry = JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)


def make_access_token(user_id: UUID, session_id: UUID, auth_epoch: int) -> str:
    settings = get_settings()
    keys, now = _current(settings), int(time())
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
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": keys.access_id}
    return jwt.encode(header, claims, keys.access, registry=_registry)


def read_access_token(token: str) -> AccessClaims | None:
    """The claims of a token that is ours, current and complete; None for anything else."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        return None
    settings = get_settings()
    try:
        decoded = jwt.decode(token, _current(settings).access, algorithms=[ALGORITHM], registry=_registry)
        if not _header_ok(decoded.header, _current(settings)):
            return None
        return _claims(decoded.claims, settings)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _header_ok(header: dict[str, Any], keys: _Keys) -> bool:  # Any: whatever a client put there
    return header.keys() == _HEADER and (header["alg"], header["typ"], header["kid"]) == (
        ALGORITHM,
        TYPE,
        keys.access_id,
    )


def _claims(claims: dict[str, Any], settings: Settings) -> AccessClaims | None:  # Any: as above, though signed
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
    read = AccessClaims(str(user_id), user_id, session_id, claims["epoch"], max(issued, not_before), expires)
    return read if read.are_current(time()) else None


def new_refresh_token() -> str:
    return secrets.token_urlsafe(32)


def hash_refresh_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def succeed(token: str) -> str:
    """The one successor of a refresh token. Derived, since only hashes are stored: whoever lost the answer to a
    refresh can be given the same one again."""
    digest = hmac.digest(_current(get_settings()).refresh, token.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

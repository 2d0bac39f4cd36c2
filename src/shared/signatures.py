"""Signed messages between servers, as Standard Webhooks 1.0.0 has them: HMAC-SHA256 over id, moment and body."""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

ID_HEADER: Final = "webhook-id"
MOMENT_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_FEWEST_BYTES: Final = 24
_MOST_BYTES: Final = 64
_TOLERANCE_SECONDS: Final = 300
_MOST_SIGNATURES: Final = 10
"""Of a message: one for each secret that is being replaced."""


class InvalidSignatureError(Exception):
    """By nobody who has the secret, or of another time. Says nothing about which."""


def make_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def read_secret(written: str) -> bytes:
    """
    Raises:
        ValueError: not `whsec_` and 24 to 64 bytes in base64.
    """
    try:
        key = base64.b64decode(written.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not written.startswith(_PREFIX) or not _FEWEST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64")
    return key


def signed_headers(keys: Sequence[bytes], message_id: str, moment: int, body: bytes) -> dict[str, str]:
    """`moment` in seconds since 1970. One signature a key: whoever has only the old one or the new one still reads it."""
    return {
        ID_HEADER: message_id,
        MOMENT_HEADER: str(moment),
        SIGNATURE_HEADER: " ".join(_sign(key, message_id, str(moment), body) for key in keys),
    }


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now: float) -> str:
    """The message's id.

    Raises:
        InvalidSignatureError
    """
    message_id, moment = headers.get(ID_HEADER, ""), headers.get(MOMENT_HEADER, "")
    signatures = headers.get(SIGNATURE_HEADER, "").split(" ")
    if not message_id or not re.fullmatch(r"[0-9]{1,12}", moment) or len(signatures) > _MOST_SIGNATURES:
        raise InvalidSignatureError
    if abs(now - int(moment)) > _TOLERANCE_SECONDS:
        raise InvalidSignatureError
    for key in keys:
        ours = _sign(key, message_id, moment, body).encode()
        if any(hmac.compare_digest(ours, theirs.encode("utf-8", "surrogatepass")) for theirs in signatures):
            return message_id
    raise InvalidSignatureError


def _sign(key: bytes, message_id: str, moment: str, body: bytes) -> str:
    signed = b".".join((message_id.encode("utf-8", "surrogatepass"), moment.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()

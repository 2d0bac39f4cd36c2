"""Keys for each purpose, all derived from AUTH__SECRET: none is kept anywhere, and none serves two ends."""

import hmac
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from src.config import ConfigurationError, get_settings, setting_name

_NONCE_BYTES = 12


class UnsealableError(Exception):
    """Sealed under a secret that is in the settings no more, or not by us."""


def keys_for(purpose: str) -> tuple[bytes, ...]:
    """Of 32 bytes: the current one, then those of AUTH__PREVIOUS_SECRETS, which only read.

    Raises:
        ConfigurationError: nothing is ever signed or sealed with the key of an empty secret.
    """
    auth = get_settings().auth
    if not auth.secret.get_secret_value():
        raise ConfigurationError([f"{setting_name('auth', 'secret')}: missing"])
    secrets = (auth.secret, *auth.previous_secrets)
    return tuple(_derive(secret.get_secret_value(), purpose) for secret in secrets)


@lru_cache(maxsize=1024)
def _derive(secret: str, purpose: str) -> bytes:
    """RFC 5869."""
    return HKDF(SHA256(), 32, salt=None, info=f"undercroft/{purpose}/v1".encode()).derive(secret.encode())


def seal(purpose: str, content: bytes) -> bytes:
    """For a table that somebody may read one day: AES-256-GCM, the nonce first."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(keys_for(purpose)[0]).encrypt(nonce, content, purpose.encode())


def unseal(purpose: str, sealed: bytes) -> bytes:
    """
    Raises:
        UnsealableError: says nothing about the content.
    """
    nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    for key in keys_for(purpose):
        try:
            return AESGCM(key).decrypt(nonce, content, purpose.encode())
        except (InvalidTag, ValueError):
            continue
    raise UnsealableError


def pseudonym(text: str) -> str:
    """Stands for a person's address or name where that itself must not be kept: two that are equal stand for the same."""
    return hmac.digest(keys_for("pseudonym")[0], text.encode("utf-8", "surrogatepass"), "sha256").hex()[:16]

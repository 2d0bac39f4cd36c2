"""An authenticator and the browser in front of it (Web Authentication, level 3), for what no real one would say."""

import hashlib
import json
import secrets
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

Json = dict[str, Any]  # Any: JSON
_PRESENT, _VERIFIED, _ATTESTED = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """With one passkey."""

    origin: str = "https://localhost"
    domain: str = "localhost"
    verifies: bool = True
    """Asks who is holding it."""
    counts: bool = True
    key: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user_handle: str = ""
    sign_count: int = 0

    def create(self, options: Json) -> Json:
        self.user_handle = options["user"]["id"]
        credential = {"fmt": "none", "attStmt": {}, "authData": self._data(attested=True)}
        return self._answer(
            {
                "clientDataJSON": self._client_data("webauthn.create", options),
                "attestationObject": encoded(cbor2.dumps(credential)),
                "transports": ["internal"],
            }
        )

    def get(self, options: Json) -> Json:
        data, client = self._data(), self._client_data("webauthn.get", options)
        signed = data + hashlib.sha256(decoded(client)).digest()
        return self._answer(
            {
                "clientDataJSON": client,
                "authenticatorData": encoded(data),
                "signature": encoded(self.key.sign(signed, ECDSA(SHA256()))),
                "userHandle": self.user_handle,
            }
        )

    def _answer(self, response: Json) -> Json:
        """As `PublicKeyCredential.toJSON()` has it."""
        name = encoded(self.credential_id)
        return {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "response": response,
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
        }

    def _client_data(self, kind: str, options: Json) -> str:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return encoded(json.dumps(said).encode())

    def _data(self, *, attested: bool = False) -> bytes:
        self.sign_count += self.counts
        flags = _PRESENT | _VERIFIED * self.verifies | _ATTESTED * attested
        data = hashlib.sha256(self.domain.encode()).digest() + struct.pack(">BI", flags, self.sign_count)
        if attested:
            data += bytes(16) + struct.pack(">H", len(self.credential_id)) + self.credential_id + self._cose_key()
        return data

    def _cose_key(self) -> bytes:
        point = self.key.public_key().public_numbers()
        # RFC 9053 §7.1: an EC2 key for ES256.
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)})


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))

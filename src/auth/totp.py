"""Codes that change with time (RFC 6238), the picture that a phone takes of their secret, and codes for when it is lost."""

import base64
import hmac
import secrets
from io import BytesIO
from typing import Final
from uuid import UUID

import pyotp
import segno

from src.config import get_settings
from src.shared.keys import keys_for

STEP_SECONDS: Final = 30
# RFC 6238 §5.2 advises one step for clocks that differ and people who type slowly.
_WINDOW: Final = (-1, 0, 1)
_RECOVERY_BYTES: Final = 10
_GROUP: Final = 4
# What people read as another letter, or type with it.
_MISREAD: Final = str.maketrans({"0": "O", "1": "I", "8": "B", "-": None, " ": None})


def new_secret() -> str:
    """160 bits in base32, as RFC 4226 §4 recommends."""
    return pyotp.random_base32()


def matching_step(secret: str, code: str, now: float) -> int | None:
    """The time step whose code this is, if that is now or a neighbour of now."""
    typed = code.replace(" ", "").encode("utf-8", "surrogatepass")
    current, otp, found = int(now) // STEP_SECONDS, pyotp.TOTP(secret), None
    for step in (current + offset for offset in _WINDOW):
        # Each is compared, so that how long it takes tells nothing.
        if hmac.compare_digest(otp.generate_otp(step).encode(), typed):
            found = step
    return found


def key_uri(secret: str, account: str) -> str:
    """`otpauth://totp/…`, what authenticator apps read."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=get_settings().app.name)


def qr_svg(text: str) -> str:
    """An `<svg>` element, black on white, without a size of its own."""
    image = BytesIO()
    segno.make_qr(text, error="m").save(
        image, kind="svg", xmldecl=False, omitsize=True, light="#fff", border=4, nl=False
    )
    return image.getvalue().decode()


def new_recovery_code() -> str:
    """80 bits, in groups that can be read aloud."""
    letters = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode()
    return "-".join(letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP))


def recovery_hashes(user_id: UUID, code: str) -> list[str]:
    """Under the current secret, then under previous ones: keyed, since whoever reads the table could try 80 bits sooner
    than the 256 of a token."""
    typed = f"{user_id}/{code.upper().translate(_MISREAD)}".encode("utf-8", "surrogatepass")
    return [hmac.digest(key, typed, "sha256").hex() for key in keys_for("recovery-code")]

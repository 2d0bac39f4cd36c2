"""What must not be read in a log: secrets, known by the name they go by or by their looks."""

import re
from functools import lru_cache

REDACTED = "[redacted]"

_NAMES = (
    "passw(?:or)?d",
    "passphrase",
    "secret",
    "token",
    "credential",
    "api[-_ ]?key",
    "private[-_ ]?key",
    "recovery[-_ ]?code",
    "backup[-_ ]?code",
    "verification[-_ ]?code",
)
_HEADERS = ("cookie", "authori[sz]ation")
# These hide in ordinary words (laptop, shipping), so they count only as a word of their own.
_SHORT_NAMES = ("otp", "totp", "pin", "pwd", "pass", "cvv", "cvc", "jwt", "bearer")
_SECRET_NAME = re.compile(
    f"{'|'.join(_NAMES + _HEADERS)}|(?:^|[^a-z])(?:{'|'.join(_SHORT_NAMES)})(?:$|[^a-z])", re.IGNORECASE
)

# name=value, name: value, "name": "value", and ('name', 'value') as lists of headers are printed.
_ASSIGNED = r"""[\\"']{0,6}\s{0,4}(?:[=:]|(?<=["']),)\s{0,4}(?:b(?=["']))?"""
_QUOTED = r"""\\{0,4}"(?:[^"\\]|\\.){0,512}"|\\{0,4}'(?:[^'\\]|\\.){0,512}'"""
_VALUE = rf"(\[redacted\]|{_QUOTED}|[^\s,;&)}}\]]+)"

# Searched in small letters; the one group of each form is the secret. Each begins with a letter of its own and not
# with a group or a look-behind, which lets the engine skip through harmless text twenty times as fast. No repetition
# is unbounded where it could start again inside itself, so hostile text costs linear time.
_SECRET_TEXT = re.compile(
    "|".join(
        (
            r"""bearer\s{1,8}([^\s,;"')\]}]+)""",
            r"""basic\s{1,8}([a-z0-9+/]{8,}={0,2})""",
            r"eyj((?:(?<![\w-]eyj)|(?<=%[0-9a-f]{2}eyj))[\w-]+(?:\.[\w-]*){2,4})",
            r"uck_([0-9a-z]{49})",
            r"://([^\s/?#]{1,512})@",
            r"input_value=(.{0,300}?), input_type=",
            r"-----begin [a-z ]{0,30}key-----([a-z0-9+/=\s\\]+)",
            *(rf"{name}s?{_ASSIGNED}(\[redacted\]|{_QUOTED}|[^\r\n]+)" for name in _HEADERS),
            *(rf"{name}[\w-]{{0,32}}{_ASSIGNED}{_VALUE}" for name in _NAMES),
            *(rf"{name}(?<![a-z0-9]{name}){_ASSIGNED}{_VALUE}" for name in _SHORT_NAMES),
        )
    ),
    re.DOTALL,
)

# Each form but that of an API key needs a sign or a space besides these; most paths and names have none.
_HARMLESS_TEXT = re.compile(r"(?!.*uck_)[\w/-]*", re.IGNORECASE)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def redact_text(text: str) -> str:
    """Take out what looks like a bearer or basic credential, a JOSE token, an API key, a private key, `password=…`, a cookie,
    the user part of an address (`scheme://user:password@host`), or an input that pydantic quotes."""
    if _HARMLESS_TEXT.fullmatch(text):
        return text
    small = text.lower()
    if _SECRET_TEXT.search(small) is None:
        return text
    if len(small) != len(text):  # letters like İ are two when they are small: positions would not fit
        text = small
    parts: list[str] = []
    end = 0
    for match in _SECRET_TEXT.finditer(small):
        start, stop = match.span(match.lastindex or 0)
        parts += (text[end:start], REDACTED)
        end = stop
    return "".join((*parts, text[end:]))

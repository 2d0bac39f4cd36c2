"""Signatures are those of Standard Webhooks, and none of another message, moment or secret is taken."""

import base64

import pytest

from src.shared import signatures
from src.shared.signatures import InvalidSignatureError

# The example of the specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, MOMENT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_specification() -> None:
    headers = signatures.signed_headers([signatures.read_secret(SECRET)], ID, MOMENT, BODY)

    assert headers == {"webhook-id": ID, "webhook-timestamp": str(MOMENT), "webhook-signature": SIGNATURE}
    assert signatures.verify([signatures.read_secret(SECRET)], headers, BODY, now=MOMENT) == ID


def test_while_a_secret_is_replaced_both_are_good() -> None:
    old, new = (signatures.read_secret(signatures.make_secret()) for _ in range(2))
    headers = signatures.signed_headers([new, old], ID, MOMENT, BODY)

    for keys in ([old], [new], [old, new]):
        assert signatures.verify(keys, headers, BODY, now=MOMENT) == ID


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-timestamp": str(MOMENT + 1)},
        {"webhook-timestamp": f"+{MOMENT}"},
        {"webhook-timestamp": "٣"},
        {"webhook-signature": SIGNATURE.replace("v1,", "v1a,")},
        {"webhook-signature": SIGNATURE[:-1]},
        {"webhook-signature": "v1,\udcff"},
        {"webhook-signature": ""},
        {"webhook-signature": " ".join([*["v1,AAAA"] * 10, SIGNATURE])},
    ],
)
def test_what_is_not_signed_so_is_refused(changed: dict[str, str]) -> None:
    key = signatures.read_secret(SECRET)
    headers = signatures.signed_headers([key], ID, MOMENT, BODY) | changed

    with pytest.raises(InvalidSignatureError):
        signatures.verify([key], headers, BODY, now=MOMENT)


@pytest.mark.parametrize(("now", "body"), [(MOMENT + 301, BODY), (MOMENT - 301, BODY), (MOMENT, BODY + b" ")])
def test_a_message_is_good_for_five_minutes_and_for_its_body(now: float, body: bytes) -> None:
    key = signatures.read_secret(SECRET)
    headers = signatures.signed_headers([key], ID, MOMENT, BODY)

    with pytest.raises(InvalidSignatureError):
        signatures.verify([key], headers, body, now=now)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_short",
        "whsec_not base64!",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
    ],
)
def test_what_is_no_secret_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_"):
        signatures.read_secret(written)

"""Passkeys (Web Authentication, level 3): what a browser is asked, and whether its answer is right."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import webauthn
from webauthn.helpers import options_to_json_dict, parse_client_data_json
from webauthn.helpers.base64url_to_bytes import base64url_to_bytes
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from src.config import get_settings

Json = dict[str, Any]  # Any: JSON, as the standard has it
_CHALLENGE_BYTES: Final = 32
_ANSWERED_WITHIN_MS: Final = 300_000


class InvalidPasskeyError(Exception):
    """The browser's answer is not what was asked for. Its text is for the log."""


@dataclass(frozen=True, slots=True)
class Known:
    """A passkey that an account has already."""

    credential_id: bytes
    transports: Sequence[str]


@dataclass(frozen=True, slots=True)
class Registered:
    credential_id: bytes
    public_key: bytes
    """COSE_Key (RFC 9052 §7)."""
    sign_count: int
    transports: list[str]
    is_synced: bool
    """It is on all devices of its owner, as far as the authenticator says."""


@dataclass(frozen=True, slots=True)
class Used:
    sign_count: int
    user_handle: UUID | None
    """Whose it says it is; not each authenticator does."""


def new_challenge() -> bytes:
    return secrets.token_bytes(_CHALLENGE_BYTES)


def creation_options(challenge: bytes, *, user_id: UUID, user_name: str, known: Sequence[Known]) -> Json:
    """For `navigator.credentials.create`, as `PublicKeyCredential.parseCreationOptionsFromJSON` reads it."""
    return options_to_json_dict(
        webauthn.generate_registration_options(
            rp_id=get_settings().passkey_domain,
            rp_name=get_settings().app.name,
            user_id=user_id.bytes,
            user_name=user_name,
            challenge=challenge,
            timeout=_ANSWERED_WITHIN_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=_descriptors(known),
        )
    )


def request_options(challenge: bytes, *, known: Sequence[Known], user_verified: bool) -> Json:
    """For `navigator.credentials.get`; without `known` ones the browser offers those that it has for this domain."""
    wanted = UserVerificationRequirement.REQUIRED if user_verified else UserVerificationRequirement.PREFERRED
    return options_to_json_dict(
        webauthn.generate_authentication_options(
            rp_id=get_settings().passkey_domain,
            challenge=challenge,
            timeout=_ANSWERED_WITHIN_MS,
            allow_credentials=_descriptors(known),
            user_verification=wanted,
        )
    )


def _descriptors(known: Sequence[Known]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=each.credential_id, transports=[AuthenticatorTransport(transport) for transport in each.transports]
        )
        for each in known
    ]


def challenge_of(credential: Mapping[str, Any]) -> bytes:  # Any: JSON
    """Which one a browser's answer is for: whether it was ours is up to the database."""
    try:
        return parse_client_data_json(base64url_to_bytes(credential["response"]["clientDataJSON"])).challenge
    except Exception as error:  # a parser of foreign bytes: whatever it stumbles over, the answer is not right
        raise InvalidPasskeyError(repr(error)) from error


def verify_registration(credential: Json, challenge: bytes) -> Registered:
    """
    Raises:
        InvalidPasskeyError
    """
    try:
        verified = webauthn.verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=get_settings().passkey_domain,
            expected_origin=list(get_settings().passkey_origins),
        )
        said = credential["response"].get("transports") or []
    except Exception as error:  # as above
        raise InvalidPasskeyError(repr(error)) from error
    known = {transport.value for transport in AuthenticatorTransport}
    return Registered(
        verified.credential_id,
        verified.credential_public_key,
        verified.sign_count,
        [transport for transport in dict.fromkeys(said) if transport in known],
        verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
    )


def verify_use(credential: Json, challenge: bytes, public_key: bytes, *, user_verified: bool) -> Used:
    """The counter is not judged here. `user_verified`: whether the authenticator must have asked who is holding it.

    Raises:
        InvalidPasskeyError
    """
    try:
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=get_settings().passkey_domain,
            expected_origin=list(get_settings().passkey_origins),
            credential_public_key=public_key,
            credential_current_sign_count=0,
            require_user_verification=user_verified,
        )
        handle = credential["response"].get("userHandle")
        user_handle = UUID(bytes=base64url_to_bytes(handle)) if handle else None
    except Exception as error:  # as above
        raise InvalidPasskeyError(repr(error)) from error
    return Used(verified.new_sign_count, user_handle)


def id_of(credential: Json) -> bytes:
    """
    Raises:
        InvalidPasskeyError
    """
    try:
        return base64url_to_bytes(credential["id"])
    except ValueError as error:
        raise InvalidPasskeyError(repr(error)) from error

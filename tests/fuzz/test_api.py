"""No input brings the service down, and each answer is a documented one: a slice of `python -m tests.prove fuzz`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.api import ACTORS, SETTINGS, Actor, fuzz
from tests.support.postgres import Kind
from tests.support.scale import in_full, rounds
from tests.support.service import Place, Service, own_place

SEED = 8
SECRETS_OF_ONES_OWN = {
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/login/passkey",
    "POST /api/v1/auth/login/second-factor",
    "POST /api/v1/auth/password/change",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/step-up",
    "POST /api/v1/auth/step-up/passkey",
    "POST /api/v1/auth/token",
    "POST /api/v1/profile/deactivate",
    "POST /api/v1/profile/delete",
    "POST /api/v1/callbacks/payments",
    "DELETE /api/v1/profile/security/totp",
    "POST /api/v1/profile/security/api-keys",
    "DELETE /api/v1/profile/security/passkeys/{passkey_id}",
    "POST /api/v1/profile/security/passkeys",
    "POST /api/v1/profile/security/passkey-options",
    "POST /api/v1/profile/security/recovery-codes",
    "POST /api/v1/profile/security/totp",
}
"""Operations that nobody gets into by guessing."""


@pytest.fixture(scope="module")
def place(database_kind: Kind) -> Iterator[Place]:
    with own_place(database_kind, **SETTINGS) as own:
        yield own


@pytest.fixture(scope="module")
def service(place: Place) -> Iterator[Service]:
    with place.service() as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("actor", ACTORS)
def test_any_request_has_a_documented_answer(
    service: Service, actor: Actor, tmp_path: Path, database_kind: Kind
) -> None:
    if not in_full() and (database_kind == "postgres") != (actor == "admin"):
        pytest.skip("in full only")
    fuzzed = fuzz(service, tmp_path, actor, examples=rounds(1, full=50), seed=SEED)

    assert not fuzzed.failures, "\n".join(fuzzed.failures)
    assert fuzzed.cases > 1_000
    if actor == "admin":
        assert set(fuzzed.shut_out) <= SECRETS_OF_ONES_OWN

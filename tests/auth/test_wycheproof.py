"""The signature vectors of Wycheproof against the verifier of our access tokens, as it is configured."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry

from src.auth import tokens
from src.config import Settings, get_settings, load_settings, use_settings

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "wycheproof"
VECTORS = CORPUS / "json_web_signature_test.json"
# Contradictions within the corpus: the same bytes labelled both ways, names of algorithms that do not exist.
LABEL_DEFECTS = CORPUS / "wycheproof-jws-label-defects.json"
# For the few keys that name no algorithm.
SUITABLE = {
    "oct": ["HS256"],
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "EC": ["ES256", "ES384", "ES512"],
}

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="the corpora are not part of the project")


@cache
def vectors() -> list[tuple[dict[str, Any], dict[str, Any]]]:  # Any: JSON
    """(key, vector)"""
    groups = json.loads(VECTORS.read_text())["testGroups"]
    return [(group.get("public") or group["private"], vector) for group in groups for vector in group["tests"]]


def verifies(key: dict[str, Any], token: str) -> bool:  # Any: a JWK
    """By our verifier; for keys of other kinds by one of the same making."""
    algorithms = [key["alg"]] if "alg" in key else SUITABLE[key["kty"]]
    ours = next((name for name in tokens.ALGORITHMS if algorithms == [name]), None)
    registry = tokens._REGISTRIES[ours] if ours else JWSRegistry(algorithms=algorithms, strict_check_header=False)
    try:
        jws.deserialize_compact(token, import_key(key), algorithms=algorithms, registry=registry)
    except (JoseError, ValueError, TypeError, KeyError):  # what the verifier takes for a no
        return False
    return True


def test_every_scored_vector_is_judged_as_it_is_labelled(tried: Callable[[int], None]) -> None:
    notes = json.loads(LABEL_DEFECTS.read_text())
    defects = {int(number) for number in notes["exclude"]}
    scored = [(key, vector) for key, vector in vectors() if vector["tcId"] not in defects]

    tried(len(scored))
    wrong = [v["tcId"] for key, v in scored if verifies(key, v["jws"]) is not (v["result"] == "valid")]

    assert wrong == []
    assert len(scored) == notes["scored"]


@pytest.fixture
def settings() -> Any:  # Any: as pytest has fixtures that yield
    before: Settings = get_settings()
    yield use_settings(load_settings(app={"env": "test"}, auth={"secret": "a secret of this test, and of no other"}))
    use_settings(before)


def test_none_of_them_is_an_access_token(settings: Settings) -> None:
    assert [vector["tcId"] for _, vector in vectors() if tokens.read_access_token(vector["jws"]) is not None] == []

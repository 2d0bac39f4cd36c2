"""Keys that all come from one secret, and what is sealed under them."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from src import config
from src.config import AppSettings, AuthSettings, ConfigurationError, Env, Settings
from src.shared.keys import UnsealableError, keys_for, pseudonym, seal, unseal

SECRET, NEXT = "kY2v8mQ4xT7wR1pN6zB3cD5fG9hJ0lSeUiO", "oU1eSl0Jh9Gf5Dc3Bz6Np1Rw7Tx4Qm8v2Yk"


def use(secret: str, *previous: str) -> None:
    auth = AuthSettings(secret=SecretStr(secret), previous_secrets=tuple(map(SecretStr, previous)))
    config.use_settings(Settings(app=AppSettings(env=Env.TEST), auth=auth))


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = config._current
    use(SECRET)
    yield
    config._current = before


def test_what_was_sealed_is_read_for_its_purpose() -> None:
    sealed = seal("outbox", b"a word")

    assert unseal("outbox", sealed) == b"a word"
    assert b"a word" not in sealed
    assert seal("outbox", b"a word") != sealed
    with pytest.raises(UnsealableError):
        unseal("audit", sealed)


def test_what_was_bent_is_not_read() -> None:
    sealed = seal("outbox", b"a word")

    for position in range(len(sealed)):
        bent = bytearray(sealed)
        bent[position] ^= 1
        with pytest.raises(UnsealableError):
            unseal("outbox", bytes(bent))
    for cut in (b"", sealed[:5], sealed[:-1], sealed + b"x"):
        with pytest.raises(UnsealableError):
            unseal("outbox", cut)


def test_a_previous_secret_reads_and_does_not_seal() -> None:
    earlier = seal("outbox", b"a word")
    use(NEXT, SECRET)
    later = seal("outbox", b"a word")

    assert unseal("outbox", earlier) == unseal("outbox", later) == b"a word"

    use(SECRET)
    with pytest.raises(UnsealableError):
        unseal("outbox", later)


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = [
        keys_for(purpose)[0] for purpose in ("access-token", "refresh-token", "outbox", "audit", "pseudonym", "cursor")
    ]

    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


def test_nothing_is_made_with_an_empty_secret() -> None:
    use("")

    for make in (lambda: seal("outbox", b""), lambda: pseudonym("somebody"), lambda: keys_for("audit")):
        with pytest.raises(ConfigurationError, match="AUTH__SECRET"):
            make()

"""Where settings come from, and which of them stop a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.config import ConfigurationError, Settings, load_settings, refuse_weak

ROOT = Path(__file__).parents[2]
STRONG = "dGhpcyBvbmUgaXMgbm90IGluIGFueSBsaXN0IQ-7f3k9"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if "__" in name:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_each_source_wins_over_the_ones_after_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("APP__SECRETS_DIR", str(secrets))

    found = [load_settings().app.max_retries]
    (secrets / "APP__MAX_RETRIES").write_text("4")
    found.append(load_settings().app.max_retries)
    (tmp_path / "undercroft.toml").write_text("[app]\nmax_retries = 5\n")
    found.append(load_settings().app.max_retries)
    (tmp_path / ".env").write_text("APP__MAX_RETRIES=6\n")
    found.append(load_settings().app.max_retries)
    monkeypatch.setenv("APP__MAX_RETRIES", "7")
    found.append(load_settings().app.max_retries)
    found.append(load_settings(app={"max_retries": 8}).app.max_retries)

    assert found == [3, 4, 5, 6, 7, 8]


def test_sources_are_merged_setting_by_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "undercroft.toml").write_text('[app]\nmax_retries = 5\nname = "Vault"\n')
    monkeypatch.setenv("APP__MAX_RETRIES", "7")

    app = load_settings(app={"timezone": 5.75}).app

    assert (app.name, app.max_retries, app.timezone) == ("Vault", 7, 5.75)


def test_only_prefixed_names_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = load_settings()
    for name in ("PORT", "DEBUG", "USER", "LOG", "APP", "DB", "HTTP", "CACHE", "AUTH", "ENV", "NAME", "MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    (tmp_path / ".env").write_text("PORT=1\nDEBUG=true\nAPP=x\n")

    assert load_settings() == before


def test_a_list_is_written_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP__ALLOWED_HOSTS", "a.example, b.example")
    with_commas = load_settings().http.allowed_hosts
    monkeypatch.setenv("HTTP__ALLOWED_HOSTS", '["a.example", "b.example"]')

    assert with_commas == load_settings().http.allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP__MAX_RETRIES", "many"),
        ("APP__TIMEZONE", "25"),
        ("APP__TIMEZONE", "nan"),
        ("APP__ENV", "staging"),
        ("DB__URL", "mysql://canary@host/x"),
        ("CACHE__URL", "memcached://canary"),
        ("DB__URL", "postgresql://user:canary@host:port/x"),
        ("DB__URL", "postgresql://user:canary/1@host/x"),
        ("DB__URL", "postgresql://user:canary[@host/x"),
        ("CACHE__URL", "redis://host:canary"),
        ("MAIL__URL", "smtp://host:canary"),
        ("HTTP__TRUSTED_PROXIES", "canary"),
        ("HTTP__PORT", "canary"),
        ("LOG__LEVEL", "canary"),
        ("HTTP__ALLOWED_HOSTS", '["canary'),
    ],
)
def test_a_bad_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refusal:
        load_settings()

    assert name in str(refusal.value)
    assert "canary" not in str(refusal.value)


ACME: dict[str, object] = {"name": "acme", "issuer": "https://acme.example", "client_id": "us", "client_secret": STRONG}
OTHER = ACME | {"client_secret": "another of theirs"}
BANK: dict[str, object] = {
    "url": "https://bank.example/v1",
    "api_key": "key",
    "callback_secrets": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
}


def provider(**other: object) -> str:
    return json.dumps([ACME | other])


def test_providers_are_a_json_list_or_tables_of_the_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = "\n".join(f'{name} = "{value}"' for name, value in ACME.items())
    (tmp_path / "undercroft.toml").write_text(f"[[auth.providers]]\n{table}\n")
    (of_file,) = load_settings().auth.providers
    monkeypatch.setenv("AUTH__PROVIDERS", provider())

    assert (of_file,) == load_settings().auth.providers
    assert (of_file.shown, of_file.scopes) == ("acme", "openid email")
    assert STRONG not in repr(load_settings())
    monkeypatch.setenv("AUTH__PROVIDERS", "")
    assert load_settings().auth.providers == ()


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("canary", ""),
        ('{"name": "canary"}', ""),
        ("[1]", "0"),
        ('[{"name": "canary"}]', "0.issuer"),
        (provider(name="Canary"), "0.name"),
        (provider(name="canary/.."), "0.name"),
        (provider(issuer="canary.example"), "0.issuer"),
        (provider(issuer="ftp://canary.example"), "0.issuer"),
        (provider(issuer="https://user:canary@acme.example"), "0.issuer"),
        (provider(issuer="https://canary.example?tenant=1"), "0.issuer"),
        (provider(issuer="https://canary.example#"), "0.issuer"),
        (provider(issuer="https://canary.example:port"), "0.issuer"),
        (provider(issuer="https://[canary"), "0.issuer"),
        (provider(issuer="https://canary.example/\n"), "0.issuer"),
        (provider(name="a" + "-a" * 31, issuer="https://canary.example"), "0.name"),
        (provider(client_id=""), "0.client_id"),
        (provider(client_id="canary\n"), "0.client_id"),
        (provider(client_secret=""), "0.client_secret"),
        (provider(client_secret="canary\udcff"), "0.client_secret"),
        (provider(scopes="email canary"), "0.scopes"),
        (provider(client_password="canary"), "0.client_password"),
        (json.dumps([ACME, ACME | {"issuer": "https://canary.example"}]), "same name"),
        (json.dumps([ACME, ACME | {"name": "canary"}]), "same issuer"),
    ],
)
def test_a_provider_that_cannot_be_meant_is_named_by_its_part(
    monkeypatch: pytest.MonkeyPatch, value: str, part: str
) -> None:
    monkeypatch.setenv("AUTH__PROVIDERS", value)

    with pytest.raises(ConfigurationError) as refusal:
        load_settings()

    assert "AUTH__PROVIDERS" in str(refusal.value)
    assert part in str(refusal.value)
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    ["canary", "http:canary", "https://user:canary@app.example", "https://app.example?canary", "https://a#canary"],
)
def test_the_page_that_providers_send_people_to_is_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AUTH__PROVIDER_REDIRECT_URL", url)

    with pytest.raises(ConfigurationError, match="AUTH__PROVIDER_REDIRECT_URL") as refusal:
        load_settings()

    assert "canary" not in str(refusal.value)


def test_a_name_that_does_not_exist_is_refused_with_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP__MAX_RETRY", "1")

    with pytest.raises(ConfigurationError, match="APP__MAX_RETRY: no such setting; did you mean APP__MAX_RETRIES"):
        load_settings()


def production(**sections: dict[str, object]) -> Settings:
    auth = {"secret": STRONG} | sections.pop("auth", {})
    http = {"allowed_hosts": ("api.example",)} | sections.pop("http", {})
    return load_settings(auth=auth, http=http, **sections)


def test_production_starts_with_a_secret_and_a_host() -> None:
    refuse_weak(production())
    refuse_weak(production(payments=BANK))
    refuse_weak(production(auth={"providers": (OTHER,), "provider_redirect_url": "https://app.example/signed-in/"}))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (lambda: production(auth={"secret": ""}), "AUTH__SECRET"),
        (lambda: production(auth={"secret": "short"}), "AUTH__SECRET"),
        (lambda: production(auth={"secret": "changethis-changethis-changethis-changethis"}), "AUTH__SECRET"),
        (lambda: production(auth={"secret": "a" * 64}), "AUTH__SECRET"),
        (lambda: production(db={"url": f"postgresql://user:{STRONG}@host/name"}), "AUTH__SECRET"),
        (lambda: production(app={"debug": True}), "APP__DEBUG"),
        (lambda: production(http={"drain_seconds": 20}), "HTTP__DRAIN_SECONDS"),
        (lambda: production(http={"shutdown_seconds": 5}), "HTTP__DRAIN_SECONDS"),
        (lambda: production(http={"docs": True}), "HTTP__DOCS"),
        (lambda: production(http={"allowed_hosts": ()}), "HTTP__ALLOWED_HOSTS"),
        (lambda: production(http={"allowed_hosts": ("*",)}), "HTTP__ALLOWED_HOSTS"),
        (
            lambda: production(http={"cors_origins": ("*",), "cors_allow_credentials": True}),
            "HTTP__CORS_ORIGINS",
        ),
        (lambda: production(http={"workers": 2}), "CACHE__URL"),
        (lambda: production(http={"workers": 2}), "DB__URL"),
        (
            lambda: production(auth={"providers": (ACME,), "provider_redirect_url": "https://app.example"}),
            "AUTH__SECRET",
        ),
        (lambda: production(auth={"providers": (ACME,)}), "AUTH__PROVIDER_REDIRECT_URL"),
        (
            lambda: production(auth={"providers": (ACME,), "provider_redirect_url": "http://app.example"}),
            "AUTH__PROVIDER_REDIRECT_URL",
        ),
        (
            lambda: production(
                auth={
                    "providers": (ACME | {"issuer": "http://acme.example"},),
                    "provider_redirect_url": "https://app.example",
                }
            ),
            "AUTH__PROVIDERS",
        ),
        (lambda: production(payments=BANK | {"url": "http://bank.example"}), "PAYMENTS__URL"),
        (lambda: production(payments=BANK | {"api_key": ""}), "PAYMENTS__API_KEY"),
        (lambda: production(payments=BANK | {"api_key": STRONG}), "AUTH__SECRET"),
        (lambda: production(payments=BANK | {"callback_secrets": ()}), "PAYMENTS__CALLBACK_SECRETS"),
        (lambda: production(payments=BANK | {"timeout_seconds": 10}), "PAYMENTS__TIMEOUT_SECONDS"),
        (lambda: production(payments=BANK | {"unsettled_seconds": 6}), "PAYMENTS__TIMEOUT_SECONDS"),
    ],
)
def test_production_refuses_what_nobody_means(settings: Callable[[], Settings], name: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        refuse_weak(settings())

    assert name in str(refusal.value)
    assert STRONG not in str(refusal.value)


def test_a_weak_production_process_ends_at_once_and_names_the_setting(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "src", "serve", "--port", "0"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AUTH__SECRET": "weak-canary"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "AUTH__SECRET: too weak" in ended.stderr
    assert "HTTP__ALLOWED_HOSTS: missing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "weak-canary" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("env", "own"),
    [
        ("production", set()),
        ("development", {"localhost", "127.0.0.1", "[::1]"}),
        ("test", {"localhost", "127.0.0.1", "[::1]", "testserver"}),
    ],
)
def test_only_outside_production_the_machine_itself_is_a_host(env: str, own: set[str]) -> None:
    settings = load_settings(app={"env": env}, http={"allowed_hosts": ("api.example",)})

    assert set(settings.allowed_hosts) == {"api.example"} | own

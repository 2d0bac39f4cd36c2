"""Settings with which no process may start, and what it must say about them."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.support.server import INHERITED, PROJECT, child_environment

CANARY = "canary"
# Mixed enough to be a secret, and easy to find where it should not be.
STRONG = "xK4-canary-Zp9wQ2vT7mR1bN8cL5hJ3gF6dS0aY"
AT_ONCE = 4
LIMIT_SECONDS = 20
_GOOD = {
    "AUTH__SECRET": STRONG,
    "HTTP__ALLOWED_HOSTS": "api.example",
    "DB__URL": "postgresql://127.0.0.1:1/x",
    "CACHE__URL": "redis://127.0.0.1:1",
    "HTTP__PORT": "0",
}
_ACME = '{"name": "acme", "issuer": "https://canary.example", "client_id": "us", "client_secret": "canary"}'
_BANK = {
    "PAYMENTS__URL": "https://canary.example",
    "PAYMENTS__API_KEY": "canary",
    "PAYMENTS__CALLBACK_SECRETS": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
_OWN = frozenset({"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", *INHERITED})


@dataclass(frozen=True)
class Bad:
    """What differs from settings that are good for production."""

    what: str
    names: Sequence[str]
    """Each must be told."""
    env: Mapping[str, str | None] = field(default_factory=dict)
    """None: not set at all."""
    files: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()


def _one(name: str, value: str | None, what: str = "", **more: str) -> Bad:
    return Bad(f"{name} {what or value}", [name], {name: value, **more})


SECRET, HOSTS = "AUTH__SECRET", "HTTP__ALLOWED_HOSTS"
REFUSALS: tuple[Bad, ...] = (
    _one(SECRET, None, "missing"),
    _one(SECRET, "", "empty"),
    _one(SECRET, "canary-short", "short"),
    _one(SECRET, "canary" * 10, "over and over"),
    _one(SECRET, "a" * 64, "one letter"),
    _one(SECRET, "changethis-canary-Zp9wQ2vT7mR1bN8cL5hJ3gF6dS0aY", "known from compose files"),
    _one(SECRET, "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "known from a tutorial"),
    _one(SECRET, "your-secret-key-canary-Zp9wQ2vT7mR1bN8cL5hJ", "known from templates"),
    _one("AUTH__PREVIOUS_SECRETS", "canary-old", "short"),
    Bad("one key for tokens and database", [SECRET, "DB__URL"], {"DB__URL": f"postgresql://u:{STRONG}@127.0.0.1:1/x"}),
    Bad("one key for tokens and cache", [SECRET, "CACHE__URL"], {"CACHE__URL": f"redis://:{STRONG}@127.0.0.1:1"}),
    Bad("one key for tokens and mail", [SECRET, "MAIL__URL"], {"MAIL__URL": f"smtp://u:{STRONG}@127.0.0.1:1"}),
    _one("AUTH__TOKEN_ALGORITHM", "none-canary"),
    _one("AUTH__PROVIDERS", '[{"name": "canary"}]', "without an issuer"),
    _one(
        "AUTH__PROVIDERS",
        f"[{_ACME}]".replace("https", "http"),
        "over plain HTTP",
        AUTH__PROVIDER_REDIRECT_URL="https://a.example",
    ),
    Bad("providers and no page", ["AUTH__PROVIDER_REDIRECT_URL"], {"AUTH__PROVIDERS": f"[{_ACME}]"}),
    Bad("a bank over plain HTTP", ["PAYMENTS__URL"], _BANK | {"PAYMENTS__URL": "http://canary.example"}),
    Bad("a bank without a key", ["PAYMENTS__API_KEY"], _BANK | {"PAYMENTS__API_KEY": None}),
    Bad("a bank that anybody calls for", ["PAYMENTS__CALLBACK_SECRETS"], _BANK | {"PAYMENTS__CALLBACK_SECRETS": None}),
    _one("PAYMENTS__CALLBACK_SECRETS", "whsec_canary"),
    _one("APP__DEBUG", "true"),
    _one("APP__ENV", "staging-canary"),
    _one("HTTP__DOCS", "true"),
    _one(HOSTS, None, "missing"),
    _one(HOSTS, "*"),
    _one(HOSTS, '["canary', "broken JSON"),
    _one("HTTP__CORS_ORIGINS", "*", "with credentials", HTTP__CORS_ALLOW_CREDENTIALS="true"),
    Bad("memory and several workers", ["CACHE__URL"], {"CACHE__URL": "memory://", "HTTP__WORKERS": "2"}),
    Bad("SQLite and several workers", ["DB__URL"], {"DB__URL": "sqlite:///canary.db"}, arguments=["--workers", "2"]),
    _one("DB__URL", "mysql://canary@host/x"),
    _one("DB__URL", "postgresql://u:canary@host:port/x", "with a port that is none"),
    _one("CACHE__URL", "memcached://canary"),
    _one("CACHE__URL", "redis://canary:port", "with a port that is none"),
    _one("MAIL__URL", "smtp://canary:port", "with a port that is none"),
    _one("MAIL__URL", "pigeon:canary"),
    _one("HTTP__PORT", "canary"),
    _one("HTTP__WORKERS", "0"),
    _one("HTTP__TRUSTED_PROXIES", "canary"),
    _one("HTTP__REQUEST_TIMEOUT_SECONDS", "inf"),
    _one("HTTP__DRAIN_SECONDS", "20", "as long as all of the shutdown"),
    _one("APP__TIMEZONE", "nan"),
    _one("LOG__LEVEL", "canary"),
    _one("OUTBOX__LEASE_SECONDS", "1", "shorter than a mail takes"),
    _one("APP__MAX_RETRY", "1", "unknown"),
    Bad("a setting in .env that is unknown", ["HTTP__PROT"], files={".env": "HTTP__PROT=canary\n"}),
    Bad("a file that is no TOML", ["undercroft.toml"], files={"undercroft.toml": "[app\ncanary = 1\n"}),
    Bad(
        "all at once",
        [SECRET, HOSTS, "APP__DEBUG", "HTTP__DOCS"],
        {SECRET: "canary", HOSTS: None, "APP__DEBUG": "true", "HTTP__DOCS": "true"},
    ),
)


@dataclass(frozen=True)
class Refusal:
    bad: Bad
    code: int | None
    """None: it was still running after LIMIT_SECONDS."""
    seconds: float
    said: str

    def problems(self) -> Iterator[str]:
        """What is wrong with how it refused."""
        if not self.code:
            yield f"{self.bad.what}: exit code {self.code}"
        for name in self.bad.names:
            if name not in self.said:
                yield f"{self.bad.what}: {name} is not named in {self.said[-500:]!r}"
        if CANARY in self.said.lower():
            yield f"{self.bad.what}: a value is shown in {self.said[-500:]!r}"
        if re.search(r"Traceback|Started", self.said):
            yield f"{self.bad.what}: more than a sentence: {self.said[-500:]!r}"


def refuse_all(cases: Sequence[Bad] = REFUSALS, *, at_once: int = AT_ONCE) -> list[Refusal]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(_start, cases))


def _start(bad: Bad) -> Refusal:
    ours = {name: value for name, value in child_environment(None).items() if name in _OWN or name.startswith("PYTHON")}
    settings = {name: value for name, value in {**_GOOD, **bad.env}.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="undercroft-refusal-") as folder:
        for name, text in bad.files.items():
            (Path(folder) / name).write_text(text)
        begun = monotonic()
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "src", "serve", *bad.arguments],
                env=ours | settings | {"PYTHONPATH": str(PROJECT)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return Refusal(bad, None, monotonic() - begun, str(error.output))
        return Refusal(bad, ended.returncode, monotonic() - begun, ended.stdout + ended.stderr)

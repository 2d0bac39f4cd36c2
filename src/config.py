"""The settings of the process: where they come from, what they may be, what production refuses."""

import base64
import difflib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

DELIMITER = "__"
MIN_SECRET_BYTES = 32
# Values that tutorials, templates and compose files have printed; each is as good as no secret.
MIN_DISTINCT_CHARACTERS = 10
KNOWN_SECRETS = re.compile(
    r"(?i)change[-_ ]?(this|me)|changethis|secret[-_ ]?key|your[-_ ]|example|insecure|password|default|"
    r"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"
)


class ConfigurationError(Exception):
    """Settings that the process must not start with. Its text names settings, never their values."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("Undercroft cannot start with these settings:\n" + "\n".join(f"  {p}" for p in problems))


class Env(StrEnum):
    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"


def _split_list(value: object) -> object:
    """Accept `a,b` beside JSON's `["a", "b"]`: the first is what people type into an environment file."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _known_scheme(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value.startswith(schemes):
            msg = f"must start with one of {', '.join(schemes)}"
            raise ValueError(msg)
        _split_url(value)
        return value

    return AfterValidator(check)


def _split_url(value: str) -> SplitResult:
    """Refused here: what would read it later says what it read, password and all."""
    try:
        parsed = urlsplit(value)
        _ = parsed.port
    except ValueError:
        raise ValueError("must be a URL whose port is a number; a password writes @ : / ? # [ ] as %xx") from None
    return parsed


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("must be an IP address or network") from None


def _mail_url(value: str) -> str:
    parsed = _split_url(value)
    if parsed.scheme == "file":
        if not parsed.path or parsed.netloc:
            raise ValueError("must be file:folder, relative or absolute")
        return value
    if parsed.scheme not in ("smtp", "smtps") or not parsed.hostname:
        raise ValueError("must be file:folder, smtp://host:port or smtps://host:port")
    if parsed.query not in ("", "tls=required", "tls=auto", "tls=none"):
        raise ValueError("takes ?tls=required, auto or none, and nothing else")
    return value


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or url != f"{parts.scheme}://{parts.netloc}" or not parts.hostname:
        raise ValueError("an origin is https://name or https://name:port, without a slash at its end")
    return url


def web_address(value: str) -> str:
    """A page, or an endpoint of somebody's: no address that says who calls, and none that browsers read in two ways."""
    parsed = _split_url(value)
    if (
        parsed.scheme not in ("https", "http")
        or not parsed.hostname
        or "@" in parsed.netloc
        or "#" in value
        or not value.isascii()
        or not value.isprintable()
        or set(value) & set(' "<>\\^`{|}')
    ):
        raise ValueError("must be https://name/path, without a user's name, a # and blanks")
    return value


def _without_query(value: str) -> str:
    if "?" in value:
        raise ValueError("takes no ?")
    return value


def _page_or_none(value: str) -> str:
    return _without_query(web_address(value)).rstrip("/") if value else value


def _signing_secret(secret: SecretStr) -> SecretStr:
    """As Standard Webhooks 1.0.0 writes it."""
    prefix, _, key = secret.get_secret_value().partition("_")
    try:
        is_one = prefix == "whsec" and 24 <= len(base64.b64decode(key, validate=True)) <= 64  # noqa: PLR2004 - its bounds
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64")
    return secret


WebAddress = Annotated[str, Field(max_length=2048), AfterValidator(web_address)]
StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
OriginList = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split_list)]
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_list)]
NetworkList = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split_list)]
SigningSecretList = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_signing_secret)], ...], NoDecode, BeforeValidator(_split_list)
]
TokenAlgorithm = Literal["HS256", "Ed25519"]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class _Section(BaseModel):
    # Inputs stay out of error texts: a mistyped secret must not end up in a log.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


def _typeable(secret: SecretStr) -> SecretStr:
    """RFC 6749 appendix A.2."""
    if not re.fullmatch(r"[\x20-\x7e]{1,4096}", secret.get_secret_value()):
        raise ValueError("must be 1 to 4096 printable characters of ASCII")
    return secret


class ProviderSettings(_Section):
    """Who says who somebody is (OpenID Connect Core 1.0)."""

    name: str = Field(max_length=32, pattern=r"^[a-z0-9](-?[a-z0-9])*$")
    """As it stands in paths."""
    title: str = Field("", max_length=64)
    """As people read it; the name, where there is none."""
    issuer: Annotated[WebAddress, Field(max_length=512), AfterValidator(_without_query)]
    client_id: str = Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]*$")
    client_secret: Annotated[SecretStr, AfterValidator(_typeable)] | None = None
    """None of a public client, which has PKCE alone."""
    scopes: str = Field("openid email", pattern=r"^openid( [\x21\x23-\x5b\x5d-\x7e]+)*$")

    @property
    def shown(self) -> str:
        return self.title or self.name


def _one_of_each(providers: tuple[ProviderSettings, ...]) -> tuple[ProviderSettings, ...]:
    for what in ("name", "issuer"):
        if len({getattr(each, what) for each in providers}) < len(providers):
            raise ValueError(f"two have the same {what}")
    return providers


def _written_as_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else ()
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON list") from None


ProviderList = Annotated[
    tuple[ProviderSettings, ...], NoDecode, BeforeValidator(_written_as_json), AfterValidator(_one_of_each)
]


class AppSettings(_Section):
    env: Env = Field(Env.PRODUCTION, description="production, development or test")
    name: str = Field("Undercroft", description="Shown in the API docs and as issuer of tokens")
    debug: bool = Field(default=False, description="Verbose behaviour for development; refused in production")
    timezone: float = Field(
        0.0,
        ge=-12,
        le=14,
        allow_inf_nan=False,
        description="Presentation zone: hours from UTC, fractions allowed (5.75)",
    )
    max_retries: int = Field(
        3, ge=0, le=20, description="How often an outgoing call is tried again after its first try"
    )
    config_file: str = Field(
        "undercroft.toml", description="Where the settings file lies; read from the environment only"
    )
    secrets_dir: str = Field(
        "/run/secrets", description="One file a setting, named like it; read from the environment only"
    )


class DatabaseSettings(_Section):
    url: Annotated[
        str, _known_scheme("sqlite+aiosqlite://", "sqlite://", "postgresql://", "postgresql+asyncpg://", "postgres://")
    ] = Field(
        "sqlite+aiosqlite:///var/undercroft.db",
        repr=False,
        description="sqlite+aiosqlite:///path or postgresql://user:password@host/name",
    )
    pool_size: int = Field(10, ge=1, le=200, description="Connections kept open, per process")
    max_overflow: int = Field(10, ge=0, le=200, description="Connections opened beyond that under load")
    pool_timeout_seconds: PositiveSeconds = Field(5, description="Wait for a free connection, then 503")
    connect_timeout_seconds: PositiveSeconds = Field(1, description="Wait for a new connection")
    statement_timeout_seconds: PositiveSeconds = Field(5, description="Longest statement")
    lock_timeout_seconds: PositiveSeconds = Field(2, description="Longest wait for a lock")
    prepared_statements: bool = Field(default=True, description="Switch off behind PgBouncer in transaction mode")
    data_lane: bool = Field(
        default=True,
        description="Read without what SQLAlchemy adds to a single statement; off: by its ordinary session",
    )


class CacheSettings(_Section):
    url: Annotated[str, _known_scheme("memory://", "redis://", "rediss://", "valkey://", "valkeys://", "unix://")] = (
        Field("memory://", repr=False, description="memory:// or redis://host:6379/0")
    )
    timeout_seconds: PositiveSeconds = Field(0.1, description="Longest wait for one command")
    breaker_seconds: PositiveSeconds = Field(2, description="After a failure the server is left alone for so long")
    max_entries: int = Field(10_000, ge=1, description="Entries that a process keeps in memory")
    ttl_seconds: int = Field(300, ge=1, description="Life of an entry that is set without a ttl")
    local_seconds: float = Field(
        5,
        ge=0,
        le=3600,
        description="Longest life of a process's own copy of an entry on a shared server; 0: no copies",
    )
    namespace: str = Field(
        "undercroft", pattern=r"^[a-z0-9_-]{1,32}$", description="First part of each key on a shared server"
    )


class AuthSettings(_Section):
    secret: SecretStr = Field(
        SecretStr(""), description="At least 32 random bytes; `openssl rand -base64 48` makes one"
    )
    previous_secrets: SecretList = Field(
        (), description="Earlier ones (a JSON list, if one has a comma): what they signed and sealed is still read"
    )
    token_algorithm: TokenAlgorithm = Field(
        "HS256", description="Of access tokens; Ed25519: others can check them by /.well-known/jwks.json"
    )
    access_token_ttl_seconds: int = Field(600, ge=30, le=3600, description="Life of an access token")
    refresh_token_ttl_seconds: int = Field(
        14 * 86_400, ge=60, description="Idle life of a session: each refresh renews it"
    )
    session_ttl_seconds: int = Field(90 * 86_400, ge=60, description="Absolute life of a session")
    refresh_grace_seconds: int = Field(
        10, ge=0, le=60, description="A lost answer to a refresh may be asked for again so long"
    )
    principal_cache_seconds: float = Field(
        1, ge=0, le=5, description="Who a token stands for may be remembered so long, exactly; 0: read by each request"
    )
    require_verified_email: bool | None = Field(None, description="Default: true in production, else false")
    one_time_token_ttl_seconds: int = Field(
        3600,
        ge=60,
        le=3600,
        description="Life of what a mail gives to verify an address, to set a password or to link a provider",
    )
    invitation_ttl_seconds: int = Field(3 * 86_400, ge=60, le=30 * 86_400, description="Life of an invitation")
    mails_per_account: int = Field(
        10, ge=1, description="Mails of one kind that anybody can have sent to an account, per hour"
    )
    login_with_username: bool = Field(
        default=False, description="Whether a user name will do instead of the e-mail address"
    )
    password_hash_concurrency: int = Field(2, ge=1, le=64, description="Password hashes computed at once, per process")
    login_failures_per_account: int = Field(10, ge=1, description="Per (account, address prefix) and 5 minutes")
    login_failures_per_address: int = Field(40, ge=1, description="Per address and 5 minutes")
    login_failures_overall: int = Field(
        5000, ge=1, description="From everywhere and 5 minutes; then only places that an account was used from may try"
    )
    logins_per_address: int = Field(300, ge=100, description="Successful log-ins and refreshes, per address and minute")
    registrations_per_address: int = Field(60, ge=1, description="Per address and minute")
    confirmations_per_account: int = Field(
        30, ge=1, description="How often an account's password is asked for again, right or wrong, per minute"
    )
    login_challenge_ttl_seconds: int = Field(
        300,
        ge=30,
        le=3600,
        description="A log-in waits so long for its second factor, or for who was sent to a provider",
    )
    second_factor_failures_per_account: int = Field(
        10, ge=1, description="Wrong codes of an authenticator app, per hour; recovery codes are too long to guess"
    )
    refusals_noted: int = Field(
        10,
        ge=1,
        description="Refused passkeys, recovery codes and answers of providers that the audit log has, per caller and hour",
    )
    passkey_domain: str = Field(
        "",
        max_length=253,
        pattern=r"^[a-z0-9.-]*$",
        description="What passkeys are for: the domain that people see; default: localhost, in production none and no passkeys",
    )
    passkey_origins: OriginList = Field(
        (),
        description="Pages that may use them; default: https:// and the domain, outside production http://localhost:PORT",
    )
    providers: ProviderList = Field(
        (),
        description='Who else says who somebody is, by OpenID Connect: [{"name": "acme", "title": "Acme", "issuer": "https://…", "client_id": "…", "client_secret": "…"}]',
    )
    provider_redirect_url: Annotated[str, Field(max_length=2048), AfterValidator(_page_or_none)] = Field(
        "",
        description="Page that takes what a provider sends back; each sends its to this, a slash and its name",
    )
    api_keys_per_account: int = Field(50, ge=0, description="API keys that an account may have at once; 0: none")
    api_key_max_days: int = Field(365, ge=1, le=3650, description="Longest life of an API key")
    api_key_requests_per_minute: int = Field(
        1200, ge=1, description="Requests by one API key; of each process where the cache is in memory"
    )
    even_seconds: float = Field(
        0.2,
        ge=0,
        le=5,
        description="Refused log-ins, and registrations where addresses are verified, take a multiple of it",
    )
    mail_delay_seconds: float = Field(
        2, ge=0, le=60, description="A mail that anybody can ask for is written after a random part of it"
    )
    mail_requests_per_address: int = Field(
        60, ge=1, description="Requests for a mail, and uses of what it gave, per address and minute"
    )


class MailSettings(_Section):
    url: Annotated[str, AfterValidator(_mail_url)] = Field(
        "file:var/mail",
        repr=False,
        description="smtp://user:password@host:587 (STARTTLS; ?tls=auto or none), smtps://host:465, or file:folder to write into",
    )
    sender: str = Field("no-reply@localhost", min_length=3, max_length=320, description="From whom mails come")
    app_url: str = Field(
        "", max_length=255, pattern=r"^(https?://\S+)?$", description="Where people type in what a mail gives them"
    )
    timeout_seconds: PositiveSeconds = Field(20, description="Longest conversation with the mail server")
    per_mailbox: int = Field(
        20, ge=1, description="Mails to one address that others can ask for, per hour; more are not sent"
    )
    per_proven_mailbox: int = Field(
        500, ge=1, description="Mails to a verified address about what its owner does, per hour; more are not sent"
    )


class OutboxSettings(_Section):
    dispatch: bool = Field(
        default=True,
        description="Deliver, expire orders and sweep in the service's own processes; off where `python -m src worker` does",
    )
    poll_seconds: PositiveSeconds = Field(1, description="Pause between two looks for what other processes left")
    lease_seconds: PositiveSeconds = Field(
        60, description="Longest time for one handler; an event of a process that died is taken up after it"
    )
    max_attempts: int = Field(
        12, ge=1, le=100, description="Then an event is dead: listed, and kept until it is retried"
    )
    first_delay_seconds: PositiveSeconds = Field(
        1, description="Upper bound of the first pause; it doubles (full jitter)"
    )
    max_delay_seconds: PositiveSeconds = Field(3600, description="Upper bound of any pause")


class OrderSettings(_Section):
    payment_seconds: int = Field(
        86_400, ge=1, le=31_536_000, description="Unpaid orders expire after so long, and give their stock back"
    )
    expiry_check_seconds: PositiveSeconds = Field(30, description="Pause between two looks for orders that expired")


class PaymentSettings(_Section):
    url: Annotated[str, Field(max_length=2048), AfterValidator(_page_or_none)] = Field(
        "", description="The payment provider's API; none: orders are marked as paid by hand"
    )
    api_key: Annotated[SecretStr, Field(max_length=4096)] = Field(
        SecretStr(""), description="What the provider knows this service by"
    )
    callback_secrets: SigningSecretList = Field(
        (), description="What the provider signs its callbacks with (whsec_…); several while one is being replaced"
    )
    timeout_seconds: PositiveSeconds = Field(
        6, description="Who pays waits so long for the provider; then the payment is pending, and goes on by itself"
    )
    unsettled_seconds: PositiveSeconds = Field(
        15, description="Later than that the provider is asked by the outbox, should whoever paid have got no answer"
    )
    attempts_per_order: int = Field(20, ge=1, le=1000, description="Payments of one order, declined ones included")


class WebhookSettings(_Section):
    per_account: int = Field(10, ge=0, description="Webhooks that an account may have; 0: none")
    allow_http: bool | None = Field(
        None,
        description="Whether receivers may be http://, where anybody in between reads along; default: not in production",
    )
    allowed_networks: NetworkList = Field(
        (), description="Networks of one's own whose servers may be receivers; all others are on the public Internet"
    )
    timeout_seconds: PositiveSeconds = Field(
        10, description="Longest time for one attempt, the look-up of its name included"
    )
    max_attempts: int = Field(16, ge=1, le=100, description="Then a delivery has failed")
    first_delay_seconds: PositiveSeconds = Field(
        5, description="Upper bound of the first pause after a failure; it doubles (full jitter)"
    )
    max_delay_seconds: PositiveSeconds = Field(
        4 * 3600, description="Upper bound of any pause, one that a receiver asks for included"
    )
    disable_after_days: float = Field(
        5,
        gt=0,
        le=365,
        allow_inf_nan=False,
        description="A webhook that failed for so long without a success is disabled",
    )


class StatisticsSettings(_Section):
    cache_seconds: int = Field(
        60, ge=0, le=3600, description="Numbers for administrators are counted anew after so long; 0: for each request"
    )
    low_stock: int = Field(5, ge=0, description="They list products of which no more than so many can be ordered")


class HTTPSettings(_Section):
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on")
    workers: int = Field(1, ge=1, le=256, description="Processes")
    root_path: str = Field("", pattern=r"^(/[^/]+)*$", description="Path prefix that a proxy in front strips")
    allowed_hosts: StringList = Field(
        (), description="Names that this service answers to; development and test add localhost"
    )
    trusted_proxies: NetworkList = Field((), description="Addresses or networks whose X-Forwarded-* headers count")
    cors_origins: StringList = Field((), description="Origins of browsers that may call")
    cors_allow_credentials: bool = Field(default=False, description="Cookies across origins; never with origin *")
    docs: bool | None = Field(
        None, description="/docs and /openapi.json; default: on in development and test, refused in production"
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Longest request body, then 413")
    max_concurrency: int = Field(1000, ge=1, description="Requests under way at once, per process, then 503")
    request_timeout_seconds: PositiveSeconds = Field(
        10, description="Deadline of a whole request until its answer starts"
    )
    header_timeout_seconds: PositiveSeconds = Field(
        10, description="A connection whose first or next headers are not whole by then is closed"
    )
    send_timeout_seconds: PositiveSeconds = Field(
        60, description="A client that takes nothing of its answer for so long is cut off"
    )
    compiled_routes: bool = Field(
        default=True, description="Serve each route by a coroutine made at start; off: by FastAPI's own path"
    )
    shutdown_seconds: PositiveSeconds = Field(20, description="Requests under way may finish so long at shutdown")
    drain_seconds: float | None = Field(
        None,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="So much of that /health/ready says 503 after SIGTERM while all is served; default: 5 in production, else 0",
    )


class LogSettings(_Section):
    level: Literal["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Lowest level that is written"
    )
    format: Literal["auto", "json", "text"] = Field("auto", description="auto: json in production, text elsewhere")


class RetrySettings(_Section):
    total_seconds: PositiveSeconds = Field(30, description="Longest time for one call, its retries included")
    first_delay_seconds: PositiveSeconds = Field(
        0.2, description="Upper bound of the first pause; it doubles (full jitter)"
    )
    max_delay_seconds: PositiveSeconds = Field(
        5, description="Upper bound of any pause, unless Retry-After asks for more"
    )
    budget_ratio: float = Field(0.2, ge=0, le=1, description="Retries per first try, over the whole process")
    budget_min_per_second: float = Field(1, ge=0, le=1000, description="Retries that are always allowed, per second")


class _Prefixed(EnvSettingsSource):
    """Only SECTION__NAME is ours: a shell's own LOG, PORT, DEBUG or USER changes nothing."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        sections = "|".join(self.settings_cls.model_fields)
        ours = re.compile(rf"(?i)({sections}){DELIMITER}.")
        return {name: value for name, value in super()._load_env_vars().items() if ours.match(name)}


class _Environment(_Prefixed, EnvSettingsSource):
    pass


class _EnvFile(_Prefixed, DotEnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        # The base class would hand over each leftover line of the file under its flat name.
        return EnvSettingsSource.__call__(self)


class _SecretFiles(_Prefixed, NestedSecretsSettingsSource):
    pass


def _place(name: str) -> str:
    default: str = AppSettings.model_fields[name].default
    return os.environ.get(setting_name("app", name), default)


class Settings(BaseSettings):
    """Sources, strongest first: arguments, environment, `.env`, settings file, secrets directory, defaults."""

    model_config = SettingsConfigDict(
        env_nested_delimiter=DELIMITER,
        env_file=".env",
        secrets_dir_missing="ok",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    app: AppSettings = Field(default_factory=AppSettings)
    db: DatabaseSettings = Field(default_factory=DatabaseSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    http: HTTPSettings = Field(default_factory=HTTPSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    outbox: OutboxSettings = Field(default_factory=OutboxSettings)
    orders: OrderSettings = Field(default_factory=OrderSettings)
    payments: PaymentSettings = Field(default_factory=PaymentSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    statistics: StatisticsSettings = Field(default_factory=StatisticsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by the one that knows our prefixes
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        env_file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return (
            init_settings,
            _Environment(settings_cls),
            _EnvFile(settings_cls, env_file=env_file),
            TomlConfigSettingsSource(settings_cls, toml_file=_place("config_file")),
            _SecretFiles(file_secret_settings, secrets_dir=_place("secrets_dir")),
        )

    @property
    def production(self) -> bool:
        return self.app.env is Env.PRODUCTION

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        if self.production:
            return self.http.allowed_hosts
        # What Starlette's TestClient calls itself; teams test with it.
        in_process = ("testserver",) if self.app.env is Env.TEST else ()
        return (*self.http.allowed_hosts, "localhost", "127.0.0.1", "[::1]", *in_process)

    @property
    def passkey_domain(self) -> str:
        return self.auth.passkey_domain or ("" if self.production else "localhost")

    @property
    def passkey_origins(self) -> tuple[str, ...]:
        if self.auth.passkey_origins or not self.passkey_domain:
            return self.auth.passkey_origins
        here = f"http://localhost:{self.http.port}"
        return (f"https://{self.passkey_domain}",) if self.production else (f"https://{self.passkey_domain}", here)

    @property
    def http_receivers_allowed(self) -> bool:
        return not self.production if self.webhooks.allow_http is None else self.webhooks.allow_http

    @property
    def docs_enabled(self) -> bool:
        return not self.production if self.http.docs is None else self.http.docs

    @property
    def drain_seconds(self) -> float:
        if self.http.drain_seconds is not None:
            return self.http.drain_seconds
        return 5 if self.production else 0

    @property
    def verified_email_required(self) -> bool:
        return self.production if self.auth.require_verified_email is None else self.auth.require_verified_email

    @property
    def json_logs(self) -> bool:
        return self.production if self.log.format == "auto" else self.log.format == "json"


def load_settings(**overrides: Any) -> Settings:  # Any: whatever a section takes, validated below
    """Read the settings from their sources.

    Raises:
        ConfigurationError: names each setting that is wrong, without its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(
            [_explain(e["loc"], e["type"], e["msg"]) for e in error.errors(include_input=False)]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            [f"{_place('config_file')}, see {setting_name('app', 'config_file')}: {error}"]
        ) from None
    except (SettingsError, OSError, ValueError) as error:
        # A source that cannot be read at all: bad JSON in a list, an unreadable file.
        raise ConfigurationError([str(error).splitlines()[0]]) from None


def _explain(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    name = setting_name(*loc)
    if len(loc) > len(("section", "name")):
        # A part of a setting that has parts.
        return f"{name}: {'.'.join(str(part) for part in loc[2:])}: {message}"
    if kind != "extra_forbidden":
        return f"{name}: {message}"
    known = [setting_name(section, field) for section, field in all_settings()]
    guess = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {guess[0]}?" if guess else "")


def setting_name(*loc: int | str) -> str:
    """The name that an environment uses: ("app", "max_retries") is APP__MAX_RETRIES."""
    return DELIMITER.join(str(part).upper() for part in loc[:2])


def all_settings() -> dict[tuple[str, str], FieldInfo]:
    """Each setting by (section, name), in order."""
    found = {}
    for section, outer in Settings.model_fields.items():
        assert outer.annotation is not None
        for name, field in outer.annotation.model_fields.items():
            found[section, name] = field
    return found


def with_secret(settings: Settings) -> Settings:
    """Outside production a process without a secret makes one for its life: nothing is ever signed with an empty key."""
    if settings.production or settings.auth.secret.get_secret_value():
        return settings
    auth = settings.auth.model_copy(update={"secret": SecretStr(secrets.token_urlsafe(48))})
    return settings.model_copy(update={"auth": auth})


def refuse_weak(settings: Settings) -> None:
    """Stop a process that would run with settings that nobody means in production.

    Raises:
        ConfigurationError: names each setting, never a value.
    """
    problems = [f"{name}: {reason}" for name, weak, reason in _weaknesses(settings) if weak]
    if problems:
        raise ConfigurationError(problems)


def _weaknesses(settings: Settings) -> list[tuple[str, bool, str]]:
    production, http, app = settings.production, settings.http, settings.app
    several_workers = http.workers > 1
    secret = settings.auth.secret.get_secret_value()
    other_secrets = [urlsplit(url).password for url in (settings.db.url, settings.cache.url, settings.mail.url)]
    other_secrets += [
        each.client_secret.get_secret_value() for each in settings.auth.providers if each.client_secret is not None
    ]
    payments = settings.payments
    other_secrets.append(payments.api_key.get_secret_value())
    advice = AuthSettings.model_fields["secret"].description
    return [
        (
            "HTTP__CORS_ORIGINS",
            http.cors_allow_credentials and "*" in http.cors_origins,
            "* together with HTTP__CORS_ALLOW_CREDENTIALS lets any page act for a user",
        ),
        (
            "CACHE__URL",
            several_workers and settings.cache.url.startswith("memory"),
            "memory:// is not shared by several workers (HTTP__WORKERS)",
        ),
        (
            "DB__URL",
            several_workers and settings.db.url.startswith("sqlite"),
            "SQLite is for one worker (HTTP__WORKERS)",
        ),
        ("AUTH__SECRET", production and not secret, f"missing; {advice}"),
        ("AUTH__SECRET", production and secret != "" and weak_secret(secret), f"too weak; {advice}"),
        (
            "AUTH__PREVIOUS_SECRETS",
            production and any(weak_secret(old.get_secret_value()) for old in settings.auth.previous_secrets),
            f"too weak; {advice}",
        ),
        (
            "AUTH__SECRET",
            production and secret != "" and secret in other_secrets,
            "also the password in DB__URL, CACHE__URL or MAIL__URL, a client secret of AUTH__PROVIDERS or PAYMENTS__API_KEY; one secret, one purpose",
        ),
        (
            "AUTH__PROVIDER_REDIRECT_URL",
            bool(settings.auth.providers) and not settings.auth.provider_redirect_url,
            "missing; AUTH__PROVIDERS send people back to it",
        ),
        (
            "AUTH__PROVIDER_REDIRECT_URL",
            production and settings.auth.provider_redirect_url.startswith("http:"),
            "must be https://: what a provider sends back logs somebody in",
        ),
        (
            "AUTH__PROVIDERS",
            production and any(provider.issuer.startswith("http:") for provider in settings.auth.providers),
            "an issuer must be https://: whoever stands in between would be anybody",
        ),
        (
            "OUTBOX__LEASE_SECONDS",
            settings.outbox.lease_seconds < 2 * settings.mail.timeout_seconds,
            "shorter than twice MAIL__TIMEOUT_SECONDS: a mail would be sent again while it is being sent",
        ),
        (
            "PAYMENTS__URL",
            production and payments.url.startswith("http:"),
            "must be https://: whoever stands in between would say what was paid",
        ),
        (
            "PAYMENTS__API_KEY",
            bool(payments.url) and not payments.api_key.get_secret_value(),
            "missing; see PAYMENTS__URL",
        ),
        (
            "PAYMENTS__CALLBACK_SECRETS",
            bool(payments.url) and not payments.callback_secrets,
            "missing; without one anybody could call for the provider",
        ),
        (
            "OUTBOX__LEASE_SECONDS",
            bool(payments.url) and settings.outbox.lease_seconds < 8 * payments.timeout_seconds,
            "shorter than eight times PAYMENTS__TIMEOUT_SECONDS: a payment would be asked about again while it is asked about",
        ),
        (
            "PAYMENTS__TIMEOUT_SECONDS",
            bool(payments.url)
            and payments.timeout_seconds >= min(http.request_timeout_seconds, payments.unsettled_seconds),
            "not shorter than HTTP__REQUEST_TIMEOUT_SECONDS and PAYMENTS__UNSETTLED_SECONDS: nobody would wait for the answer",
        ),
        (
            "HTTP__DRAIN_SECONDS",
            settings.drain_seconds >= http.shutdown_seconds,
            "not shorter than HTTP__SHUTDOWN_SECONDS: requests under way would have no time",
        ),
        ("APP__DEBUG", production and app.debug, "is for development"),
        ("HTTP__DOCS", production and bool(http.docs), "open API docs are for development and test"),
        (
            "HTTP__ALLOWED_HOSTS",
            production and not http.allowed_hosts,
            "missing; name the hosts that this service answers to",
        ),
        ("HTTP__ALLOWED_HOSTS", production and "*" in http.allowed_hosts, "* answers to any name"),
    ]


def weak_secret(secret: str) -> bool:
    return (
        len(secret.encode()) < MIN_SECRET_BYTES
        or len(set(secret)) < MIN_DISTINCT_CHARACTERS
        or KNOWN_SECRETS.search(secret) is not None
        or secret in (secret + secret)[1:-1]  # the same few characters over and over
    )


_current: Settings | None = None


def get_settings() -> Settings:
    """The settings of the process: those given to `create_app`, else read once from their sources."""
    return _current if _current is not None else use_settings(load_settings())


# It only returns what it has: `Depends(get_settings)` needs no thread (src/shared/inline.py, which stands above us).
get_settings.__undercroft_inline__ = True  # type: ignore[attr-defined] # a function's own namespace


def use_settings(settings: Settings) -> Settings:
    """Make these the settings of the process."""
    global _current  # noqa: PLW0603 - settings belong to the process; one app per process
    _current = settings
    return settings

"""Sign-in with a provider (OpenID Connect Core 1.0, authorization code with PKCE): where a browser is sent, and who came back.

All that a provider says is foreign: bounded in time and size, read by a shape, and believed when its signature is.
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from joserfc import jws, jwt
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from loguru import logger
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from src.config import ProviderSettings, get_settings, web_address
from src.retry import retry_on_network
from src.shared import outgoing
from src.shared.keys import keys_for

_ALGORITHMS: Final = (
    "RS256",
    "PS256",
    "ES256",
    "RS384",
    "PS384",
    "ES384",
    "RS512",
    "PS512",
    "ES512",
    "Ed25519",
    "EdDSA",
)
"""Those by which only the provider signs: a client's secret is no key (RFC 8725 §2.1)."""
_REGISTRY: Final = jws.JWSRegistry(algorithms=list(_ALGORITHMS), strict_check_header=False)
_RSA_BITS: Final = 2048
_LEEWAY_SECONDS: Final = 60
_OLDEST_SECONDS: Final = 600
_CONVERSATION_SECONDS: Final = 6.0
"""All of one exchange: less than a request may take."""
_FURTHER_SECONDS: Final = 2.0
"""Of it, for what is not needed of everybody."""
_ANSWER_BYTES: Final = 256 * 1024
_FRESH_SECONDS: Final = 3600.0
_STALE_SECONDS: Final = 86_400.0
_KEYS_AGAIN_AFTER_SECONDS: Final = 30.0
_LEFT_ALONE_SECONDS: Final = 5.0
_STALE_LEFT_ALONE_SECONDS: Final = 60.0
"""Where what was read before will do."""
_MOST_KEYS: Final = 50
_LONGEST_EMAIL: Final = 320

# OpenID Connect Core §2: a subject has up to 255 ASCII characters. Blanks within are seen in the wild.
_SUBJECT: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
_WORD: Final = re.compile(r"[a-z_]{1,40}")

Json = dict[str, Any]  # Any: whatever a provider put there
Key = RSAKey | ECKey | OKPKey
Answer = TypeVar("Answer", bound="_Letter")
Kept = TypeVar("Kept")


class InvalidAnswerError(Exception):
    """What came back is not what was asked for, or not by whom it says. Its text is for the log."""


class UnavailableError(Exception):
    """The provider does not answer, or not in its own language. Its text is for the log."""


@dataclass(frozen=True, slots=True)
class Identity:
    issuer: str
    subject: str
    """Never given to anybody else by that issuer."""
    email: str | None = None
    """Only one that the provider has verified."""
    silence: UnavailableError | None = None
    """Why the provider did not say whether there is one."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What one sign-in is told apart by. All of it follows from a secret of the browser's: nothing of it is kept."""

    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """RFC 7636 §4.2."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())


def make_errand(browser_token: str) -> Errand:
    return _errands(browser_token)[0]


def find_errand(browser_token: str, state: str) -> Errand | None:
    """The one that this state is of: what was begun before AUTH__SECRET changed ends well, too."""
    typed = state.encode("utf-8", "surrogatepass")
    for errand in _errands(browser_token):
        if hmac.compare_digest(errand.state.encode(), typed):
            return errand
    return None


def _errands(browser_token: str) -> list[Errand]:
    secret = browser_token.encode("utf-8", "surrogatepass")
    return [
        Errand(*(_base64(hmac.digest(key, part + secret, "sha256")) for part in (b"state/", b"nonce/", b"verifier/")))
        for key in keys_for("provider-errand")
    ]


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# What a provider says of itself


def _endpoint(value: str) -> str:
    parsed = urlsplit(web_address(value))
    # A provider in production is https:// itself, and sends nobody anywhere else.
    if parsed.scheme != "https" and get_settings().production:
        raise ValueError("must be https://")
    return value


_Endpoint = Annotated[str, Field(max_length=2048), AfterValidator(_endpoint)]
_Words = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=100)]


class _Letter(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, strict=True)


class _Metadata(_Letter):
    """OpenID Connect Discovery §3."""

    issuer: str
    authorization_endpoint: _Endpoint
    token_endpoint: _Endpoint
    jwks_uri: _Endpoint
    userinfo_endpoint: _Endpoint | None = None
    token_endpoint_auth_methods_supported: _Words | None = None
    authorization_response_iss_parameter_supported: bool = False


class _KeySet(_Letter):
    keys: list[Any]  # Any: each is looked at by itself, so that an odd one does not take the others along


class _Tokens(_Letter):
    id_token: Annotated[str, Field(max_length=65_536)]
    access_token: Annotated[str, Field(max_length=65_536)] | None = None


class _Failure(_Letter):
    error: str = ""


class _Person(_Letter):
    """§5.1."""

    sub: str
    # Whatever they are: who is known by the subject needs neither.
    email: object = None
    email_verified: object = None

    @property
    def says_all(self) -> bool:
        return self.email is not None and self.email_verified is not None

    @property
    def proven_email(self) -> str | None:
        proven = self.email_verified is True or self.email_verified == "true"  # some write it as a word
        return self.email if proven and isinstance(self.email, str) and len(self.email) <= _LONGEST_EMAIL else None


class _Claims(_Person):
    """§2."""

    iss: str
    aud: str | list[str]
    exp: float
    iat: float
    nonce: str
    azp: str | None = None


@dataclass(slots=True)
class _Kept(Generic[Kept]):
    """What a provider's document says, in this process. When it cannot be read again it is good for a day, and whoever asks
    next is told so without waiting."""

    value: Kept | None = None
    read_at: float = 0.0
    failed_at: float = float("-inf")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, read: Callable[[], Awaitable[Kept]], *, not_older_than: float = _FRESH_SECONDS) -> Kept:
        """
        Raises:
            UnavailableError
        """
        if self.value is not None and monotonic() - self.read_at < not_older_than:
            return self.value
        async with self.turn:
            # Somebody may have read it while we waited, or have failed to.
            is_old = self.value is None or monotonic() - self.read_at >= not_older_than
            left_alone = _LEFT_ALONE_SECONDS if self.value is None else _STALE_LEFT_ALONE_SECONDS
            if is_old and monotonic() - self.failed_at >= left_alone:
                try:
                    self.value = await read()
                    self.read_at = monotonic()
                except UnavailableError as error:
                    self.failed_at = monotonic()
                    logger.bind(reason=str(error)).warning("A provider's document cannot be read")
            if self.value is None or monotonic() - self.read_at > _STALE_SECONDS:
                raise UnavailableError("its document cannot be read")
            return self.value


_metadata_of: dict[str, _Kept[_Metadata]] = {}
_keys_of: dict[str, _Kept[list[tuple[str | None, Key]]]] = {}
"""By issuer."""


async def _metadata(provider: ProviderSettings) -> _Metadata:
    async def read() -> _Metadata:
        metadata = _read(_Metadata, await _get(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"))
        if metadata.issuer != provider.issuer:  # Discovery §4.3
            raise UnavailableError("it is of another issuer")
        return metadata

    return await _metadata_of.setdefault(provider.issuer, _Kept()).get(read)


async def _keys(
    provider: ProviderSettings, metadata: _Metadata, key_id: str | None, *, not_older_than: float
) -> list[Key]:
    """Those that may have signed."""

    async def read() -> list[tuple[str | None, Key]]:
        return _imported(_read(_KeySet, await _get(metadata.jwks_uri)).keys)

    kept: _Kept[list[tuple[str | None, Key]]] = _keys_of.setdefault(provider.issuer, _Kept())
    keys = await kept.get(read, not_older_than=not_older_than)
    return [key for name, key in keys if key_id is None or name == key_id]


def _imported(keys: Iterable[Any]) -> list[tuple[str | None, Key]]:  # Any: as above
    found: list[tuple[str | None, Key]] = []
    for each in keys:
        # One that we cannot read is not one that we need.
        with suppress(Exception):
            if each.get("use", "sig") != "sig":
                continue
            public = {name: value for name, value in each.items() if name in _PUBLIC[each["kty"]]}
            key = JWKRegistry.import_key(public)
            if isinstance(key, RSAKey) and key.public_key.key_size < _RSA_BITS:
                continue
            if isinstance(key, RSAKey | ECKey | OKPKey):
                name = each.get("kid")
                found.append((name if isinstance(name, str) else None, key))
        if len(found) == _MOST_KEYS:
            break
    return found


_PUBLIC: Final = {
    "RSA": {"kty", "n", "e"},
    "EC": {"kty", "crv", "x", "y"},
    "OKP": {"kty", "crv", "x"},
}


# The way there and back


async def authorization_url(provider: ProviderSettings, errand: Errand) -> str:
    """
    Raises:
        UnavailableError
    """
    async with _bounded():
        metadata = await _metadata(provider)
    parts = urlsplit(metadata.authorization_endpoint)
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_url(provider),
        "scope": provider.scopes,
        "state": errand.state,
        "nonce": errand.nonce,
        "code_challenge": errand.challenge,
        "code_challenge_method": "S256",
    }
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in asked]
    return urlunsplit(parts._replace(query=urlencode([*kept, *asked.items()])))


def redirect_url(provider: ProviderSettings) -> str:
    """One for each, so that no provider is given what another one sent (RFC 9700 §4.4.2)."""
    return f"{get_settings().auth.provider_redirect_url}/{provider.name}"


async def exchange(provider: ProviderSettings, errand: Errand, *, code: str, issuer: str | None) -> Identity:
    """Who came back. `issuer`: what stood beside the code (RFC 9207).

    Raises:
        InvalidAnswerError, UnavailableError
    """
    async with _bounded():
        metadata = await _metadata(provider)
        if issuer != provider.issuer and (
            issuer is not None or metadata.authorization_response_iss_parameter_supported
        ):
            raise InvalidAnswerError("the answer is of another issuer")
        tokens = await _redeem(provider, metadata, errand, code)
        claims = await _verified(provider, metadata, errand, tokens.id_token)
        if claims.says_all or metadata.userinfo_endpoint is None or tokens.access_token is None:
            return Identity(provider.issuer, claims.sub, claims.proven_email)
        try:
            person = await _ask_for_more(metadata.userinfo_endpoint, tokens.access_token)
        except UnavailableError as error:
            # Who is known by the subject needs no address.
            return Identity(provider.issuer, claims.sub, silence=error)
    return Identity(provider.issuer, claims.sub, person.proven_email if person.sub == claims.sub else None)


@asynccontextmanager
async def _bounded(seconds: float = _CONVERSATION_SECONDS) -> AsyncIterator[None]:
    """All waiting of one conversation together."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError("took too long") from error


async def _redeem(provider: ProviderSettings, metadata: _Metadata, errand: Errand, code: str) -> _Tokens:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_url(provider),
        "code_verifier": errand.verifier,
    }
    headers = {}
    secret = provider.client_secret and provider.client_secret.get_secret_value()
    supported = metadata.token_endpoint_auth_methods_supported or ["client_secret_basic"]  # Discovery §3: its default
    if not secret:
        form["client_id"] = provider.client_id
    elif "client_secret_basic" in supported:
        # RFC 6749 §2.3.1: as in a form first.
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(secret)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    else:
        form |= {"client_id": provider.client_id, "client_secret": secret}
    # Once: a code is good once, and a provider that saw it twice revokes what it gave.
    status, body = await _ask("POST", metadata.token_endpoint, headers=headers, form=form)
    if status in (400, 401, 403):
        said = _failure(body)
        if said in ("invalid_client", "unauthorized_client"):
            logger.bind(provider=provider.name, error=said).error("A provider does not take us for its client")
            raise UnavailableError(said)
        raise InvalidAnswerError(f"the code was refused: {said}")
    if status != 200:  # noqa: PLR2004 - RFC 6749 §5.1
        raise UnavailableError(f"answered {status}")
    try:
        return _read(_Tokens, body)
    except UnavailableError as error:
        raise InvalidAnswerError(str(error)) from error


def _failure(body: bytes) -> str:
    """RFC 6749 §5.2; what is no word of a standard's is not passed on to the log."""
    with suppress(UnavailableError):
        said = _read(_Failure, body).error
        if _WORD.fullmatch(said):
            return said
    return "for no known reason"


async def _verified(provider: ProviderSettings, metadata: _Metadata, errand: Errand, token: str) -> _Claims:
    """OpenID Connect Core §3.1.3.7."""
    try:
        header = jws.extract_compact(token.encode("ascii")).headers()
        algorithm, key_id = header["alg"], header.get("kid")
    except Exception as error:  # a parser of foreign bytes: whatever it stumbles over, the answer is not right
        raise InvalidAnswerError(type(error).__name__) from error  # its text may have the token's
    if algorithm not in _ALGORITHMS or not isinstance(key_id, str | None):
        raise InvalidAnswerError("signed by no algorithm that is taken")
    for age in (_FRESH_SECONDS, _KEYS_AGAIN_AFTER_SECONDS):
        for key in await _keys(provider, metadata, key_id, not_older_than=age):
            said = _opened(token, key, algorithm)
            if said is not None:
                return _checked(provider, said, errand)
    raise InvalidAnswerError("signed by no key that the provider shows")


def _opened(token: str, key: Key, algorithm: str) -> Json | None:
    try:
        return jwt.decode(token, key, algorithms=[algorithm], registry=_REGISTRY).claims
    except Exception:  # noqa: BLE001 - as above; another key may be the one
        return None


def _checked(provider: ProviderSettings, said: Json, errand: Errand) -> _Claims:
    try:
        claims = _Claims.model_validate(said)
    except ValueError as error:
        raise InvalidAnswerError("its claims cannot be read") from error
    _refuse_wrong(provider, claims, errand)
    return claims


def _refuse_wrong(provider: ProviderSettings, claims: _Claims, errand: Errand) -> None:
    now = time()
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    wrong = {
        "issuer": claims.iss != provider.issuer,
        "audience": provider.client_id not in audience,
        "authorized party": claims.azp != provider.client_id and (claims.azp is not None or len(audience) > 1),
        "expiry": not claims.exp > now - _LEEWAY_SECONDS,
        "time": not now - _OLDEST_SECONDS <= claims.iat <= now + _LEEWAY_SECONDS,
        "nonce": not hmac.compare_digest(claims.nonce.encode("utf-8", "surrogatepass"), errand.nonce.encode()),
        "subject": _SUBJECT.fullmatch(claims.sub) is None,
    }
    if reasons := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise InvalidAnswerError(f"wrong: {', '.join(reasons)}")


async def _ask_for_more(url: str, access_token: str) -> _Person:
    """§5.3."""
    async with _bounded(_FURTHER_SECONDS):
        status, body = await _ask("GET", url, headers={"Authorization": f"Bearer {access_token}"})
    if status != 200:  # noqa: PLR2004 - as above
        raise UnavailableError(f"answered {status}")
    return _read(_Person, body)


# Over the wire


def _read(kind: type[Answer], body: bytes) -> Answer:
    try:
        return kind.model_validate_json(body)
    except ValueError as error:
        raise UnavailableError(f"{kind.__name__} cannot be read") from error


async def _get(url: str) -> bytes:
    @retry_on_network(attempts=2, total_seconds=_CONVERSATION_SECONDS / 2)
    async def read() -> tuple[int, bytes]:
        return await _talk("GET", url, {}, None)

    with _failing_as_one():
        status, body = await read()
    if status != 200:  # noqa: PLR2004 - anything else is no document
        raise UnavailableError(f"answered {status}")
    return body


async def _ask(
    method: str, url: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    with _failing_as_one():
        return await _talk(method, url, headers, form)


@contextmanager
def _failing_as_one() -> Iterator[None]:
    """What a network, its libraries and foreign bytes can raise is no closed set."""
    try:
        yield
    except UnavailableError:
        raise
    except Exception as error:
        raise UnavailableError(type(error).__name__) from error


async def _talk(method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> tuple[int, bytes]:
    asked, body = {"Accept": "application/json", **headers}, None
    if form is not None:
        asked["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(form).encode()
    reply = await outgoing.call(
        method, url, headers=asked, body=body, seconds=_CONVERSATION_SECONDS, most_bytes=_ANSWER_BYTES
    )
    return reply.status, reply.body

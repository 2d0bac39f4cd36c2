"""Providers of OpenID Connect on a real port: honest ones, and ones that lie as they are told to."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from time import time
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit
from uuid import uuid4

import httpx2
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

Json = dict[str, Any]  # Any: JSON
CLIENT_ID: Final = "undercroft-tests"
CLIENT_SECRET: Final = "k8+w/Z%pQ:r5 v2=Lc9"
"""With all that a form writes differently."""
REDIRECT_URL: Final = "https://app.example.com/signed-in"
GONE: Final = object()
"""A claim that is left out."""


@dataclass(frozen=True)
class Somebody:
    """Whom a provider knows."""

    subject: str = field(default_factory=lambda: uuid4().hex)
    email: object = field(default_factory=lambda: f"{uuid4().hex}@example.com")
    email_verified: object = True


@dataclass(frozen=True)
class Lies:
    """What a provider says of one sign-in instead of the truth."""

    claims: Mapping[str, object] = field(default_factory=dict)
    header: Mapping[str, object] = field(default_factory=dict)
    key: Any = None  # Any: one of joserfc's
    id_token: object = None
    tokens: Mapping[str, object] = field(default_factory=dict)
    answer: tuple[int, bytes] | None = None
    """Of the token endpoint: status and body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    userinfo: object = None
    userinfo_status: int = 200


@dataclass
class _Grant:
    who: Somebody
    lies: Lies
    asked: dict[str, str]
    is_used: bool = False


@dataclass
class House:
    """One issuer."""

    name: str
    issuer: str
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": uuid4().hex, "use": "sig"}))
    document: Json = field(default_factory=dict)
    """What its metadata says otherwise."""
    raw_document: bytes | None = None
    keys: list[Any] | None = None
    """What its key set has instead of its key."""
    claims_in_token: bool = True
    """Whether the address is in the token; else whoever wants it asks for it."""
    is_down: bool = False
    held: Event | None = None
    """Until it is set nothing is answered."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, body) of what it was asked directly."""
    grants: dict[str, _Grant] = field(default_factory=dict)
    access: dict[str, _Grant] = field(default_factory=dict)

    @property
    def settings(self) -> Json:
        return {
            "name": self.name,
            "title": self.name.capitalize(),
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }

    def visit(self, url: str, who: Somebody, lies: Lies | None = None) -> Json:
        """As a browser in which somebody logs in: what stands in the address of the page that it is sent back to."""
        mark = uuid4().hex
        self.grants[mark] = _Grant(who, lies or Lies(), {})
        answer = httpx2.get(url, headers={"X-Somebody": mark}, verify=False, timeout=15)
        assert answer.status_code == 302, answer.text
        target = urlsplit(answer.headers["Location"])
        assert target._replace(query="").geturl() == f"{REDIRECT_URL}/{self.name}"
        return dict(parse_qsl(target.query))

    # What it answers: (status, headers, body)

    def answer(  # noqa: PLR0911 - one a page
        self, method: str, path: str, headers: Mapping[str, str], body: str
    ) -> tuple[int, Json, bytes]:
        page, _, query = path.partition("?")
        if page == "/authorize":
            return self._authorize(dict(parse_qsl(query)), headers)
        self.asked.append((page, body))
        if self.held is not None:
            self.held.wait(30)
        if self.is_down:
            return 503, {}, b"down"
        if page == "/.well-known/openid-configuration":
            return 200, {}, json.dumps(self._document()).encode() if self.raw_document is None else self.raw_document
        if page == "/keys":
            shown = [self.key.as_dict(private=False)] if self.keys is None else self.keys
            return 200, {}, json.dumps({"keys": shown}).encode()
        if page == "/token" and method == "POST":
            return self._token(headers, {name: values[0] for name, values in parse_qs(body).items()})
        if page == "/userinfo":
            return self._userinfo(headers)
        return 404, {}, b"{}"

    def _document(self) -> Json:
        honest = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=7",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
        }
        return {name: value for name, value in (honest | self.document).items() if value is not GONE}

    def _authorize(self, asked: dict[str, str], headers: Mapping[str, str]) -> tuple[int, Json, bytes]:
        assert (asked["response_type"], asked["client_id"], asked["tenant"]) == ("code", CLIENT_ID, "7")
        assert asked["code_challenge_method"] == "S256"
        grant, code = self.grants.pop(headers["X-Somebody"]), uuid4().hex
        grant.asked = asked
        self.grants[code] = grant
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        return 302, {"Location": f"{asked['redirect_uri']}?{back}"}, b""

    def _token(self, headers: Mapping[str, str], form: dict[str, str]) -> tuple[int, Json, bytes]:
        if not self._is_client(headers.get("Authorization", ""), form):
            return 401, {}, b'{"error": "invalid_client"}'
        grant = self.grants.get(form["code"])
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        if (
            grant is None
            or grant.is_used
            or form["redirect_uri"] != grant.asked["redirect_uri"]
            or challenge.rstrip("=") != grant.asked["code_challenge"]
        ):
            return 400, {}, b'{"error": "invalid_grant"}'
        grant.is_used = True
        if grant.lies.answer is not None:
            return grant.lies.answer[0], dict(grant.lies.headers), grant.lies.answer[1]
        access_token = uuid4().hex
        self.access[access_token] = grant
        told = {
            "access_token": access_token,
            "token_type": "Bearer",
            "id_token": grant.lies.id_token or self.id_token(grant),
            **grant.lies.tokens,
        }
        return 200, dict(grant.lies.headers), json.dumps(told).encode()

    def _is_client(self, authorization: str, form: dict[str, str]) -> bool:
        if authorization:
            scheme, _, pair = authorization.partition(" ")
            name, _, secret = base64.b64decode(pair).decode().partition(":")
            return (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", CLIENT_ID, CLIENT_SECRET)
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def id_token(self, grant: _Grant) -> str:
        now, who, lies = int(time()), grant.who, grant.lies
        honest: dict[str, object] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": who.subject,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.asked["nonce"],
        }
        if self.claims_in_token:
            honest |= {"email": who.email, "email_verified": who.email_verified}
        key = lies.key or self.key
        header = {"alg": algorithm_of(key), "kid": self.key.kid, **lies.header}
        said = {name: value(now) if callable(value) else value for name, value in lies.claims.items()}
        claims = {name: value for name, value in {**honest, **said}.items() if value is not GONE}
        kept = {name: value for name, value in header.items() if value is not GONE}
        registry = JWSRegistry(algorithms=[str(header["alg"])], strict_check_header=False)
        return jws.serialize_compact(kept, json.dumps(claims).encode(), key, registry=registry)

    def _userinfo(self, headers: Mapping[str, str]) -> tuple[int, Json, bytes]:
        grant = self.access.get(headers.get("Authorization", "").removeprefix("Bearer "))
        if grant is None:
            return 401, {}, b"{}"
        told = {"sub": grant.who.subject, "email": grant.who.email, "email_verified": grant.who.email_verified}
        return grant.lies.userinfo_status, {}, json.dumps(grant.lies.userinfo or told).encode()


def algorithm_of(key: object) -> str:
    if isinstance(key, ECKey):
        return "ES256"
    if isinstance(key, OKPKey):
        return "Ed25519"
    return "HS256" if isinstance(key, OctKey) else "RS256" if isinstance(key, RSAKey) else "none"


@dataclass
class Town:
    """All providers of one server."""

    url: str
    houses: dict[str, House] = field(default_factory=dict)

    def house(self, name: str) -> House:
        return self.houses.setdefault(name, House(name, f"{self.url}/{name}"))

    def settings(self, *names: str) -> dict[str, str]:
        """For the environment of a service."""
        return {
            "AUTH__PROVIDERS": json.dumps([self.house(name).settings for name in names]),
            "AUTH__PROVIDER_REDIRECT_URL": REDIRECT_URL,
        }


@contextmanager
def running_providers() -> Iterator[Town]:
    town = Town("")

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            _, name, rest = self.path.split("/", 2)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            status, headers, answer = town.house(name).answer(
                self.command, f"/{rest}", dict(self.headers.items()), body
            )
            try:
                self.send_response(status)
                for header, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(header, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                pass  # whoever asked has gone

        do_GET = do_POST = handle_any  # noqa: N815 - the standard library's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        town.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield town
        finally:
            server.shutdown()
            thread.join()

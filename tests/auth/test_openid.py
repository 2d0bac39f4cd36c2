"""What a provider may say, and what becomes of it: lies are refused, nonsense and silence are coded, nothing is a 500."""

import base64
import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import httpx2
import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from src import config
from src.auth import openid
from src.auth.openid import Identity
from src.config import load_settings
from src.shared.errors import ErrorCode
from tests.auth.test_providers import PROVIDERS, Browser, notes
from tests.support.answers import at_once, data_of, refused
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, GONE, REDIRECT_URL, House, Lies, Somebody, Town
from tests.support.postgres import Kind
from tests.support.server import Server
from tests.support.service import Service, own_place
from tests.support.waiting import wait_for

DEEP = "[" * 100_000
STRANGER = ECKey.generate_key("P-256", {"kid": "stranger"})


def after(seconds: float) -> Callable[[int], float]:
    """When it is said."""
    return lambda now: now + seconds


def unsigned(header: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=") + ".e30.AAAA"


LIES: dict[str, Lies] = {
    "another issuer": Lies({"iss": "https://accounts.example.com"}),
    "issuer with a slash": Lies({"iss": "http://127.0.0.1/acme/"}),
    "no issuer": Lies({"iss": GONE}),
    "another audience": Lies({"aud": "somebody-else"}),
    "an audience of others": Lies({"aud": ["somebody-else", "a-third"]}),
    "two audiences and no party": Lies({"aud": [CLIENT_ID, "somebody-else"]}),
    "another party": Lies({"azp": "somebody-else"}),
    "no audience": Lies({"aud": GONE}),
    "audience of numbers": Lies({"aud": [1]}),
    "expired": Lies({"exp": after(-3600)}),
    "no expiry": Lies({"exp": GONE}),
    "expiry as text": Lies({"exp": "4000000000"}),
    "expiry true": Lies({"exp": True}),
    "of an hour ago": Lies({"iat": after(-3600)}),
    "of tomorrow": Lies({"iat": after(86_400)}),
    "no time": Lies({"iat": GONE}),
    "another nonce": Lies({"nonce": "another"}),
    "no nonce": Lies({"nonce": GONE}),
    "nonce of numbers": Lies({"nonce": 7}),
    "nonce with a surrogate": Lies({"nonce": "\ud800"}),
    "no subject": Lies({"sub": GONE}),
    "empty subject": Lies({"sub": ""}),
    "long subject": Lies({"sub": "s" * 256}),
    "subject with NUL": Lies({"sub": "a\0b"}),
    "subject with a surrogate": Lies({"sub": "a\ud800"}),
    "subject with a line's end": Lies({"sub": "a\nb"}),
    "subject of numbers": Lies({"sub": 7}),
    "subject with a blank at its end": Lies({"sub": "a "}),
    "subject beyond ASCII": Lies({"sub": "\uff41dmin"}),
    "a stranger's key": Lies(key=STRANGER),
    "a stranger's key under its name": Lies(key=STRANGER, header={"kid": "stranger"}),
    "the client's secret as key": Lies(key=OctKey.import_key(CLIENT_SECRET), header={"alg": "HS256"}),
    "no signature": Lies(id_token="eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."),
    "no token at all": Lies(id_token="token"),
    "an empty token": Lies(tokens={"id_token": ""}),
    "token of a number": Lies(tokens={"id_token": 7}),
    "token of letters beyond ASCII": Lies(id_token="ä.ö.ü"),
    "token of a surrogate": Lies(id_token="\ud800.\ud800."),
    "token that is too long": Lies(id_token="a" * 70_000),
    "header that is a list": Lies(id_token="W10.W10."),
    "header without end": Lies(id_token=base64.urlsafe_b64encode(DEEP.encode()[:3000]).decode() + ".e30."),
    "header that is critical": Lies(id_token=unsigned({"alg": "ES256", "crit": ["exp"], "exp": 1})),
    "key's name is a list": Lies(id_token=unsigned({"alg": "ES256", "kid": ["a"]})),
    "algorithm is a list": Lies(id_token=unsigned({"alg": ["ES256"]})),
    "algorithm is null": Lies(id_token=unsigned({"alg": None})),
    "no algorithm": Lies(id_token=unsigned({})),
    "tokens are a list": Lies(answer=(200, b"[]")),
    "tokens are nothing": Lies(answer=(200, b"")),
    "tokens are no JSON": Lies(answer=(200, b"<html>")),
    "tokens without end": Lies(answer=(200, DEEP.encode())),
    "tokens are not Unicode": Lies(answer=(200, b'{"id_token": "\xff"}')),
    "refused": Lies(answer=(400, b'{"error": "invalid_grant"}')),
    "refused in odd words": Lies(answer=(400, b'{"error": "\\ud800\\r\\n{request_id}"}')),
    "refused in a list": Lies(answer=(400, b'["error"]')),
    "refused without end": Lies(answer=(400, DEEP.encode())),
}
OUTAGES: dict[str, Lies] = {
    "does not know us": Lies(answer=(401, b'{"error": "invalid_client"}')),
    "broken": Lies(answer=(500, b"")),
    "elsewhere": Lies(answer=(302, b""), headers={"Location": "http://127.0.0.1:1/"}),
    "made": Lies(answer=(201, b"{}")),
    "too long": Lies(answer=(200, b" " * 300_000)),
    "packed": Lies(answer=(200, gzip.compress(b" " * 50_000_000)), headers={"Content-Encoding": "gzip"}),
}
ODD_EXTRAS: dict[str, Lies] = {
    "a claim without end": Lies({"groups": json.loads("[" * 300 + "]" * 300)}),
    "claims that nobody asked for": Lies({"admin": True, "roles": ["admin"], "is_active": False, "user_id": "1"}),
    "one audience in a list": Lies({"aud": [CLIENT_ID]}),
    "more audiences and the party": Lies({"aud": [CLIENT_ID, "somebody-else"], "azp": CLIENT_ID}),
    "times with fractions": Lies({"iat": after(0.5), "exp": after(300.5)}),
    "an access token that no header takes": Lies(tokens={"access_token": "a\r\nX-Injected: 1"}),
    "no access token": Lies(tokens={"access_token": None}),
    "no name of a key": Lies(header={"kid": GONE}),
}


@pytest.fixture
def browser(client: httpx2.Client, provider: House) -> Browser:
    return Browser(client, provider)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_logs_nobody_in(browser: Browser, lie: str) -> None:
    refused(browser.sign_in(LIES[lie]), ErrorCode.INVALID_PROVIDER_ANSWER)

    data_of(browser.sign_in())  # the next one is none


@pytest.mark.parametrize("outage", OUTAGES)
def test_what_is_no_answer_is_an_outage_of_the_provider(browser: Browser, outage: str) -> None:
    answer = browser.sign_in(OUTAGES[outage])

    refused(answer, ErrorCode.PROVIDER_UNAVAILABLE)
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("extra", ODD_EXTRAS)
def test_what_a_provider_says_beyond_changes_nothing(browser: Browser, extra: str) -> None:
    mine = browser.client.get("/api/v1/profile", headers=_bearer(browser, ODD_EXTRAS[extra]))

    assert data_of(mine)["email"] == browser.who.email
    assert data_of(mine)["roles"] == ["user"]


def _bearer(browser: Browser, lies: Lies | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {data_of(browser.sign_in(lies))['access_token']}"}


def test_the_token_of_another_sign_in_of_the_same_person_is_refused_and_audited(
    browser: Browser, provider: House, admin: httpx2.Client
) -> None:
    """Injected by whoever read it once: its nonce is another one."""
    code = browser.come_back(browser.begin())["code"]
    stolen = provider.id_token(provider.grants[code])

    refused(browser.sign_in(Lies(id_token=stolen)), ErrorCode.INVALID_PROVIDER_ANSWER)

    assert notes(admin)[0] == "invalid"


# --- Services whose providers are odd from the first word


@dataclass
class Place:
    service: Service
    towns: Town

    def begin(self, name: str) -> httpx2.Response:
        return self.service.client.post(f"{PROVIDERS}/{name}/begin")

    def browser(self, name: str) -> Browser:
        return Browser(self.service.client, self.towns.house(name))


@contextmanager
def place(kind: Kind, towns: Town, *names: str, **env: str) -> Iterator[Place]:
    with own_place(kind, **towns.settings(*names), **env) as own, own.service() as service:
        yield Place(service, towns)


DOCUMENTS: dict[str, Any] = {  # Any: JSON, or bytes
    "of-another": {"issuer": "https://accounts.example.com"},
    "without-endpoint": {"token_endpoint": GONE},
    "endpoint-null": {"authorization_endpoint": None},
    "endpoint-list": {"jwks_uri": ["https://keys.example.com"]},
    "endpoint-script": {"authorization_endpoint": "javascript:alert(1)"},
    "endpoint-relative": {"authorization_endpoint": "/authorize"},
    "endpoint-file": {"jwks_uri": "file:///etc/passwd"},
    "endpoint-open": {"authorization_endpoint": "https://[/authorize"},
    "endpoint-port": {"token_endpoint": "https://a.example.com:99999/token"},
    "endpoint-user": {"authorization_endpoint": "https://acme.example.com@evil.example.com/"},
    "endpoint-fragment": {"authorization_endpoint": "https://acme.example.com/#"},
    "endpoint-line": {"authorization_endpoint": "https://acme.example.com/\r\nSet-Cookie: a=b"},
    "endpoint-blank": {"authorization_endpoint": "https://acme.example.com/ b"},
    "endpoint-letters": {"authorization_endpoint": "https://\u0430cme.example.com/"},
    "methods-number": {"token_endpoint_auth_methods_supported": 1},
    "iss-word": {"authorization_response_iss_parameter_supported": "yes"},
    "html": b"<html>",
    "empty": b"",
    "list": b"[]",
    "without-end": DEEP.encode(),
    "no-unicode": b'{"issuer": "\xff"}',
    "surrogate": b'{"issuer": "\\ud800"}',
    "huge": b" " * 300_000,
}


def test_a_document_that_cannot_be_read_is_an_outage_of_that_provider_alone(
    database_kind: Kind, providers: Town
) -> None:
    for name, document in DOCUMENTS.items():
        house = providers.house(name)
        house.raw_document, house.document = (document, {}) if isinstance(document, bytes) else (None, document)

    with place(database_kind, providers, "honest", *DOCUMENTS) as own:
        for name in DOCUMENTS:
            refused(own.begin(name), ErrorCode.PROVIDER_UNAVAILABLE)
        data_of(own.browser("honest").sign_in())


def test_what_a_document_may_leave_out_it_may(database_kind: Kind, providers: Town) -> None:
    kept: dict[str, dict[str, Any]] = {  # Any: JSON
        "no-userinfo": {"userinfo_endpoint": None},
        "no-methods": {"token_endpoint_auth_methods_supported": None},
        "no-iss": {"authorization_response_iss_parameter_supported": GONE},
        "post-only": {"token_endpoint_auth_methods_supported": ["client_secret_post"]},
    }
    for name, document in kept.items():
        providers.house(name).document = document

    with place(database_kind, providers, *kept) as own:
        for name in kept:
            browser = own.browser(name)
            letter = browser.come_back(browser.begin())
            if name == "no-iss":
                del letter["iss"]
            data_of(browser.finish(letter))


def test_an_odd_key_does_not_take_the_others_along(database_kind: Kind, providers: Town) -> None:
    house = providers.house("odd-keys")
    with pytest.warns(SecurityWarning):
        small = RSAKey.generate_key(1024, {"kid": "small"})
    other = RSAKey.generate_key(2048, {"kid": "rsa"})
    edwards = OKPKey.generate_key("Ed25519", {"kid": "edwards"})
    house.keys = [
        "a", None, 7, [], {}, {"kty": "RSA"}, {"kty": "RSA", "n": "AQAB", "e": "!"}, {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": house.key.kid}, {"kty": "unknown"},
        {"kty": ["RSA"]}, {"kty": "EC", "crv": "secp999"},
        {**STRANGER.as_dict(private=False), "use": "enc"},
        *(key.as_dict(private=False) for key in (small, other, edwards, house.key)),
    ]  # fmt: skip

    with place(database_kind, providers, "odd-keys") as own:
        browser = own.browser("odd-keys")
        for key in (house.key, other, edwards):
            data_of(browser.sign_in(Lies(key=key, header={"kid": key.kid})))
        for key in (small, STRANGER):
            refused(browser.sign_in(Lies(key=key, header={"kid": key.kid})), ErrorCode.INVALID_PROVIDER_ANSWER)
        # What one key signs another's algorithm does not check.
        refused(browser.sign_in(Lies(key=other, header={"kid": house.key.kid})), ErrorCode.INVALID_PROVIDER_ANSWER)


def test_no_keys_are_no_answer(database_kind: Kind, providers: Town) -> None:
    providers.house("keyless").keys = []

    with place(database_kind, providers, "keyless") as own:
        refused(own.browser("keyless").sign_in(), ErrorCode.INVALID_PROVIDER_ANSWER)


def test_who_asks_a_provider_that_is_down_does_not_wait_in_line(database_kind: Kind, providers: Town) -> None:
    """A failure is remembered for some seconds: of a crowd one finds it out."""
    house = providers.house("silent")
    house.asked.clear()
    house.held = Event()
    with place(database_kind, providers, "silent", "honest") as own:
        try:
            crowd = at_once([partial(own.begin, "silent")] * 20)
            for answer in crowd:
                refused(answer, ErrorCode.PROVIDER_UNAVAILABLE)
            assert len(house.asked) == 1
            data_of(own.browser("honest").sign_in())
        finally:
            house.held.set()
            house.held = None


def test_what_was_read_once_is_good_while_the_provider_cannot_be_asked_for_it(
    database_kind: Kind, providers: Town
) -> None:
    house = providers.house("flaky")
    house.asked.clear()
    with place(database_kind, providers, "flaky") as own:
        browser = own.browser("flaky")
        begun = browser.begin()

        house.is_down = True
        answers = [own.begin("flaky") for _ in range(3)]
        house.is_down = False

        assert [answer.status_code for answer in answers] == [200] * 3
        data_of(browser.finish(browser.come_back(begun)))
        assert len([page for page, _ in house.asked if page.startswith("/.well-known")]) == 1


def test_who_is_known_needs_nothing_that_a_provider_does_not_tell(database_kind: Kind, providers: Town) -> None:
    house = providers.house("taciturn")
    with place(database_kind, providers, "taciturn") as own, socket.create_server(("127.0.0.1", 0)) as deaf:
        known, unknown = own.browser("taciturn"), own.browser("taciturn")
        data_of(known.sign_in())
        house.claims_in_token = False

        for odd in (Lies(userinfo_status=503), Lies(userinfo="<html>")):
            data_of(known.sign_in(odd))
            refused(unknown.sign_in(odd), ErrorCode.PROVIDER_UNAVAILABLE)

        house.document = {"userinfo_endpoint": f"http://127.0.0.1:{deaf.getsockname()[1]}/"}
        with own_place(database_kind, **providers.settings("taciturn")) as other, other.service() as service:
            refused(Browser(service.client, house, unknown.who).sign_in(), ErrorCode.PROVIDER_UNAVAILABLE)
    house.claims_in_token, house.document = True, {}


def test_a_new_key_is_looked_for_whatever_it_is_called(database_kind: Kind, providers: Town) -> None:
    """Some providers name no keys, or another one by the same name."""
    house = providers.house("rotating")
    house.asked.clear()
    with place(database_kind, providers, "rotating") as own:
        browser, nameless = own.browser("rotating"), Lies(header={"kid": GONE})
        data_of(browser.sign_in(nameless))
        house.key = ECKey.generate_key("P-256", {"kid": house.key.kid, "use": "sig"})

        # Not more often than twice a minute, whoever asks for it.
        refused(browser.sign_in(nameless), ErrorCode.INVALID_PROVIDER_ANSWER)
        refused(browser.sign_in(), ErrorCode.INVALID_PROVIDER_ANSWER)
        assert [page for page, _ in house.asked].count("/keys") == 1


async def test_a_new_key_under_an_old_name_is_found(providers: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    house = providers.house("renewing")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # whatever the machine has for others
    auth = {
        "secret": "f" * 8 + "0123456789abcdef" * 2,
        "providers": [house.settings],
        "provider_redirect_url": REDIRECT_URL,
    }
    settings = load_settings(app={"env": "test"}, auth=auth)
    monkeypatch.setattr(config, "_current", settings)
    monkeypatch.setattr(openid, "_KEYS_AGAIN_AFTER_SECONDS", 0.0)  # as if it were half a minute later
    provider, errand = settings.auth.providers[0], openid.make_errand("a browser")
    for _ in range(2):
        house.key = ECKey.generate_key("P-256", {"kid": "the same", "use": "sig"})
        back = house.visit(await openid.authorization_url(provider, errand), Somebody("7", "a@example.com"))

        identity = await openid.exchange(provider, errand, code=back["code"], issuer=back["iss"])

        assert identity == Identity(house.issuer, "7", "a@example.com")
    assert [page for page, _ in house.asked].count("/keys") == 2


def test_nothing_of_a_token_is_logged(browser: Browser, server: Server) -> None:
    refused(browser.sign_in(Lies(id_token="canary-of-a-token" * 3 + "\u00e9")), ErrorCode.INVALID_PROVIDER_ANSWER)

    wait_for(lambda: "A provider's answer was refused" in server.output())
    assert "canary-of-a-token" not in server.output()


def test_a_code_that_a_dying_provider_took_is_over(browser: Browser, provider: House) -> None:
    letter = browser.come_back(browser.begin())
    provider.is_down = True
    try:
        refused(browser.finish(letter), ErrorCode.PROVIDER_UNAVAILABLE)
    finally:
        provider.is_down = False

    refused(browser.finish(letter), ErrorCode.INVALID_PROVIDER_ANSWER)
    data_of(browser.sign_in())


def test_a_sign_in_that_was_begun_before_the_secret_changed_ends_well(database_kind: Kind, providers: Town) -> None:
    with own_place(database_kind, **providers.settings("acme")) as own:
        with own.service() as service:
            browser = Browser(service.client, providers.house("acme"))
            letter = browser.come_back(browser.begin())
        old = own.env["AUTH__SECRET"]
        with own.service(AUTH__SECRET="f" * 20 + old[:44], AUTH__PREVIOUS_SECRETS=old) as service:
            data_of(Browser(service.client, providers.house("acme"), browser.who).finish(letter))


def test_a_public_client_has_its_challenge_alone(database_kind: Kind, providers: Town) -> None:
    house = providers.house("public")
    env = providers.settings("public")
    settings = json.loads(env["AUTH__PROVIDERS"])
    del settings[0]["client_secret"]
    with own_place(database_kind, **env | {"AUTH__PROVIDERS": json.dumps(settings)}) as own, own.service() as service:
        refused(Browser(service.client, house).sign_in(), ErrorCode.PROVIDER_UNAVAILABLE)  # it takes no such client

        form = next(body for page, body in house.asked if page == "/token")
    assert f"client_id={CLIENT_ID}" in form
    assert "code_verifier=" in form
    assert "client_secret" not in form


def test_what_asks_without_end_is_stopped_and_not_written_down_without_end(
    database_kind: Kind, providers: Town
) -> None:
    """By whoever has a network of IPv6, and each address of it."""
    limits = {"AUTH__REFUSALS_NOTED": "3", "AUTH__LOGINS_PER_ADDRESS": "100", "HTTP__TRUSTED_PROXIES": "127.0.0.1"}
    with place(database_kind, providers, "acme", **limits) as own:
        client, root = own.service.client, own.service.log_in()["access_token"]
        letter = {"browser_token": "b", "state": "s", "code": "c"}
        addresses = [{"X-Forwarded-For": f"2001:db8::{number:x}"} for number in range(1, 111)]

        answers = [client.post(f"{PROVIDERS}/acme/finish", json=letter, headers=each) for each in addresses]

        refused(answers[0], ErrorCode.INVALID_PROVIDER_ANSWER)
        refused(answers[-1], ErrorCode.TOO_MANY_ATTEMPTS)
        refused(client.post(f"{PROVIDERS}/acme/begin", headers=addresses[0]), ErrorCode.TOO_MANY_ATTEMPTS)
        assert data_of(own.service.get("audit", token=root, action="provider.refused"))["total"] == 3

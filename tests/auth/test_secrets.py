"""Canaries: passwords, tokens and a provider's words go through every door once, and are looked for where they must not be."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import parse_qs, quote_plus, urlencode
from uuid import uuid4

import httpx2
import pytest
from redis import Redis
from sqlalchemy import text

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN
from tests.auth.test_providers import Browser
from tests.conftest import PATIENT
from tests.support.answers import bearer, data_of, refused
from tests.support.mail import Mail, Mailbox
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, House, Lies, Somebody, Town
from tests.support.phone import Phone
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import Server, running_server
from tests.support.tables import execute
from tests.support.valkey import own_valkey

EMAIL = f"canary-{uuid4().hex}@example.com"
MOVED = f"moved-{EMAIL}"
FIRST, SECOND, THIRD = (f"{word}-{uuid4().hex}-canary" for word in ("plum", "quarry", "gadget"))
_PAIR = f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}"
OF_THE_CLIENT = {CLIENT_SECRET, quote_plus(CLIENT_SECRET), base64.b64encode(_PAIR.encode()).decode()}
"""The service's own secret at the provider, in all that it is written in."""


class Flight:
    """One pass through everything that takes or gives a secret, the ways that fail included."""

    def __init__(self, client: httpx2.Client, mailbox: Mailbox, provider: House) -> None:
        self.client, self.mailbox, self.provider = client, mailbox, provider
        self.untold = {FIRST, SECOND, THIRD, *OF_THE_CLIENT}
        """What comes in, or from the provider, and is answered to nobody."""
        self.secrets = {*self.untold}
        self.answers: list[str] = []
        client.event_hooks = {"response": [self._keep]}

    def _keep(self, answer: httpx2.Response) -> None:
        self.answers.append(f"{answer.read().decode()} {answer.headers}")

    def fly(self) -> None:
        account = {"email": EMAIL, "password": FIRST}
        data_of(self._post("register", account), 201)
        self._post("register", account)
        self._post("register", account | {"password": FIRST, "surplus": SECOND})
        self._post("login", account | {"password": SECOND})
        self._post("login", {"email": FIRST, "password": {"nested": SECOND}})
        self.client.post("/api/v1/auth/login", content=f'{{"password": "{FIRST}"'.encode())
        self.client.post("/api/v1/auth/token", data={"username": EMAIL, "password": FIRST})
        self.client.post("/api/v1/auth/token", data={"username": EMAIL, "password": SECOND})
        letter = self._session(account)
        letter = self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        headers = bearer(letter["access_token"])
        self.client.get("/api/v1/auth/sessions", headers=headers)
        self.client.patch("/api/v1/profile", json={"username": "canary"}, headers=headers | {"Idempotency-Key": "k"})
        self.client.get("/api/v1/profile", headers=bearer(letter["access_token"] + "x"))
        self.client.get("/api/v1/profile", headers={"Authorization": f"Basic {FIRST}"})
        self.client.post("/api/v1/auth/logout-all", headers=headers | {"Content-Type": FIRST})
        letter = self._session(account)
        change = {"current_password": SECOND, "new_password": FIRST}
        headers = bearer(letter["access_token"])
        self.client.post("/api/v1/auth/password/change", json=change, headers=headers)
        change = {"current_password": FIRST, "new_password": SECOND}
        data_of(self.client.post("/api/v1/auth/password/change", json=change, headers=headers))
        letter = self._session(account | {"password": SECOND})
        self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        self._tokens(self._post("refresh", {"refresh_token": letter["refresh_token"]}))
        data_of(self._post("logout", {"refresh_token": letter["refresh_token"]}))
        self._post("refresh", {"refresh_token": letter["refresh_token"]})
        self._use_codes()
        self._use_factors(Phone("", ""))
        self._use_provider(Browser(self.client, self.provider))
        self._use_provider(Browser(self.client, self.provider, Somebody(email=MOVED)))

    def _use_factors(self, phone: Phone) -> None:
        account = {"email": MOVED, "password": THIRD}
        token = self._session(account)["access_token"]
        told = data_of(self._ask(token, "POST", "totp", {"current_password": THIRD}), 201)
        phone.secret = self._keep_secret(told["secret"])
        self._ask(token, "POST", "totp/confirm", {"code": phone.wrong_code(), "surplus": phone.secret})
        codes = data_of(self._ask(token, "POST", "totp/confirm", {"code": phone.code()}))["recovery_codes"]
        self.secrets |= set(codes)
        mfa_token = self._keep_secret(
            refused(self._post("login", account), ErrorCode.SECOND_FACTOR_REQUIRED)["mfa_token"]
        )
        finish = {"mfa_token": mfa_token, "method": "totp", "code": phone.code()}
        self.client.get("/api/v1/profile", headers=bearer(mfa_token))
        self._post("login/second-factor", finish | {"code": phone.secret})
        self._post("login/second-factor", finish | {"method": codes[0]})
        token = self._tokens(self._post("login/second-factor", finish))["access_token"]
        self._post("login/second-factor", finish)
        for _ in range(2):
            self._ask(token, "POST", "../../auth/step-up", {"method": "recovery_code", "code": codes[1]})
        letter = {"name": "canary", "permissions": [], "current_password": THIRD}
        key = self._keep_secret(data_of(self._ask(token, "POST", "api-keys", letter), 201)["key"])
        data_of(self.client.get("/api/v1/profile", headers=bearer(key)))
        self.client.get("/api/v1/profile", headers=bearer(f"{key[:-1]}~"))
        self.client.get(f"/api/v1/profile/{key}?key={key}")
        self._ask(token, "GET", "api-keys")
        data_of(self._ask(token, "DELETE", "totp"))

    def _ask(self, token: str, method: str, path: str, letter: Mapping[str, object] | None = None) -> httpx2.Response:
        path = f"/api/v1/profile/security/{path}".replace("profile/security/../../", "")
        return self.client.request(method, path, json=letter, headers=bearer(token))

    def _use_provider(self, browser: Browser) -> None:
        door = f"providers/{self.provider.name}/finish"
        letter = self._come_back(browser, bent="\u00e9")
        self.client.get(f"/api/v1/auth/{door}?{urlencode(letter)}")
        self.client.post(f"/api/v1/auth/{door}", content=f'{{"browser_token": "{letter["browser_token"]}"'.encode())
        self._post(door, letter | {"surplus": letter["code"]})
        self._post(door, letter | {"browser_token": letter["state"]})
        for _ in range(2):
            self._post(door, letter)
        for wrong in ({"state": SECOND}, {"code": SECOND}, {"iss": SECOND}):
            self._post(door, self._come_back(browser) | wrong)
        echo = f'{{"error": "{CLIENT_SECRET}", "error_description": "{CLIENT_SECRET}"}}'.encode()
        for lies in (Lies(answer=(500, echo)), Lies(answer=(400, echo)), Lies(claims={"exp": SECOND, "sub": SECOND})):
            self._post(door, self._come_back(browser, lies))
        answer = self._post(door, self._come_back(browser))
        if browser.who.email == MOVED:
            refused(answer, ErrorCode.PROVIDER_LINK_UNCONFIRMED)
            self._confirm(self._code(MOVED, "signed in"))
            answer = self._post(door, self._come_back(browser))
        token = self._tokens(answer)["access_token"]
        self._link_anew(token, browser)
        # What only the two of them know.
        self._keep_untold(*self.provider.access)
        for path, body in self.provider.asked:
            if path == "/token":
                self._keep_untold(*parse_qs(body)["code_verifier"])

    def _confirm(self, code: str) -> None:
        door = "provider-links/confirm"
        self._post("verify", {"token": code})
        self._post(door, {"token": code, "surplus": code})
        data_of(self.client.post(f"/api/v1/auth/{door}", json={"token": code}))
        self.client.post(f"/api/v1/auth/{door}?token={code}", json={"token": code})
        self._post(door, {"token": code})

    def _link_anew(self, token: str, browser: Browser) -> None:
        """From a session, where the link is not the last way in."""
        self.client.get("/api/v1/profile/security", headers=bearer(token))
        (link,) = data_of(self._ask(token, "GET", "providers"))
        path = f"providers/{self.provider.name}"
        if self._ask(token, "DELETE", f"providers/{link['id']}").is_success:
            self._ask(token, "POST", f"{path}/begin", {"current_password": SECOND})
            begun = data_of(self._ask(token, "POST", f"{path}/begin", {"current_password": THIRD}))
            letter = self._come_back(browser, begun=begun)
            self._post(f"{path}/finish", letter)
            data_of(self._ask(token, "POST", f"{path}/finish", letter), 201)
            self._ask(token, "POST", f"{path}/finish", letter)

    def _come_back(
        self, browser: Browser, lies: Lies | None = None, *, begun: dict[str, str] | None = None, bent: str = ""
    ) -> dict[str, str]:
        """`bent`: what stands behind the ID token, which is none any more."""
        begun = begun or browser.begin()
        asked = httpx2.URL(begun["authorization_url"]).params
        self.secrets |= {begun["browser_token"], asked["state"], asked["nonce"]}
        letter: dict[str, str] = browser.come_back(begun, lies)
        grant = self.provider.grants[letter["code"]]
        token = self.provider.id_token(grant)
        grant.lies = replace(grant.lies, id_token=token + bent)
        self._keep_untold(letter["code"], *token.split("."))
        return letter

    def _keep_untold(self, *secrets: str) -> None:
        self.untold |= {*secrets}
        self.secrets |= {*secrets}

    def _keep_secret(self, secret: str) -> str:
        self.secrets.add(secret)
        return secret

    def _use_codes(self) -> None:
        """The way that fails first: a code that is spent is no secret any more."""
        self._post("verify/request", {"email": EMAIL})
        for path, about in (("verify", "Confirm your address"), ("email/confirm", "new address")):
            if path == "email/confirm":
                headers = bearer(self._session({"email": EMAIL, "password": SECOND})["access_token"])
                letter = {"new_email": MOVED, "current_password": SECOND}
                data_of(self.client.post("/api/v1/auth/email/change", json=letter, headers=headers), 202)
            code = self._code(MOVED, about) if path == "email/confirm" else self._code(EMAIL, about, number=2)
            self._post("password/reset", {"token": code, "new_password": THIRD})
            self._post(path, {"token": code, "surplus": code})
            self.client.post(f"/api/v1/auth/{path}?token={code}", json={"token": code})
            data_of(self._post(path, {"token": code}))
        self._post("password/forgot", {"email": MOVED})
        code = self._code(MOVED, "new password")
        self._post("verify", {"token": code})
        self._post("password/reset", {"token": code, "new_password": "short"})
        data_of(self._post("password/reset", {"token": code, "new_password": THIRD}))
        self._post("password/reset", {"token": code, "new_password": THIRD})

    def _code(self, address: str, about: str, *, number: int = 1) -> str:
        code = self.mailbox.wait_for(address, about=about, number=number).code
        self.secrets.add(code)
        return code

    def _post(self, door: str, letter: Mapping[str, object]) -> httpx2.Response:
        return self.client.post(f"/api/v1/auth/{door}", json=letter)

    def _session(self, account: dict[str, str]) -> dict[str, str]:
        return self._tokens(self.client.post(LOGIN, json=account))

    def _tokens(self, answer: httpx2.Response) -> dict[str, str]:
        letter: dict[str, str] = data_of(answer)
        # Signatures too: whatever is cut from a token still ends in one.
        self.secrets |= {letter["access_token"], letter["refresh_token"], letter["access_token"].rpartition(".")[2]}
        return letter

    def found_in(self, place: str) -> set[str]:
        return {secret for secret in self.secrets if secret in place}


@pytest.fixture(scope="module")
def database_of_flight() -> Iterator[str]:
    url = fresh_database("postgres")
    yield url
    drop_database(url)


@pytest.fixture(scope="module")
def valkey_of_flight() -> Iterator[str]:
    with own_valkey() as valkey:
        yield valkey.url


@pytest.fixture(scope="module")
def server(database_of_flight: str, valkey_of_flight: str, mailbox: Mailbox, providers: Town) -> Iterator[Server]:
    env = {
        "DB__URL": database_of_flight,
        "CACHE__URL": valkey_of_flight,
        "MAIL__URL": mailbox.url,
        "LOG__LEVEL": "TRACE",
        **providers.settings("acme"),
        **PATIENT,
    }
    with running_server(env) as running:
        yield running


@pytest.fixture(scope="module")
def flight(server: Server, mailbox: Mailbox, provider: House) -> Flight:
    with httpx2.Client(base_url=server.url, timeout=15, verify=False) as client:
        flight = Flight(client, mailbox, provider)
        flight.fly()
    server.end()  # what it has to say is written now
    return flight


def test_the_output_has_no_secret(flight: Flight, server: Server) -> None:
    output = server.output()

    assert output.count("/api/v1/auth/login") >= 5
    assert output.count("Mail sent") >= 5
    assert flight.found_in(output) == set()


def test_the_tables_have_no_secret(flight: Flight, database_of_flight: str) -> None:
    names = [
        name
        for (name,) in execute(database_of_flight, text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
    ]
    dump = "\n".join(
        str(row)
        for name in names
        for row in execute(database_of_flight, text(f'SELECT "{name}"::text, * FROM "{name}"'))
    )

    assert MOVED in dump
    assert re.search(r"\$argon2id\$", dump)
    assert flight.found_in(dump) == set()


def test_the_cache_has_no_secret(flight: Flight, valkey_of_flight: str) -> None:
    with Redis.from_url(valkey_of_flight, decode_responses=True) as valkey:
        entries = {str(key): valkey.dump(key) for key in valkey.scan_iter()}

    assert entries
    assert flight.found_in(f"{entries}") == set()
    assert EMAIL not in f"{entries}"


def test_a_secret_is_answered_once_to_whom_it_is_made_for(flight: Flight) -> None:
    """Tokens come in the answer that makes them; passwords, codes and what a provider says come back in none."""
    told = "\n".join(flight.answers)
    given = {secret for secret in flight.secrets if secret in told}

    assert len(flight.answers) > 20
    assert given
    tells = ("refresh_token", "otpauth_uri", "recovery_codes", "mfa_token", '"key"', "authorization_url")
    assert not any(flight.found_in(answer) for answer in flight.answers if not any(name in answer for name in tells))
    assert given.isdisjoint(flight.untold | {code for _, mail in _mails(flight) for code in _codes(mail)})


def test_a_mail_has_the_one_secret_that_it_brings(flight: Flight) -> None:
    mails = _mails(flight)

    assert len(mails) >= 6
    for _, mail in mails:
        assert flight.found_in(f"{mail.message.as_string()} {mail.text} {mail.html}") <= _codes(mail)
        assert flight.found_in(str(mail.message.items())) == set()


def _codes(mail: Mail) -> set[str]:
    return {mail.code} if "type in this code" in mail.text.lower() else set()


def _mails(flight: Flight) -> list[tuple[str, Mail]]:
    return [(to, mail) for to, mail in flight.mailbox.arrived if to in (EMAIL, MOVED)]

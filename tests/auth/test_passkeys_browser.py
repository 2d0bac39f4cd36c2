"""Passkeys in a real browser, with its virtual authenticator, at the running service."""

import json
from typing import Any

import pytest

from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, SECURITY
from tests.conftest import PASSWORD
from tests.support.browser import find_browser, running_browser
from tests.support.service import own_place

BROWSER = find_browser()
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no browser here: neither installed nor in TEST_CHROMIUM"),
]
# As a team's page would have it.
SCRIPT = """
const post = async (path, body, token) => {
  const headers = {'Content-Type': 'application/json', ...(token ? {Authorization: `Bearer ${token}`} : {})}
  const answer = await fetch(path, {method: 'POST', headers, body: JSON.stringify(body)})
  return await answer.json()
}
const register = async (token, password, name) => {
  const options = await post('SECURITY/passkey-options', {current_password: password}, token)
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options.data)
  const credential = await navigator.credentials.create({publicKey})
  return await post('SECURITY/passkeys', {name, credential: credential.toJSON()}, token)
}
const logIn = async (more) => {
  const options = await post('LOGIN/passkey/options', more)
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.data)
  const credential = await navigator.credentials.get({publicKey})
  const letter = {...more, credential: credential.toJSON()}
  return [await post('LOGIN/passkey', letter), await post('LOGIN/passkey', letter)]
}
const stepUp = async (token) => {
  const options = await post('/api/v1/auth/step-up/passkey/options', {}, token)
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options.data)
  const credential = await navigator.credentials.get({publicKey})
  return await post('/api/v1/auth/step-up/passkey', {credential: credential.toJSON()}, token)
}
""".replace("SECURITY", SECURITY).replace("LOGIN", LOGIN)


def test_a_browser_registers_a_passkey_and_logs_in_with_it() -> None:
    assert BROWSER is not None
    with (
        own_place("sqlite") as place,
        place.service() as service,
        running_browser(BROWSER) as page,
    ):
        email = service.register()
        token = service.log_in(email)["access_token"]
        page.add_authenticator()
        page.open(f"http://localhost:{service.server.port}/health/live")
        page.run(SCRIPT + "globalThis.ours = {post, register, logIn, stepUp}; true")

        def ours(call: str, *arguments: object) -> Any:  # Any: JSON
            return page.run(f"ours.{call}({', '.join(map(json.dumps, arguments))})")
            return told

        made = ours("register", token, PASSWORD, "this browser")
        assert made["code"] == 201, made
        assert len(made["data"]["recovery_codes"]) == 10

        alone, again = ours("logIn", {})
        assert alone["code"] == 200, alone
        assert again["code"] == ErrorCode.INVALID_PASSKEY

        told = ours("post", LOGIN, {"email": email, "password": PASSWORD})
        assert (told["code"], told["data"]["methods"]) == (
            ErrorCode.SECOND_FACTOR_REQUIRED,
            ["passkey", "recovery_code"],
        )
        second, _ = ours("logIn", {"mfa_token": told["data"]["mfa_token"]})
        assert second["code"] == 200, second
        assert ours("stepUp", second["data"]["access_token"]) == {"code": 200, "msg": "success", "data": None}

        # Another domain's page gets nothing: the browser does not sign for it.
        page.open(f"http://127.0.0.1:{service.server.port}/health/live")
        page.run(SCRIPT + "globalThis.ours = {logIn: (more) => logIn(more).then(() => 'in', (e) => e.name)}; true")
        assert ours("logIn", {}) == "SecurityError"

"""Who asks, for Schemathesis: it loads this module in its own process. See api.py."""

import json
import os
import urllib.request
from typing import Any
from uuid import uuid4

import schemathesis

from tests.conftest import PASSWORD

ADMIN_ROLE = "0198c0de-0000-7000-8000-000000000001"
SERVICE, ACCOUNT = "FUZZ_SERVICE", "FUZZ_ACCOUNT"
"""Variables: the service's address, and the one that logs in. Without it a new account does, each time."""


def _post(path: str, body: dict[str, str]) -> Any:  # Any: JSON
    request = urllib.request.Request(
        f"{os.environ[SERVICE]}/api/v1/auth/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


@schemathesis.auth(retry_on=[401])
class Caller:
    """Logs in again when a token has ended: a session may be revoked, an account deleted on the way."""

    def get(self, _case: schemathesis.Case[Any], _context: schemathesis.AuthContext) -> str:
        email = os.environ.get(ACCOUNT)
        if not email:
            email = f"{uuid4().hex}@example.com"
            _post("register", {"email": email, "password": PASSWORD})
        token: str = _post("login", {"email": email, "password": PASSWORD})["access_token"]
        return token

    def set(self, case: schemathesis.Case[Any], data: str, _context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case[Any], _kwargs: dict[str, Any]) -> None:
    """Who asks as administrator has no second factor: were one asked of the role, nothing would be tried from then on."""
    ids = case.path_parameters
    if case.path.endswith("/second-factor") and ids and ids.get("role_id") == ADMIN_ROLE:
        ids["role_id"] = str(uuid4())

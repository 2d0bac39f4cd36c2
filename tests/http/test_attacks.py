"""What an attacker tried, and what it no longer does."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import PASSWORD, Account
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import Server, run_command, running_server

Login = Callable[[Account], httpx2.Client]
SLOW_CLIENTS = 24  # more than the pool has connections


def test_slow_bodies_hold_no_connection_of_the_pool(
    server: Server, register: Callable[[], Account], login: Login
) -> None:
    token = login(register()).headers["Authorization"]
    with ExitStack() as slow:
        for n in range(SLOW_CLIENTS):
            client = slow.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(
                f"POST /api/v1/orders/{uuid4()}/cancel HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n"
                f"Idempotency-Key: slow-{n}\r\nContent-Length: 10\r\n\r\n".encode()
            )
        for _ in range(3):
            answer = httpx2.get(f"{server.url}/api/v1/products?size=1", timeout=4, verify=False)
            assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/auth/sessions/a%00b"), ("POST", "/orders/a%00b/cancel"), ("POST", "/orders/%ED%A0%80/cancel")],
)
def test_a_key_beside_a_path_that_no_database_takes_is_a_422(
    register: Callable[[], Account], login: Login, method: str, path: str
) -> None:
    answer = login(register()).request(method, f"/api/v1{path}", headers={"Idempotency-Key": uuid4().hex})

    assert (answer.status_code, answer.json()["code"]) == (422, 40001)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "no-such-charset"])
def test_a_form_in_an_odd_charset_is_refused_in_the_standards_words(client: httpx2.Client, charset: str) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\n\xff\xed\xa0\x80\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"

    answer = client.post("/api/v1/auth/token", content=form, headers={"Content-Type": kind})

    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_request"})


@pytest.fixture
def company(database_kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with one administrator, where addresses are verified before a log-in."""
    url = fresh_database(database_kind)
    env = {"DB__URL": url, "AUTH__REQUIRE_VERIFIED_EMAIL": "true"}
    made = run_command(
        "create-admin", "--email", "root@example.com", env=env, cwd=tmp_path_factory.mktemp("x"), stdin=f"{PASSWORD}\n"
    )
    assert made.returncode == 0, made.stderr
    with running_server(env) as server:
        yield server
    drop_database(url)


def test_the_last_administrator_cannot_be_made_unable_to_log_in(company: Server) -> None:
    with httpx2.Client(base_url=f"{company.url}/api/v1", verify=False) as client:
        letter = client.post("/auth/login", json={"email": "root@example.com", "password": PASSWORD}).json()["data"]
        client.headers["Authorization"] = f"Bearer {letter['access_token']}"
        me = client.get("/profile").json()["data"]["id"]
        second = {"email": "second@example.com", "password": PASSWORD, "roles": ["admin"], "is_verified": False}
        assert client.post("/users", json=second).status_code == 201

        # The second one is an administrator by name only: nobody has verified the address.
        refused = [client.patch(f"/users/{me}", json={flag: False}) for flag in ("is_verified", "is_active")]
        refused.append(client.delete(f"/users/{me}"))

    assert [answer.json()["code"] for answer in refused] == [20005] * 3


def test_a_header_that_cannot_be_sent_is_a_crash_with_an_answer() -> None:
    with (
        running_server({}, "tests.http.apps.odd_headers:app") as server,
        httpx2.Client(base_url=server.url, verify=False) as client,
    ):
        answer = client.get("/broken-header", params={"name": "a\r\nSet-Cookie: b=c"})
        after = client.get("/health/live")

    assert (answer.status_code, answer.json()["code"]) == (500, 90001)
    assert "set-cookie" not in answer.headers
    assert after.status_code == 200


def test_nonsense_is_not_explained_at_nine_times_its_length(client: httpx2.Client) -> None:
    nonsense = {str(n): 1 for n in range(50_000)}

    answer = client.post("/api/v1/auth/login", json=nonsense)

    assert answer.status_code == 422
    assert len(answer.json()["data"]["errors"]) == 50


def test_a_client_that_hangs_up_is_no_error_of_ours(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10\r\nX-Request-ID: hung-up\r\n\r\n"
        )
    assert httpx2.get(f"{server.url}/health/live", verify=False).status_code == 200

    assert "ClientDisconnect" not in server.output()


def test_a_user_name_has_no_invisible_letters(register: Callable[[], Account], login: Login) -> None:
    answer = login(register()).patch("/api/v1/profile", json={"username": "adm\u200din"})

    assert answer.status_code == 422

"""deploy/nginx.conf: the limits that only a proxy can hold, and a restart that no client notices."""

import httpx2
import pytest

from src.http.middleware import MAX_HEADER_BYTES
from tests.http.wire import connected
from tests.lifecycle.nginx import find_nginx, running_nginx
from tests.lifecycle.proxy import running_proxy
from tests.lifecycle.rolling import Proxy, restart_under_load
from tests.support.ports import reserved_port
from tests.support.scale import rounds
from tests.support.server import running_server
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long

needs_nginx = pytest.mark.skipif(find_nginx() is None, reason="no nginx here: neither installed nor in TEST_NGINX")


@pytest.mark.parametrize(
    "proxy", [pytest.param(running_nginx, id="nginx", marks=needs_nginx), pytest.param(running_proxy, id="plain proxy")]
)
def test_no_client_notices_that_one_process_after_the_other_is_restarted(proxy: Proxy) -> None:
    number = rounds(2, full=20)

    restarted = restart_under_load(proxy, restarts=number)

    assert restarted.problems() == []
    assert restarted.seen.answers["order 201"] > number
    assert len(restarted.codes) == number + 2


@needs_nginx
def test_what_nginx_refuses_itself_is_in_the_envelope() -> None:
    with (
        reserved_port() as nobody,
        running_server({"HTTP__TRUSTED_PROXIES": "127.0.0.1"}) as server,
        running_nginx(server.port, nobody) as proxy,
        httpx2.Client(base_url=proxy.url, verify=False) as client,
    ):
        answers = [
            client.post("/api/v1/auth/login", content=b"x" * (1024 * 1024 + 1)),
            client.get("/health/live", headers={"X-Long": "a" * (MAX_HEADER_BYTES + 1)}),
        ]
        # Each second one is sent to where nobody listens, and answered by the other.
        alive = [client.get("/health/live").status_code for _ in range(10)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(413, 40006), (431, 40008)]
    assert alive == [200] * 10


@needs_nginx
def test_without_a_service_nginx_says_503_and_when_to_ask_again() -> None:
    with running_server() as server, running_nginx(server.port, server.port) as proxy:
        server.end()
        answer = httpx2.get(f"{proxy.url}/health/live", verify=False)

    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, 90002, "1")


@needs_nginx
def test_the_service_sees_who_called_and_what_a_caller_claims_changes_nothing() -> None:
    with (
        running_server({"HTTP__TRUSTED_PROXIES": "127.0.0.1"}) as server,
        running_nginx(server.port, server.port) as proxy,
        connected(proxy) as wire,
    ):
        wire.send("GET /health/live HTTP/1.1", "X-Forwarded-For: 10.9.8.7", "X-Request-ID: through-the-proxy")
        assert wire.answer().header("x-request-id") == "through-the-proxy"
        wait_for(lambda: "through-the-proxy" in server.output())
        told = next(line for line in server.output().splitlines() if "through-the-proxy" in line)

    assert "client=127.0.0.1 " in told

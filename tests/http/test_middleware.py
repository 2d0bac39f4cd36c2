"""What stands around each request holds for every answer, whoever gives it, and on the connection after it."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.http.apps.refusals import CANARY
from tests.http.conftest import TEAM, client_of
from tests.http.wire import Answer, Wire, connected
from tests.support.server import Server, running_server

KIB = 1024
LIMIT = 2 * KIB
DEADLINE_SECONDS = "0.2"


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[Server]:
    with running_server({}, "tests.http.apps.guarded:app") as running:
        yield running


@pytest.fixture
def guarded(guarded_server: Server) -> Iterator[httpx2.Client]:
    with client_of(guarded_server) as client:
        yield client


@pytest.fixture(scope="module")
def strict_server() -> Iterator[Server]:
    """Small limits, so that they can be reached."""
    env = {"HTTP__MAX_BODY_BYTES": str(LIMIT), "HTTP__REQUEST_TIMEOUT_SECONDS": DEADLINE_SECONDS}
    with running_server(env, TEAM) as running:
        yield running


@pytest.fixture(scope="module")
def narrow_server() -> Iterator[Server]:
    """One request at a time."""
    with running_server({"HTTP__MAX_CONCURRENCY": "1"}, TEAM) as running:
        yield running


@pytest.fixture(scope="module")
def proxied_server() -> Iterator[Server]:
    env = {"HTTP__TRUSTED_PROXIES": "127.0.0.0/8,10.0.0.0/8,2001:db8::/32"}
    with running_server(env, TEAM) as running:
        yield running


def ask(server: Server, *lines: str, body: bytes = b"", host: str | None = "127.0.0.1") -> Answer:
    """One request, and a second one on the same connection to see that it is still good."""
    with connected(server) as wire:
        wire.send(*lines, body=body, host=host)
        answer = wire.answer()
        still_good(wire)
    return answer


def still_good(wire: Wire) -> None:
    wire.send("GET /value/dict HTTP/1.1")
    assert wire.answer().json() == {"code": 200, "msg": "success", "data": {"id": 1}}


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128])
def test_a_request_id_of_the_caller_is_kept(team: httpx2.Client, given: str) -> None:
    assert team.get("/value/dict", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a,b", "ümlaut", "a/b", "<script>", "a\tb"])
def test_a_request_id_that_is_none_is_replaced(team_server: Server, given: str) -> None:
    first = ask(team_server, "GET /value/dict HTTP/1.1", f"X-Request-ID: {given}").header("x-request-id")
    second = ask(team_server, "GET /value/dict HTTP/1.1", f"X-Request-ID: {given}").header("x-request-id")

    assert first
    assert second
    assert len({first, second, given}) == 3


def test_a_request_without_an_id_gets_one_of_its_own(team: httpx2.Client) -> None:
    ids = {team.get("/value/dict").headers["x-request-id"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (200, ["GET /value/dict HTTP/1.1"]),
        (200, ["GET /text HTTP/1.1"]),
        (200, ["GET /file HTTP/1.1"]),
        (200, ["GET /stream/plain-lines HTTP/1.1"]),
        (200, ["GET /mounted/fastapi/value HTTP/1.1"]),
        (204, ["GET /none/204 HTTP/1.1"]),
        (304, ["GET /none/304 HTTP/1.1"]),
        (307, ["GET /redirect HTTP/1.1"]),
        (404, ["GET /no/such/path HTTP/1.1"]),
        (405, ["DELETE /direct HTTP/1.1"]),
        (422, ["POST /letter/order HTTP/1.1", "Content-Length: 0"]),
        (500, ["GET /crash/route HTTP/1.1"]),
        (500, ["GET /mounted/starlette/crash HTTP/1.1"]),
        (413, ["GET /value/dict HTTP/1.1", "Content-Length: 9999999999"]),
        (431, ["GET /value/dict HTTP/1.1", *(f"X-Many-{number}: 1" for number in range(100))]),
        (400, ["GET /value/dict HTTP/1.1", "Host: second.example"]),
        (200, ["GET /docs HTTP/1.1"]),
        (200, ["GET /openapi.json HTTP/1.1"]),
        (200, ["GET /docs/assets/swagger-ui.css HTTP/1.1"]),
    ],
    ids=lambda value: value[0].split(" ")[1] if isinstance(value, list) else value,
)
def test_every_answer_carries_its_id_and_the_security_headers(
    team_server: Server, status: int, lines: list[str]
) -> None:
    with connected(team_server) as wire:
        wire.send(*lines, "X-Request-ID: mine")
        answered, headers = wire.head()

    assert answered == status
    assert [value for name, value in headers if name == "x-request-id"] == ["mine"]
    assert [value for name, value in headers if name == "x-content-type-options"] == ["nosniff"]
    assert len([value for name, value in headers if name == "content-security-policy"]) == 1


def test_a_policy_keeps_foreign_content_out(team: httpx2.Client) -> None:
    page, value = team.get("/docs"), team.get("/value/dict")

    assert value.headers["content-security-policy"] == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert value.headers["cache-control"] == "no-store"
    assert value.headers["referrer-policy"] == "no-referrer"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "://" not in page.text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("layer", ["X-Based", "X-Pure"])
def test_a_crash_in_a_team_s_middleware_is_told_like_any_other(guarded_server: Server, layer: str) -> None:
    answer = ask(guarded_server, "GET /value/dict HTTP/1.1", f"{layer}: crash", "X-Request-ID: mine")

    assert answer.status == 500
    assert answer.header("x-request-id") == "mine"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.json() == {
        "code": 90001,
        "msg": "Something went wrong on our side",
        "data": {"request_id": "mine"},
    }


def test_a_crash_in_a_team_s_middleware_after_the_route_is_told_too(guarded_server: Server) -> None:
    answer = ask(guarded_server, "GET /value/dict HTTP/1.1", "X-Based: crash-after")

    assert (answer.status, answer.json()["code"]) == (500, 90001)
    assert CANARY.encode() not in answer.body


@pytest.mark.parametrize("layer", ["X-Based", "X-Pure"])
def test_a_team_s_middleware_refuses_like_a_route(guarded_server: Server, layer: str) -> None:
    refused = ask(guarded_server, "GET /value/dict HTTP/1.1", f"{layer}: refuse")
    slowed = ask(guarded_server, "GET /value/dict HTTP/1.1", f"{layer}: http")

    assert (refused.status, refused.json()["code"], refused.json()["data"]) == (403, 30001, {"required": ["a:b"]})
    assert (slowed.status, slowed.json()["msg"], slowed.header("retry-after")) == (429, "Slow down", "7")


def test_an_answer_of_a_team_s_middleware_is_its_own_but_has_an_id(guarded: httpx2.Client) -> None:
    answer = guarded.get("/value/dict", headers={"X-Based": "answer"})

    assert answer.text == "from the middleware"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/value/dict", "/response/json", "/crash/route", "/refuse/business", "/file"])
def test_a_team_s_middleware_sees_each_answer_pass(guarded: httpx2.Client, team: httpx2.Client, path: str) -> None:
    through, plain = guarded.get(path), team.get(path)

    assert (through.headers.get("x-based") == "passed") is (plain.status_code != 500)
    assert through.status_code == plain.status_code
    assert through.headers["content-type"] == plain.headers["content-type"]
    if plain.status_code != 500:
        assert through.content == plain.content


@pytest.mark.parametrize("path", ["/crash/stream", "/crash/lines"])
def test_a_stream_that_breaks_off_below_a_team_s_middleware_is_seen_to(guarded: httpx2.Client, path: str) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        guarded.get(path)


def test_a_body_that_a_team_s_middleware_reads_is_limited_too(guarded_server: Server) -> None:
    chunk = b"%x\r\n%b\r\n" % (KIB * KIB + 1, b"x" * (KIB * KIB + 1))
    lines = ("POST /upload HTTP/1.1", "Transfer-Encoding: chunked", "X-Based: read")

    answer = ask(guarded_server, *lines, body=chunk + b"0\r\n\r\n")

    assert (answer.status, answer.json()["code"]) == (413, 40006)


@pytest.mark.parametrize("path", ["/upload", "/letter/any", "/letter/form", "/value/created", "/no/such/path"])
def test_a_body_over_the_limit_is_refused_by_its_declared_length(strict_server: Server, path: str) -> None:
    body = b"x" * (LIMIT + 1)

    answer = ask(strict_server, f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", body=body)

    assert answer.status == 413
    assert answer.json() == {
        "code": 40006,
        "msg": "The request body is too large",
        "data": {"limit_bytes": LIMIT},
    }


@pytest.mark.parametrize("path", ["/upload", "/letter/any"])
def test_a_body_over_the_limit_is_refused_as_it_comes_in(strict_server: Server, path: str) -> None:
    chunks = b"".join(b"400\r\n%b\r\n" % (b"x" * KIB) for _ in range(3)) + b"0\r\n\r\n"

    lines = (f"POST {path} HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked")
    answer = ask(strict_server, *lines, body=chunks)

    assert (answer.status, answer.json()["data"]) == (413, {"limit_bytes": LIMIT})


def test_a_form_over_the_limit_is_refused_as_it_comes_in(strict_server: Server) -> None:
    chunks = b"405\r\nname=%b\r\n" % (b"x" * KIB) + b"400\r\n%b\r\n" % (b"x" * KIB) + b"0\r\n\r\n"

    lines = ("POST /letter/form HTTP/1.1", "Content-Type: application/x-www-form-urlencoded")
    answer = ask(strict_server, *lines, "Transfer-Encoding: chunked", body=chunks)

    assert (answer.status, answer.json()["code"]) == (413, 40006)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_at_the_limit_is_taken(strict_server: Server, framing: str) -> None:
    body = b"x" * LIMIT
    if framing == "length":
        answer = ask(strict_server, "POST /upload HTTP/1.1", f"Content-Length: {LIMIT}", body=body)
    else:
        chunks = b"800\r\n%b\r\n0\r\n\r\n" % body
        answer = ask(strict_server, "POST /upload HTTP/1.1", "Transfer-Encoding: chunked", body=chunks)

    assert (answer.status, answer.json()["data"]) == (200, LIMIT)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_limit_of_the_route_s_own_is_told_in_the_envelope(team_server: Server, framing: str) -> None:
    body = b'{"a": "%b"}' % (b"x" * 100)
    lines = ["POST /refuse/limited HTTP/1.1", "Content-Type: application/json"]
    if framing == "length":
        answer = ask(team_server, *lines, f"Content-Length: {len(body)}", body=body)
    else:
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = ask(team_server, *lines, "Transfer-Encoding: chunked", body=chunks)

    assert (answer.status, answer.json()["code"], answer.json()["data"]) == (413, 40006, {"limit_bytes": 100})


def test_who_asks_before_sending_too_much_need_not_send_it(strict_server: Server) -> None:
    with connected(strict_server) as wire:
        wire.send("POST /upload HTTP/1.1", "Content-Length: 1000000", "Expect: 100-continue")
        status, _ = wire.head()

    assert status == 413


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-Many-{number}: 1" for number in range(100)],
        [f"X-Long: {'x' * 16 * KIB}"],
        [f"X-Half-{number}: {'x' * 8 * KIB}" for number in range(2)],
        [f"{'X' * 16 * KIB}: 1"],
        [f"Cookie: {'x' * 60 * KIB}"],
    ],
    ids=["many", "long", "together", "long name", "cookie"],
)
def test_headers_beyond_the_limits_are_refused(team_server: Server, headers: list[str]) -> None:
    answer = ask(team_server, "GET /value/dict HTTP/1.1", *headers)

    assert (answer.status, answer.json()["code"]) == (431, 40008)


def test_headers_within_the_limits_are_taken(team_server: Server) -> None:
    answer = ask(team_server, "GET /value/dict HTTP/1.1", *(f"X-{number}: {'x' * 150}" for number in range(99)))

    assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "localhost:x"],
)
def test_a_foreign_host_is_refused(team_server: Server, host: str) -> None:
    answer = ask(team_server, "GET /value/dict HTTP/1.1", host=host)

    assert (answer.status, answer.json()["code"]) == (400, 40007)


def test_a_missing_or_a_second_host_is_refused(team_server: Server) -> None:
    missing = ask(team_server, "GET /value/dict HTTP/1.1", host=None)
    twice = ask(team_server, "GET /value/dict HTTP/1.1", "Host: 127.0.0.1")

    assert (missing.status, missing.json()["code"]) == (400, 40007)
    assert (twice.status, twice.json()["code"]) == (400, 40007)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000"])
def test_an_own_host_is_answered(team_server: Server, host: str) -> None:
    assert ask(team_server, "GET /value/dict HTTP/1.1", host=host).status == 200


FORWARDED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}


def test_forwarded_headers_count_from_nobody_by_default_loopback_included(team: httpx2.Client) -> None:
    seen = team.get("/seen", headers=FORWARDED).json()["data"]

    assert seen == {"client": "127.0.0.1", "scheme": "http", "host": "127.0.0.1"}


def test_a_server_that_believes_loopback_by_default_changes_nothing_either() -> None:
    # What `uvicorn src.main:app` does when it is started without our command line.
    with running_server({}, TEAM, args=["--proxy-headers"]) as server:
        seen = ask(server, "GET /seen HTTP/1.1", *(f"{name}: {value}" for name, value in FORWARDED.items()))

    assert seen.json()["data"] == {"client": "127.0.0.1", "scheme": "http", "host": "127.0.0.1"}


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("2001:db9::1, 2001:db8::1", "2001:db9::1"),
        ("10.1.2.3", "10.1.2.3"),
        ("6.6.6.6, not an address", "127.0.0.1"),
        ("6.6.6.6, not an address, 10.1.2.3", "10.1.2.3"),
        ("", "127.0.0.1"),
    ],
)
def test_forwarded_headers_count_from_trusted_proxies_up_to_the_first_stranger(
    proxied_server: Server, forwarded_for: str, client: str
) -> None:
    headers = ("X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example", f"X-Forwarded-For: {forwarded_for}")

    seen = ask(proxied_server, "GET /seen HTTP/1.1", *headers).json()["data"]

    assert seen == {"client": client, "scheme": "https", "host": "127.0.0.1"}


def test_a_forwarded_protocol_that_is_none_changes_nothing(proxied_server: Server) -> None:
    seen = ask(proxied_server, "GET /seen HTTP/1.1", "X-Forwarded-Proto: javascript").json()["data"]

    assert seen["scheme"] == "http"


@pytest.mark.parametrize("path", ["/never", "/never/plain-def/deadline"])
def test_a_request_past_its_deadline_is_answered(strict_server: Server, path: str) -> None:
    answer = ask(strict_server, f"GET {path} HTTP/1.1")
    if "plain-def" in path:
        ask(strict_server, "POST /unblock/deadline HTTP/1.1", "Content-Length: 0")

    assert (answer.status, answer.json()["code"]) == (503, 90003)
    assert answer.header("retry-after") == "1"


def test_a_body_that_does_not_come_ends_at_the_deadline(strict_server: Server) -> None:
    with connected(strict_server) as wire:
        wire.send("POST /upload HTTP/1.1", "Content-Length: 10", body=b"12345")
        answer = wire.answer()

    assert (answer.status, answer.json()["code"]) == (503, 90003)


@pytest.mark.parametrize("kind", ["json", "lines", "events"])
def test_a_stream_outlives_the_deadline(strict_server: Server, kind: str) -> None:
    with connected(strict_server) as stream:
        stream.send(f"GET /stream/{kind}/{kind}-outlives HTTP/1.1")
        stream.head()
        chunks = iter(stream.chunks())
        next(chunks)
        # A request that began later has met its deadline, so the stream is past its own.
        assert ask(strict_server, "GET /never HTTP/1.1").status == 503
        ask(strict_server, f"POST /release/{kind}-outlives HTTP/1.1", "Content-Length: 0")
        rest = b"".join(chunks)
        still_good(stream)

    assert b'"last"' in rest


def test_a_request_beyond_the_limit_of_requests_is_refused(narrow_server: Server) -> None:
    with connected(narrow_server) as first, connected(narrow_server) as second:
        first.send("POST /upload HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")
        assert first.head()[0] == 100  # the route waits for the body now
        second.send("GET /value/dict HTTP/1.1")
        refused = second.answer()
        first.write(b"12345")
        accepted = first.answer()
        still_good(second)

    assert (refused.status, refused.json()["code"]) == (503, 90002)
    assert refused.header("retry-after") == "1"
    assert (accepted.status, accepted.json()["data"]) == (200, 5)

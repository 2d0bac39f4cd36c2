"""Whatever goes wrong is told in the envelope, and no more of it than the caller may know."""

import json
import re
from pathlib import Path

import httpx2
import pytest
from _pytest.mark import ParameterSet

from tests.http.apps.refusals import CANARY
from tests.http.wire import BrokenOffError, connected
from tests.support.server import PROJECT, Server
from tests.support.waiting import eventually

CORPUS = PROJECT.parent / "shared" / "corpora" / "jsontestsuite" / "test_parsing"
PROBLEM = "application/problem+json"


def errors_of(answer: httpx2.Response) -> dict[str, str]:
    """field → type, after a look at the rest of the answer."""
    assert answer.status_code == 422, answer.text
    body = answer.json()
    assert (body["code"], body["msg"]) == (40001, "The request is not valid")
    assert set(body["data"]) == {"errors"}
    assert all(set(error) == {"field", "message", "type"} for error in body["data"]["errors"])
    return {error["field"]: error["type"] for error in body["data"]["errors"]}


def test_a_refusal_has_its_status_its_sentence_and_its_facts(team: httpx2.Client) -> None:
    answer = team.get("/refuse/business")

    assert answer.status_code == 409
    assert answer.json() == {
        "code": 50101,
        "msg": "Only 3 items available",
        "data": {"available": 3, "price": "1.10"},
    }


def test_a_refusal_without_a_sentence_has_that_of_its_code(team: httpx2.Client) -> None:
    answer = team.get("/refuse/business-default")

    assert (answer.status_code, answer.json()) == (404, {"code": 50102, "msg": "No such product", "data": None})


def test_a_refused_log_in_says_how_to_log_in(team: httpx2.Client) -> None:
    answer = team.get("/refuse/business-login")

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_dependency_refuses_like_a_route(team: httpx2.Client) -> None:
    answer = team.get("/refuse/by-dependency")

    assert (answer.status_code, answer.json()["code"]) == (403, 30001)
    assert answer.json()["data"] == {"required": ["a:b"]}


def test_a_refusal_with_half_a_character_in_it_is_still_told(team: httpx2.Client) -> None:
    answer = team.get("/refuse/business-odd")

    assert answer.status_code == 404
    assert json.loads(answer.text) == {
        "code": 50102,
        "msg": "half a \ud83d pair",
        "data": {"name": "\udc00", "kinds": "{1}"},
    }


def test_an_http_exception_keeps_its_status_and_headers(team: httpx2.Client) -> None:
    answer = team.get("/refuse/http")

    assert (answer.status_code, answer.json()) == (429, {"code": 429, "msg": "Slow down", "data": None})
    assert (answer.headers["retry-after"], answer.headers["x-custom"]) == ("7", "kept")


def test_an_http_exception_keeps_its_own_challenge(team: httpx2.Client) -> None:
    answer = team.get("/refuse/http-unauthorized")

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="x"')
    assert answer.json() == {"code": 401, "msg": "Unauthorized", "data": None}


def test_a_structured_detail_is_data(team: httpx2.Client) -> None:
    listed, mapped = team.get("/refuse/http-structured"), team.get("/refuse/http-dict")

    assert (listed.status_code, mapped.status_code) == (409, 400)
    assert listed.json() == {"code": 409, "msg": "Conflict", "data": [{"line": 1}, {"line": 2}]}
    facts = {"reason": "odd", "price": "1.10", "big": 2**60 + 1}
    assert mapped.json() == {"code": 400, "msg": "Bad Request", "data": facts}


def test_a_status_that_we_use_ourselves_is_the_route_s_own_when_it_raises_it(team: httpx2.Client) -> None:
    answer = team.get("/refuse/http-too-large")

    assert answer.json() == {"code": 413, "msg": "The picture is too large", "data": None}
    assert answer.headers["x-custom"] == "kept"


@pytest.mark.parametrize("status", [204, 304])
def test_an_http_exception_of_a_status_without_a_body_has_none(team_server: Server, status: int) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET /refuse/http-status/{status} HTTP/1.1")
        refused = wire.answer()
        wire.send("GET /value/dict HTTP/1.1")
        following = wire.answer()

    assert (refused.status, refused.body) == (status, b"")
    assert following.status == 200


def test_an_unknown_path_is_told_in_the_envelope(team: httpx2.Client) -> None:
    answer = team.get("/no/such/path")

    assert (answer.status_code, answer.json()) == (404, {"code": 404, "msg": "Not Found", "data": None})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/refuse/http", "GET, PUT"),
        ("POST", "/direct", "GET"),
        ("PATCH", "/v1/outer/inner/3", "GET"),
        ("DELETE", "/endpoint/methods", "GET, POST"),
        ("PUT", "/api/v1/profile", "GET, PATCH"),
        ("GET", "/refuse/http-allow", "MELT"),
    ],
)
def test_a_wrong_method_is_told_which_ones_there_are(team: httpx2.Client, method: str, path: str, allowed: str) -> None:
    answer = team.request(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"code": 405, "msg": "Method Not Allowed", "data": None}


@pytest.mark.parametrize(
    ("path", "body", "errors"),
    [
        ("/letter/order", {}, {"user": "missing"}),
        ("/letter/order", {"user": {}}, {"user.email": "missing"}),
        ("/letter/order", {"user": {"email": CANARY}}, {"user.email": "string_pattern_mismatch"}),
        (
            "/letter/order",
            {"user": {"email": "a@b", "age": -1, "colour": CANARY, "address": {"city": 1, "lines": [1, CANARY]}}},
            {
                "user.age": "greater_than_equal",
                "user.colour": "enum",
                "user.address.city": "string_type",
                "user.address.lines.1": "int_parsing",
            },
        ),
        ("/letter/order", {"user": {"email": "a@b", "admin": CANARY}}, {"user.admin": "extra_forbidden"}),
        ("/letter/order", [CANARY], {"body": "model_attributes_type"}),
        ("/letter/order", CANARY, {"body": "model_attributes_type"}),
        ("/letter/numbers", [1, CANARY, 3], {"1": "int_parsing"}),
        ("/letter/users", [{"email": "a@b"}, {"email": CANARY}], {"1.email": "string_pattern_mismatch"}),
        ("/refuse/by-validator", {"name": CANARY}, {"name": "value_error"}),
        ("/refuse/by-model-validator", {"first": "one", "second": CANARY}, {"body": "value_error"}),
    ],
)
def test_an_invalid_letter_names_its_fields_and_echoes_nothing(
    team: httpx2.Client, path: str, body: object, errors: dict[str, str]
) -> None:
    answer = team.post(path, json=body)

    assert errors_of(answer) == errors
    assert CANARY not in answer.text


def test_an_invalid_parameter_is_named_with_its_place(team: httpx2.Client) -> None:
    answer = team.get(
        f"/letter/parameters/{CANARY}",
        params={"page": "0"},
        headers={"X-Token": CANARY, "Cookie": f"session={CANARY}"},
    )

    assert errors_of(answer) == {
        "path.number": "int_parsing",
        "query.page": "greater_than_equal",
        "header.x-token": "int_parsing",
        "cookie.session": "int_parsing",
    }
    assert CANARY not in answer.text


@pytest.mark.parametrize(
    ("path", "errors"),
    [
        ("/value/dict?unknown=1", {"query.unknown": "extra_forbidden"}),
        ("/letter/parameters/1?page=1&page=2", {"query.page": "repeated"}),
        ("/letter/parameters/1?pag=1", {"query.pag": "extra_forbidden"}),
        ("/query/filters?colour=red&colour=red", {"query.colour": "repeated"}),
        ("/query/filters?color=red", {"query.color": "extra_forbidden"}),
        ("/query/lists?q=1&q=2", {"query.q": "repeated"}),
        ("/page?page=1&page=2", {"query.page": "repeated"}),
        ("/page?limit=5", {"query.limit": "extra_forbidden"}),
        ("/standard?unknown=1", {"query.unknown": "extra_forbidden"}),
        ("/html?unknown", {"query.unknown": "extra_forbidden"}),
        ("/health/live?unknown=", {"query.unknown": "extra_forbidden"}),
    ],
)
def test_an_unknown_or_repeated_query_parameter_is_refused(
    team: httpx2.Client, path: str, errors: dict[str, str]
) -> None:
    assert errors_of(team.get(path)) == errors


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/query/lists?tag=a&tag=b&id=1&id=2&q=x", {"tag": ["a", "b"], "ids": [1, 2], "text": "x"}),
        ("/query/filters?size=1&size=2&colour=red", {"colour": "red", "size": [1, 2]}),
        ("/endpoint/request?any=1&thing=2", {"any": "1", "thing": "2"}),
        ("/query/by-dependency?any=1", {"any": "1"}),
        ("/query/key?api_key=secret", "secret"),
    ],
)
def test_lists_may_repeat_and_who_reads_the_query_itself_gets_all_of_it(
    team: httpx2.Client, path: str, data: object
) -> None:
    answer = team.get(path)

    assert (answer.status_code, answer.json()["data"]) == (200, data)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Expecting property name enclosed in double quotes"),
        (b"[1,]", None),
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "duplicate key"),
        (b"[NaN]", "NaN and Infinity are not JSON"),
        (b"[-Infinity]", "NaN and Infinity are not JSON"),
        (b"[1e400]", "number too large"),
        (b"[" + b"9" * 5000 + b"]", "number too large"),
        (b'["\\ud800"]', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (b'["\\ud83d \\ude00"]', "lone surrogate"),
        (b'["\xff"]', "not UTF-8"),
        (b"\xef\xbb\xbf[]", None),
        (b"[" * 300 + b"]" * 300, "nested too deep"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deep"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(
    team: httpx2.Client, body: bytes, reason: str | None
) -> None:
    answer = team.post("/letter/any", content=body, headers={"Content-Type": "application/json"})

    assert errors_of(answer) == {"body": "json_invalid"}
    if reason is not None:
        assert answer.json()["data"]["errors"][0]["message"] == f"JSON decode error: {reason}"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"a": 1}, "b": {"a": 2}}',
        '["\\ud83d\\ude00 😀"]',
        "[" * 199 + "]" * 199,
        "[" + "[]," * 500 + "[]]",
        f"[{2**64}, -0.0, 1e300]",
        " null",
    ],
)
def test_json_that_all_read_alike_comes_back_as_it_was(team: httpx2.Client, text: str) -> None:
    answer = team.post("/letter/any", content=text.encode(), headers={"Content-Type": "application/json"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == json.loads(text)


def _corpus(kind: str) -> list[ParameterSet]:
    # Published beside the project, not in it.
    files = sorted(CORPUS.glob(f"{kind}_*.json")) if CORPUS.exists() else []
    return [pytest.param(file, id=file.stem) for file in files]


@pytest.mark.parametrize("file", _corpus("n"))
def test_json_that_is_none_is_refused(team: httpx2.Client, file: Path) -> None:
    answer = team.post("/letter/any", content=file.read_bytes(), headers={"Content-Type": "application/json"})

    assert errors_of(answer)


@pytest.mark.parametrize("file", _corpus("y"))
def test_json_that_is_one_is_taken_as_it_is(team: httpx2.Client, file: Path) -> None:
    answer = team.post("/letter/any", content=file.read_bytes(), headers={"Content-Type": "application/json"})

    if "duplicated_key" in file.stem:
        assert errors_of(answer) == {"body": "json_invalid"}  # RFC 8259 §4 lets it be; two readers differ over it
    else:
        assert (answer.status_code, answer.json()["data"]) == (200, json.loads(file.read_bytes()))


@pytest.mark.parametrize("file", _corpus("i"))
def test_json_that_readers_differ_over_is_never_a_crash(team: httpx2.Client, file: Path) -> None:
    answer = team.post("/letter/any", content=file.read_bytes(), headers={"Content-Type": "application/json"})

    assert answer.status_code in (200, 422)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "not a type at all", ""])
def test_a_letter_in_another_format_is_refused(team: httpx2.Client, kind: str) -> None:
    body = json.dumps({"user": {"email": "a@b"}}).encode()

    assert errors_of(team.post("/letter/order", content=body, headers={"Content-Type": kind}))


def test_a_missing_body_is_refused(team: httpx2.Client) -> None:
    assert errors_of(team.post("/letter/order")) == {"body": "missing"}


def test_a_form_that_cannot_be_read_is_refused(team: httpx2.Client) -> None:
    answer = team.post("/letter/form", content=b"no boundary", headers={"Content-Type": "multipart/form-data"})

    assert (answer.status_code, answer.json()["code"]) == (400, 400)


CRASHES = [
    "/crash/route",
    "/crash/plain-def",
    "/crash/dependency",
    "/crash/exit-before-answer",
    "/crash/unserialisable",
    "/crash/response-model",
    "/crash/response-model-explicit",
]


@pytest.mark.parametrize("path", CRASHES)
def test_a_crash_tells_its_id_and_nothing_else_and_the_connection_goes_on(team_server: Server, path: str) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET {path} HTTP/1.1")
        crashed = wire.answer()
        wire.send("GET /value/dict HTTP/1.1")
        following = wire.answer()

    request_id = crashed.header("x-request-id")
    assert crashed.status == 500
    assert crashed.json() == {
        "code": 90001,
        "msg": "Something went wrong on our side",
        "data": {"request_id": request_id},
    }
    assert re.fullmatch(r"[0-9a-f]{32}", request_id or "")
    assert crashed.header("connection") is None
    assert not re.search(rb"(?i)canary|mechanism|traceback|valid", crashed.body)
    assert following.status == 200


async def test_the_log_has_a_crash_under_its_id(team: httpx2.Client, team_server: Server) -> None:
    team.get("/crash/route", headers={"X-Request-ID": "to-be-found-7"})

    async def found() -> bool:
        return re.search(r"Unhandled exception.*to-be-found-7", team_server.output()) is not None

    await eventually(found)


@pytest.mark.parametrize("path", ["/crash/response-column", "/crash/stream-column"])
async def test_the_log_does_not_have_the_row_that_did_not_fit_its_model(team_server: Server, path: str) -> None:
    request_id = f"misfit{path.replace('/', '-')}"
    with connected(team_server) as wire:
        wire.send(f"GET {path} HTTP/1.1", f"X-Request-ID: {request_id}")
        wire.head()

    async def found() -> bool:
        return f"request_id={request_id}" in team_server.output()

    await eventually(found)
    assert "ResponseValidationError" in team_server.output()
    assert f"{CANARY}-column" not in team_server.output()


@pytest.mark.parametrize("path", ["/crash/background", "/crash/background-of-response", "/crash/exit-after-answer"])
def test_a_crash_after_the_answer_leaves_the_answer_and_the_connection(team_server: Server, path: str) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET {path} HTTP/1.1")
        answered = wire.answer()
        wire.send("GET /value/dict HTTP/1.1")
        following = wire.answer()

    assert (answered.status, answered.json()["code"]) == (200, 200)
    assert following.json()["data"] == {"id": 1}


@pytest.mark.parametrize(
    ("path", "received"),
    [
        ("/crash/stream", b'{"first": 1, '),
        ("/crash/sized-stream", b'{"first": 1, '),
        ("/crash/lines", b'{"id":1}\n'),
        ("/crash/lines-refused", b'{"id":1}\n'),
    ],
)
def test_a_stream_that_breaks_off_is_seen_to_break_off(team_server: Server, path: str, received: bytes) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET {path} HTTP/1.1")
        status, headers = wire.head()
        parts = iter([wire.read(len(received))]) if "content-length" in dict(headers) else iter(wire.chunks())
        first = next(parts)
        with pytest.raises(BrokenOffError) as broken:
            next(parts, None) or wire.read(1)

    assert (status, first) == (200, received)
    assert broken.value.received == b""


@pytest.mark.parametrize(
    "accept",
    [
        PROBLEM,
        "Application/Problem+JSON",
        f"application/json, {PROBLEM}",
        f"{PROBLEM};q=0.8, application/json;q=0.5",
        f"text/html, {PROBLEM}, */*;q=0.1",
    ],
)
def test_who_asks_for_a_problem_gets_one_with_the_same_code_and_data(team: httpx2.Client, accept: str) -> None:
    answer = team.get("/refuse/business", headers={"Accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert answer.json() == {
        "type": "urn:undercroft:error:50101",
        "title": "PRODUCT_OUT_OF_STOCK",
        "status": 409,
        "detail": "Only 3 items available",
        "instance": f"urn:request:{answer.headers['x-request-id']}",
        "code": 50101,
        "data": {"available": 3, "price": "1.10"},
    }


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/*",
        "application/json",
        "",
        f"{PROBLEM};q=0",
        f"{PROBLEM};q=0.0, */*",
        f"{PROBLEM};q=0.5, application/json",
        f"{PROBLEM};q=0.5, */*",
        f"x{PROBLEM}",
    ],
)
def test_who_does_not_ask_for_a_problem_gets_the_envelope(team: httpx2.Client, accept: str) -> None:
    answer = team.get("/refuse/business", headers={"Accept": accept})

    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"code", "msg", "data"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code", "title"),
    [
        ("GET", "/no/such/path", {}, 404, 404, "Not Found"),
        ("DELETE", "/direct", {}, 405, 405, "Method Not Allowed"),
        ("POST", "/letter/order", {}, 422, 40001, "INVALID_REQUEST"),
        ("GET", "/crash/route", {}, 500, 90001, "INTERNAL_ERROR"),
        ("POST", "/letter/any", {"Content-Length": "2000000"}, 413, 40006, "BODY_TOO_LARGE"),
        ("GET", "/direct", {"Host": "evil.example"}, 400, 40007, "HOST_NOT_ALLOWED"),
    ],
)
def test_each_kind_of_error_can_be_a_problem(  # noqa: PLR0913, PLR0917 - a row of a table
    team_server: Server, method: str, path: str, headers: dict[str, str], status: int, code: int, title: str
) -> None:
    with connected(team_server) as wire:
        host = headers.pop("Host", "127.0.0.1")
        wire.send(f"{method} {path} HTTP/1.1", f"Accept: {PROBLEM}", *map(": ".join, headers.items()), host=host)
        answer = wire.answer()

    problem = answer.json()
    assert (answer.status, answer.header("content-type")) == (status, PROBLEM)
    assert (problem["status"], problem["code"], problem["title"]) == (status, code, title)
    assert {"type", "detail", "instance", "data"} <= problem.keys()


def test_a_success_is_never_a_problem(team: httpx2.Client) -> None:
    answer = team.get("/value/dict", headers={"Accept": PROBLEM})

    assert answer.json() == {"code": 200, "msg": "success", "data": {"id": 1}}

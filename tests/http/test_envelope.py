"""What routes return leaves as `{code, msg, data}`, once serialised; what is not a value leaves as it is."""

import json
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.http.apps.letters import MANY_DIGITS
from tests.http.apps.streams import DOCUMENT
from tests.http.conftest import TEAM, client_of
from tests.http.wire import connected
from tests.support.server import Server, running_server

LAMP = {"id": 1, "name": "Lamp"}
ALIASED = {"itemId": 1, "note": "none", "secret": "hidden"}


def enveloped(data: Any, code: int = 200, msg: str = "success") -> dict[str, Any]:
    return {"code": code, "msg": msg, "data": data}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/value/dict", {"id": 1}),
        ("/value/list", [{"id": 1}]),
        ("/value/none", None),
        ("/value/false", False),
        ("/value/text", 'a "text" - with ünïcode \u2028'),
        ("/value/model", LAMP),
        ("/direct", {"id": 1}),
        ("/stamped/value", LAMP),
        ("/v1/outer/inner/3", {"id": 3, "name": "none"}),
        ("/v2/outer/inner/3", {"id": 3, "name": "none"}),
        ("/endpoint/instance?step=2", {"step": 2}),
        ("/endpoint/plain-instance?step=2", {"step": 2}),
        ("/endpoint/partial?number=3", {"product": 6}),
        ("/endpoint/plain-partial?number=3", {"product": 6}),
        ("/endpoint/decorated?by=3&number=3", {"product": 9}),
        ("/endpoint/request?any=thing", {"any": "thing"}),
        ("/endpoint/methods", {"method": "GET"}),
    ],
)
def test_what_a_route_returns_is_the_data_of_an_envelope(team: httpx2.Client, path: str, data: object) -> None:
    answer = team.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == enveloped(data)


def test_a_dict_that_looks_like_an_envelope_is_data(team: httpx2.Client) -> None:
    assert team.get("/value/lookalike").json() == enveloped({"code": 7, "msg": "mine", "data": "payload"})


def test_the_status_of_the_route_is_the_code(team: httpx2.Client) -> None:
    answer = team.post("/value/created")

    assert (answer.status_code, answer.json()) == (201, enveloped({"id": 1}, 201))


def test_a_route_class_of_the_team_keeps_working_below_the_envelope(team: httpx2.Client) -> None:
    value, explicit, own = team.get("/stamped/value"), team.get("/stamped/twice"), team.get("/stamped/value?teapot=1")

    assert value.headers["x-stamp"] == "stamped"
    assert (explicit.status_code, explicit.json()) == (201, enveloped({"id": 1}, 201, "Created"))
    assert (own.status_code, own.json()) == (418, enveloped({"tea": True}, 418, "I'm a Teapot"))


@pytest.mark.parametrize("path", ["/value/filtered", "/explicit/filtered", "/explicit/annotated"])
def test_a_column_that_the_model_leaves_out_does_not_escape(team: httpx2.Client, path: str) -> None:
    answer = team.get(path)

    assert answer.json() == enveloped(LAMP)
    assert "canary" not in answer.text


@pytest.mark.parametrize("path", ["/explicit/annotated-value", "/explicit/annotated-union"])
def test_the_type_in_the_annotated_envelope_is_the_response_model(team: httpx2.Client, path: str) -> None:
    assert team.get(path).json() == enveloped(LAMP)


def test_each_item_of_an_explicit_list_passes_the_model(team: httpx2.Client) -> None:
    assert team.get("/explicit/filtered-list").json() == enveloped([LAMP, LAMP])


@pytest.mark.parametrize("path", ["/page", "/explicit/page", "/explicit/annotated-page"])
def test_a_page_is_data_whichever_way_it_is_returned(team: httpx2.Client, path: str) -> None:
    answer = team.get(path, params={"page": 2, "size": 2})

    items = [{"id": 2, "name": "Lamp"}]
    assert answer.json() == enveloped({"items": items, "total": 3, "page": 2, "size": 2, "pages": 2})


@pytest.mark.parametrize("path", ["/page", "/explicit/annotated-page"])
def test_a_page_has_at_most_a_hundred_items(team: httpx2.Client, path: str) -> None:
    assert team.get(path, params={"size": 101}).status_code == 422


@pytest.mark.parametrize("code", [200, 201, 202, 299])
def test_an_explicit_code_of_success_is_the_status(team: httpx2.Client, code: int) -> None:
    answer = team.get("/explicit/code", params={"code": code})

    assert (answer.status_code, answer.json()) == (code, enveloped({"id": 1}, code, "Created"))


@pytest.mark.parametrize("code", [0, 199, 300, 404, 70001])
def test_an_explicit_code_of_no_success_leaves_the_status_alone(team: httpx2.Client, code: int) -> None:
    answer = team.get("/explicit/code", params={"code": code})

    assert (answer.status_code, answer.json()) == (200, enveloped({"id": 1}, code, "Created"))


def test_an_explicit_success_in_a_plain_function_works_too(team: httpx2.Client) -> None:
    answer = team.get("/explicit/plain-def")

    assert (answer.status_code, answer.json()) == (202, enveloped(1, 202))


def test_a_message_of_any_characters_is_kept(team: httpx2.Client) -> None:
    assert team.get("/explicit/message").json() == enveloped([], msg='Wörd "quoted"')


def test_a_returned_error_has_its_status_its_data_and_what_the_route_set(team: httpx2.Client) -> None:
    answer = team.get("/explicit/error")

    assert answer.status_code == 409
    assert answer.json() == enveloped({"available": 3}, 50101, "Only 3 items available")
    assert answer.headers["x-custom"] == "kept"
    assert answer.cookies["seen"] == "1"


def test_a_returned_error_without_words_has_those_of_its_code(team: httpx2.Client) -> None:
    answer = team.get("/explicit/error-default")

    assert (answer.status_code, answer.json()) == (404, enveloped(None, 50102, "No such product"))


def test_a_json_response_keeps_its_status_its_headers_and_every_cookie(team: httpx2.Client) -> None:
    answer = team.get("/response/json")

    assert (answer.status_code, answer.json()) == (201, enveloped({"id": 1}, 201))
    assert answer.headers["x-custom"] == "kept"
    assert [cookie.partition(";")[0] for cookie in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]


def test_a_json_response_with_an_error_status_says_so(team: httpx2.Client) -> None:
    answer = team.get("/response/json-error")

    assert (answer.status_code, answer.json()) == (418, enveloped({"reason": "teapot"}, 418, "I'm a Teapot"))


@pytest.mark.parametrize("path", ["/response/json-subclass", "/response/class"])
def test_a_response_class_for_json_keeps_its_rendering_inside_the_envelope(team: httpx2.Client, path: str) -> None:
    assert team.get(path).text == '{"code":200,"msg":"success","data":  {"id":1}}'


def test_finished_json_is_spliced_in_and_not_read_again(team: httpx2.Client) -> None:
    assert team.get("/response/bytes").text == '{"code":200,"msg":"success","data":{"price": 1.10}}'


@pytest.mark.parametrize(("path", "status"), [("/response/injected", 203), ("/response/injected-by-dependency", 202)])
def test_what_is_set_on_the_injected_response_counts(team: httpx2.Client, path: str, status: int) -> None:
    answer = team.get(path)

    assert (answer.status_code, answer.json()) == (status, enveloped({"id": 1}, status))
    if status == 203:
        assert answer.headers["x-custom"] == "kept"
        assert [cookie.partition(";")[0] for cookie in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]
    else:
        assert answer.headers["x-dependency"] == "kept"


@pytest.mark.parametrize("path", ["/exotic/bare", "/exotic/plain-def", "/exotic/explicit"])
def test_values_of_all_kinds_keep_what_they_say(team: httpx2.Client, path: str) -> None:
    data = team.get(path).json()["data"]

    assert data == {
        "price": "1.10",
        "digits": str(MANY_DIGITS),
        "big": 2**60 + 1,
        "huge": 10**40,
        "nan": None,
        "infinity": None,
        "when": "2026-01-02T03:04:05.678901Z",
        "local": "2026-01-02T03:04:00+05:45",
        "set": [1],
        "frozen": ["a"],
        "tuple": [1, 2],
        "point": {"x": 1, "y": "2.50"},
        "colour": "red",
        "aliased": ALIASED,
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bytes": "abc",
        "generator": [0, 1],
        "mapping": {"total": "3.30"},
        "object": {"id": 1, "price": "4.40"},
        "1": "an int key",
    }


@pytest.mark.parametrize("path", ["/exotic/model", "/response/class-json"])
def test_no_digit_of_a_decimal_is_lost_through_a_model_or_a_response_class(team: httpx2.Client, path: str) -> None:
    data = team.get(path).json(parse_float=Decimal)["data"]

    assert data["price"] == "1.10"
    assert data["ratio"] is None
    assert data.get("digits", str(MANY_DIGITS)) == str(MANY_DIGITS)
    assert data.get("big", 2**60 + 1) == 2**60 + 1


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/alias/default", ALIASED),
        ("/alias/by-name", {"item_id": 1, "note": "none", "secret": "hidden"}),
        ("/alias/unset", {"itemId": 1}),
        ("/alias/include", {"note": "none"}),
        ("/alias/exclude", {"itemId": 1, "note": "none"}),
    ],
)
def test_the_options_of_a_response_model_hold_inside_the_envelope(
    team: httpx2.Client, path: str, data: dict[str, object]
) -> None:
    assert team.get(path).json() == enveloped(data)


@pytest.mark.parametrize(
    "path", ["/none/204", "/none/explicit-204", "/none/injected-204", "/none/json-204", "/none/205", "/none/304"]
)
def test_an_answer_without_a_body_stays_without(team_server: Server, path: str) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET {path} HTTP/1.1")
        answer = wire.answer()
        wire.send("GET /value/dict HTTP/1.1")
        following = wire.answer()

    assert answer.status == int(path[-3:])
    assert answer.body == b""
    assert answer.header("content-type") is None
    assert following.json() == enveloped({"id": 1})


def test_an_etag_survives_not_modified(team: httpx2.Client) -> None:
    assert team.get("/none/304").headers["etag"] == '"3"'


def test_head_has_no_body_and_the_connection_goes_on(team_server: Server) -> None:
    with connected(team_server) as wire:
        wire.send("HEAD /head HTTP/1.1")
        status, headers = wire.head()
        wire.send("GET /value/dict HTTP/1.1")
        following = wire.answer()

    assert status == 200
    assert ("content-type", "application/json") in headers
    assert following.json() == enveloped({"id": 1})


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/redirect", 307, "/value/dict"),
        ("/redirect/class", 303, "/value/dict"),
        ("/redirect/json", 302, "/value/dict"),
    ],
)
def test_a_redirect_is_left_alone(team: httpx2.Client, path: str, status: int, location: str) -> None:
    answer = team.get(path)

    assert (answer.status_code, answer.headers["location"]) == (status, location)
    assert b'"code"' not in answer.content


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/html", "text/html; charset=utf-8", b"<p>hello</p>"),
        ("/response/class-html", "text/html; charset=utf-8", b"<p>hello</p>"),
        ("/text", "text/plain; charset=utf-8", b'{"looks": "like json"}'),
        ("/file", "application/json", DOCUMENT),
        ("/file/inline", "application/json", DOCUMENT),
        ("/response/download", "application/json", b'{"id":1}'),
        ("/response/part", "application/json", b"[1,2]"),
        ("/response/compressed", "application/json", b'{"id":1}'),
        ("/response/vendor", "application/geo+json", b'{"type":"Feature"}'),
        ("/standard", "application/json", b'{"access_token":"x"}'),
        ("/standard/plain-def", "application/json", b'{"access_token":"x"}'),
        ("/endpoint/unwrapped", "application/json", b'{"access_token":"x"}'),
        ("/mounted/fastapi/value", "application/json", b'{"plain":true}'),
        ("/mounted/starlette/value", "application/json", b'{"plain":true}'),
        ("/mounted/fastapi/unknown", "application/json", b'{"detail":"Not Found"}'),
        ("/mounted/starlette/unknown", "text/plain; charset=utf-8", b"Not Found"),
        ("/stream/plain-lines", "application/jsonl", b'{"first":1}\n{"last":2}\n'),
    ],
)
def test_what_is_not_a_value_leaves_byte_for_byte(team: httpx2.Client, path: str, kind: str, body: bytes) -> None:
    answer = team.get(path)

    assert answer.headers["content-type"] == kind
    assert answer.content == body
    assert answer.headers["x-request-id"]


def test_a_part_of_a_json_file_is_that_part(team: httpx2.Client) -> None:
    answer = team.get("/file", headers={"Range": "bytes=10-19"})

    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes 10-19/{len(DOCUMENT)}"
    assert answer.content == DOCUMENT[10:20]


def test_several_parts_of_a_json_file_are_those_parts(team: httpx2.Client) -> None:
    answer = team.get("/file", headers={"Range": "bytes=0-1,10-19"})

    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert DOCUMENT[10:20] in answer.content


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("json", b'{"first": 1, ', b'"last": 2}'),
        ("generator", b'{"first": 1, ', b'"last": 2}'),
        ("lines", b'{"first":1}\n', b'{"last":2}\n'),
        ("events", b'event: tick\ndata: {"first": 1}\nid: 1\n\n', b'data: {"last": 2}\n\n'),
    ],
)
def test_the_first_byte_of_a_stream_leaves_before_the_last_is_written(
    team: httpx2.Client, team_server: Server, kind: str, first: bytes, last: bytes
) -> None:
    with connected(team_server) as wire:
        wire.send(f"GET /stream/{kind}/{kind}-in-time HTTP/1.1")
        head = dict(wire.head()[1])
        chunks = iter(wire.chunks())
        started_with = next(chunks)
        # Only now may the stream write its second half: it waits for this, so the first cannot have waited for it.
        team.post(f"/release/{kind}-in-time").raise_for_status()
        rest = b"".join(chunks)

    assert started_with == first
    assert rest == last
    assert "content-length" not in head
    assert head["x-request-id"]


def test_root_path_changes_no_route_and_no_opt_out() -> None:
    with running_server({}, TEAM, args=["--root-path", "/behind"]) as server, client_of(server) as client:
        value = client.get("/value/dict").json()
        standard = client.get("/standard")
        mounted = client.get("/mounted/fastapi/value")
        schema = client.get("/openapi.json").json()
        page = client.get("/docs")

    assert value == enveloped({"id": 1})
    assert standard.content == b'{"access_token":"x"}'
    assert mounted.content == b'{"plain":true}'
    assert schema["servers"] == [{"url": "/behind"}]
    assert '"/behind/docs/assets/swagger-ui.css"' in page.text
    assert 'data-openapi-url="/behind/openapi.json"' in page.text


def test_root_path_by_setting_is_the_same() -> None:
    with running_server({"HTTP__ROOT_PATH": "/behind"}, TEAM) as server, client_of(server) as client:
        value, standard = client.get("/behind/value/dict"), client.get("/standard")
        schema = client.get("/openapi.json").json()

    assert value.json() == enveloped({"id": 1})
    assert standard.content == b'{"access_token":"x"}'
    assert schema["servers"] == [{"url": "/behind"}]


def test_a_socket_speaks_for_itself(team_server: Server) -> None:
    with connect(f"ws://127.0.0.1:{team_server.port}/socket") as socket:
        socket.send('{"id": 1}')
        answer = json.loads(socket.recv(timeout=10))

    assert answer == {"echo": {"id": 1}}


def test_a_socket_at_a_foreign_host_is_refused(team_server: Server) -> None:
    headers = {"Host": "evil.example"}

    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{team_server.port}/socket", additional_headers=headers)

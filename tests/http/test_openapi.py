"""The document says what the routes answer: a team writes nothing for it, and cannot forget it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from src.shared.errors import ErrorCode, http_status
from tests.http.bounds import unbounded
from tests.http.conftest import TEAM, client_of
from tests.support.server import Server, running_server
from tests.support.truth import Schema, UndocumentedError, check_documented, checks, mismatches, resolve

# What any request can meet before it reaches its route.
EVERYWHERE = {40006, 40007, 40008, 40009, 90001, 90002, 90003}
VERBS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture(scope="module")
def documented_server() -> Iterator[Server]:
    with running_server({}, "tests.http.apps.documented:app") as running:
        yield running


@pytest.fixture(scope="module")
def document(documented_server: Server) -> Schema:
    with client_of(documented_server) as client:
        found: Schema = client.get("/openapi.json").raise_for_status().json()
        return found


@pytest.fixture
def documented(documented_server: Server, document: Schema) -> Iterator[httpx2.Client]:
    """Holds each answer against the document."""
    with httpx2.Client(
        base_url=documented_server.url, verify=False, event_hooks={"response": [checks(lambda: document)]}
    ) as client:
        yield client


@pytest.fixture(scope="module")
def team_document() -> Schema:
    with running_server({}, TEAM) as server, client_of(server) as client:
        found: Schema = client.get("/openapi.json").raise_for_status().json()
        return found


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in VERBS
            yield method, path, operation


def data_of(document: Schema, path: str, status: str = "200", method: str = "get") -> Any:  # Any: a schema
    """The schema of `data` in the envelope that the operation documents."""
    told = document["paths"][path][method]["responses"][status]
    envelope = resolve(document, told["content"]["application/json"]["schema"]["$ref"])
    assert envelope["required"] == ["code", "msg", "data"]
    return envelope["properties"]["data"]


def codes_of(document: Schema, path: str, method: str = "get") -> set[int]:
    responses = document["paths"][path][method]["responses"]
    return {int(code) for told in responses.values() for code in told.get("x-error-codes", ())}


def test_all_that_comes_in_has_bounds(server: Server) -> None:
    with client_of(server) as client:
        found = unbounded(client.get("/openapi.json").raise_for_status().json())

    # RFC 6749 §3.2: what is not known there is ignored. Its fields are judged as those of the other log-in.
    form = "post /api/v1/auth/token: application/x-www-form-urlencoded"
    # Web Authentication §5.1: a browser may say more of a passkey one day; each part that is read has bounds.
    of_browsers = re.compile(r"application/json\.credential(\.response)? takes what nobody knows$")
    assert [each for each in found if not each.startswith(form) and not of_browsers.search(each)] == []


def test_what_has_no_bounds_is_named(document: Schema) -> None:
    """The positive control: a team's careless fields."""
    assert "post /loose: application/json takes what nobody knows" in unbounded(document)
    assert {
        f"post /loose: {place} has no bounds"
        for place in ("query.number", "header.Mood", "application/json.text", "application/json.lines", "application/json.lines[]")
    } <= set(unbounded(document))  # fmt: skip


ITEM = {"$ref": "#/components/schemas/Item"}


@pytest.mark.parametrize("path", ["/quiet", "/annotated", "/json-error", "/events", "/standard"])
def test_an_operation_says_what_its_route_gives(document: Schema, path: str) -> None:
    responses = document["paths"][path]["get"]["responses"]

    match path:
        case "/json-error":
            assert data_of(document, path, "404") == {"$ref": "#/components/schemas/Reason"}
        case "/events":
            assert set(responses["200"]["content"]) == {"text/event-stream"}
        case "/standard":
            assert responses["200"]["content"]["application/json"]["schema"] == ITEM
        case _:
            assert data_of(document, path) == ITEM


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("post", "/created", {"201"}),
        ("put", "/maybe-created", {"200", "201"}),
        ("post", "/accepted", {"200", "202"}),
        ("get", "/annotated-created", {"201"}),
        ("delete", "/gone", {"204"}),
        ("get", "/quiet", {"200"}),
        ("get", "/redirect", {"307"}),
    ],
)
def test_an_operation_has_the_statuses_that_its_code_sets(
    document: Schema, method: str, path: str, statuses: set[str]
) -> None:
    responses = document["paths"][path][method]["responses"]

    assert {status for status in responses if int(status) < 400} == statuses
    for status in statuses - {"204", "307"}:
        assert data_of(document, path, status, method) == ITEM


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/file", {"*/*"}),
        ("/stream", {"*/*"}),
        ("/html", {"text/html"}),
        ("/lines", {"application/jsonl"}),
        ("/events", {"text/event-stream"}),
        ("/redirect", set()),
    ],
)
def test_what_is_no_value_is_documented_without_an_envelope(document: Schema, path: str, kinds: set[str]) -> None:
    responses = document["paths"][path]["get"]["responses"]

    assert set(responses[min(responses)].get("content", {})) == kinds


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("/quiet", {40001}),
        ("/reads-query", set()),
        ("/refuses", {40001, 50102, 50105}),
        ("/returns-error", {40001, 50102}),
        ("/by-dependency", {40001, 423}),
        ("/by-instance", {40001, 403}),
        ("/by-decorator", {40001, 50103}),
        ("/by-cache", {40001, 50104}),
        ("/by-partial", {40001, 409}),
        ("/json-error", {40001, 404, 418}),
        ("/permitted", {40001, 10001, 10003, 10007, 10013, 30001}),
        ("/keyed", {40001, 401}),
    ],
)
def test_an_operation_has_each_code_of_its_route_and_dependencies_and_no_other(
    document: Schema, path: str, codes: set[int]
) -> None:
    assert codes_of(document, path) == codes | EVERYWHERE


def test_codes_stand_below_their_status(document: Schema) -> None:
    for _, path, operation in operations(document):
        for status, told in operation["responses"].items():
            for code, name in told.get("x-error-codes", {}).items():
                if int(code) >= 10_000:
                    assert ErrorCode(int(code)).name == name, path
                    assert http_status(ErrorCode(int(code))) == int(status), path
                else:
                    assert code == status, path


def test_an_invalid_request_has_our_schema_and_fastapi_s_is_gone(document: Schema) -> None:
    assert "HTTPValidationError" not in json.dumps(document)
    told = document["paths"]["/refuses"]["get"]["responses"]["422"]["content"]["application/json"]["schema"]
    body = {"code": 40001, "msg": "…", "data": {"errors": [{"field": "a", "message": "b", "type": "c"}]}}

    assert list(mismatches(document, told, body)) == []
    assert list(mismatches(document, told, {**body, "data": None})) != []


def test_operation_ids_are_readable_names_and_no_two_are_alike(document: Schema) -> None:
    names = Counter(operation["operationId"] for _, _, operation in operations(document))

    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name) for name in names), names
    assert set(names.values()) == {1}
    assert {"orders_place_order", "products_list_products", "goods_quiet", "list_all"} <= names.keys()
    assert {"goods_methods", "goods_methods_post_methods", "list_all_get_third_list"} <= names.keys()


def test_of_two_routes_for_the_same_the_one_that_answers_is_documented(document: Schema) -> None:
    assert document["paths"]["/quiet"]["get"]["operationId"] == "goods_quiet"


def test_the_document_is_the_same_in_each_process(document: Schema) -> None:
    with running_server({}, "tests.http.apps.documented:app") as server, client_of(server) as client:
        again = client.get("/openapi.json").json()

    assert json.dumps(again) == json.dumps(document)


@pytest.mark.parametrize("which", ["document", "team_document"])
def test_the_document_is_well_formed(which: str, request: pytest.FixtureRequest) -> None:
    document: Schema = request.getfixturevalue(which)

    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        resolve(document, reference)
    for method, path, operation in operations(document):
        told = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"]
        assert sorted(told) == sorted(re.findall(r"\{([^}:]+)", path))
        assert len({(each["in"], each["name"].lower()) for each in operation.get("parameters", ())}) == len(
            operation.get("parameters", ())
        )
        assert operation["responses"], (method, path)
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5][0-9]{2}", status)
            assert response["description"]
            assert not (status in ("204", "304") and response.get("content"))


def test_the_authorize_button_knows_where_to_log_in(document: Schema) -> None:
    schemes = document["components"]["securitySchemes"]
    password = schemes["OAuth2PasswordBearer"]["flows"]["password"]

    assert password["tokenUrl"] == "api/v1/auth/token"  # relative, as the page may lie below a prefix
    assert document["paths"]["/api/v1/profile"]["get"]["security"] == [{"OAuth2PasswordBearer": []}]
    assert "security" not in document["paths"]["/api/v1/auth/login"]["post"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/quiet", 200),
        ("GET", "/untyped", 200),
        ("PUT", "/maybe-created", 201),
        ("POST", "/created", 201),
        ("POST", "/accepted", 202),
        ("GET", "/annotated", 200),
        ("GET", "/annotated-created", 201),
        ("GET", "/paged", 200),
        ("GET", "/paged?size=0", 422),
        ("DELETE", "/gone", 204),
        ("GET", "/refuses?item_id=1", 404),
        ("GET", "/refuses?item_id=-1", 409),
        ("GET", "/returns-error", 404),
        ("GET", "/by-dependency", 423),
        ("GET", "/by-instance", 403),
        ("GET", "/by-decorator?item_id=3", 409),
        ("GET", "/by-cache", 409),
        ("GET", "/by-partial?item_id=3", 409),
        ("GET", "/json-error?missing=1", 404),
        ("GET", "/json-error", 418),
        ("GET", "/permitted", 401),
        ("GET", "/keyed", 401),
        ("POST", "/form", 422),
        ("GET", "/file", 200),
        ("GET", "/html", 200),
        ("GET", "/redirect", 307),
        ("GET", "/stream", 200),
        ("GET", "/lines", 200),
        ("GET", "/events", 200),
        ("HEAD", "/head", 200),
        ("GET", "/standard", 200),
        ("GET", "/reads-query?any=1", 200),
        ("POST", "/methods", 200),
        ("GET", "/quiet?unknown=1", 422),
        ("GET", "/no/such/path", 404),
        ("PATCH", "/quiet", 405),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
    ],
)
def test_each_answer_is_a_documented_one(documented: httpx2.Client, method: str, path: str, status: int) -> None:
    body = {"id": 3} if method in ("PUT", "POST") and path != "/form" else None

    assert documented.request(method, path, json=body).status_code == status


def test_a_problem_is_documented_too(documented: httpx2.Client) -> None:
    answer = documented.get("/refuses?item_id=1", headers={"Accept": "application/problem+json"})

    assert answer.status_code == 404


def test_a_code_that_nobody_could_read_is_found_out(documented: httpx2.Client) -> None:
    with pytest.raises(UndocumentedError, match="no such status, only 200"):
        documented.get("/hidden-refusal")


def test_a_column_that_nobody_documents_is_found_out(documented: httpx2.Client) -> None:
    with pytest.raises(UndocumentedError, match=r"body\.data\.password_hash is not documented"):
        documented.get("/hidden-column")


ENVELOPE = {"code": 200, "msg": "success", "data": {"id": 1, "name": "Lamp"}}


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        (299, ENVELOPE, "no such status"),
        (200, {"id": 1, "name": "Lamp"}, "code is missing"),
        (200, {**ENVELOPE, "data": {"id": "1", "name": "Lamp"}}, "id is no integer"),
        (200, {**ENVELOPE, "data": {"name": "Lamp"}}, "id is missing"),
        (200, {**ENVELOPE, "data": None}, "data is no object"),
        (200, {**ENVELOPE, "more": 1}, "more is not documented"),
        (404, {"code": 50201, "msg": "…", "data": None}, "code 50201 of 404 where only 50102"),
        (422, {"code": 40001, "msg": "…", "data": {"errors": [{"field": "a"}]}}, "message is missing"),
    ],
)
def test_the_check_complains_of_what_is_not_documented(
    document: Schema, status: int, body: object, complaint: str
) -> None:
    with pytest.raises(UndocumentedError, match=complaint):
        check_documented(document, "GET", "/refuses", status, body)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/no/such/path", 200, ENVELOPE),
        ("PATCH", "/quiet", 200, ENVELOPE),
        ("DELETE", "/gone", 204, ENVELOPE),
    ],
)
def test_the_check_complains_of_answers_from_nowhere(
    document: Schema, method: str, path: str, status: int, body: object
) -> None:
    with pytest.raises(UndocumentedError):
        check_documented(document, method, path, status, body)

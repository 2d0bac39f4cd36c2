"""Hostile values in each field, parameter and body that the API's document names."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx2

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import bearer, data_of
from tests.support.hostile import CORPORA
from tests.support.oidc import House
from tests.support.service import Service

Json = Any  # Any: JSON
_METHODS: Final = ("get", "post", "put", "patch", "delete")
# Who may be locked out by what they are sent, and is made anew then.
_OF_ONES_OWN: Final = ("/auth/password/change", "/auth/email/change", "/profile", "/auth/logout", "/auth/refresh")
_SHUT_OUT: Final = frozenset({ErrorCode.NOT_AUTHENTICATED, ErrorCode.INVALID_TOKEN, ErrorCode.PERMISSION_DENIED})
_MADE_ANOTHER: Final = frozenset({"email", "new_email", "username", "sku", "currency"})
"""Fields that come back in a form of their own."""
_ECHO_LENGTH: Final = 8


def _is_of_ones_own(path: str) -> bool:
    # Not API keys: nobody is locked out by them, and to make one takes the permissions that it gets.
    return any(part in path for part in _OF_ONES_OWN) and "/api-keys" not in path


@dataclass(frozen=True, eq=False)
class Operation:
    method: str
    path: str
    statuses: frozenset[int]
    body: Json
    """Its schema, or None."""
    parameters: tuple[Json, ...]

    @property
    def title(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass
class Attack:
    """One service, and what was seen of it."""

    service: Service
    seed: int
    below: str = "/"
    """Operations of paths that begin so."""
    provider: House | None = None
    """Of the service's."""
    sent: int = 0
    round_trips: int = 0
    failures: list[str] = field(default_factory=list)
    _let_in: set[Operation] = field(default_factory=set)
    _tried: set[Operation] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._document: Json = self.service.client.get("/openapi.json").json()
        self._all = [*self._operations()]
        self.operations = [each for each in self._all if each.path.startswith(self.below)]
        self._random = random.Random(self.seed)
        self._admin = self.service.log_in()["access_token"]
        self._own = ""
        self._ids: dict[str, str] = {}
        self._sign_in: dict[str, str] = {}
        self._ids = self._make_things()

    def _operations(self) -> Iterator[Operation]:
        for path, item in self._document["paths"].items():
            for method in _METHODS:
                if method in item:
                    body = item[method].get("requestBody", {}).get("content", {}).get("application/json")
                    yield Operation(
                        method,
                        path,
                        frozenset(int(status) for status in item[method]["responses"]),
                        None if body is None else self._resolved(body["schema"]),
                        tuple(item[method].get("parameters", ())),
                    )

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    # --- plausible requests, so that what is hostile comes as far as it can

    def _make_things(self) -> dict[str, str]:
        """An id for each path parameter."""
        service, token = self.service, self._admin
        role = data_of(service.post("roles", self._body_of("POST /api/v1/roles"), token=token), 201)["id"]
        product = data_of(service.post("products", self._body_of("POST /api/v1/products"), token=token), 201)["id"]
        email = f"{uuid4().hex}@example.com"
        user = data_of(service.post("users", {"email": email, "password": PASSWORD}, token=token), 201)["id"]
        self._ids = {"product_id": product, "role_id": role, "user_id": user}
        order = service.client.post(
            "/api/v1/orders",
            json={"items": [{"product_id": product, "quantity": 1}]},
            headers=bearer(token) | {"Idempotency-Key": uuid4().hex},
        )
        nothing = {name: str(uuid4()) for name in ("session_id", "event_id", "link_id")}
        provider = {"provider": self.provider.name} if self.provider else {}
        return self._ids | {"order_id": data_of(order, 201)["id"]} | nothing | provider

    def _body_of(self, title: str) -> Json:
        operation = next(each for each in self._all if each.title == title)
        return self._sample(operation.body)

    def _sample(self, schema: Json, name: str = "") -> Json:
        schema = self._resolved(schema)
        if "anyOf" in schema:
            return self._sample(next(each for each in schema["anyOf"] if each.get("type") != "null"), name)
        if "enum" in schema:
            return "active" if "active" in schema["enum"] else schema["enum"][0]
        sample: Json
        match schema.get("type"):
            case "object":
                sample = {each: self._sample(part, each) for each, part in schema.get("properties", {}).items()}
            case "array":
                sample = [self._sample(schema["items"], name)]
            case "integer" | "number":
                sample = schema.get("minimum", 1) or 1
            case "boolean":
                sample = True
            case _:
                sample = self._text(name)
        return sample

    def _text(self, name: str) -> str:
        if name in {"email", "new_email"}:
            return f"{uuid4().hex}@example.com"
        known = {"currency": "EUR", "permissions": "order:read", "roles": "user", "product_id": self._id("product_id")}
        if "password" in name:
            return PASSWORD
        if self.provider and name in {"browser_token", "state", "iss"}:
            return self._of_sign_in(self.provider, name)
        return known.get(name, f"n{uuid4().hex[:16]}")

    def _of_sign_in(self, provider: House, name: str) -> str:
        """Of one that was begun: what is hostile beside it goes to the provider."""
        if name == "browser_token":
            begun = data_of(self.service.post(f"auth/providers/{provider.name}/begin"))
            state = httpx2.URL(begun["authorization_url"]).params["state"]
            self._sign_in = {"browser_token": begun["browser_token"], "state": state, "iss": provider.issuer}
        return self._sign_in[name]

    def _id(self, name: str) -> str:
        return self._ids.get(name, str(uuid4()))

    def _token(self, path: str) -> str:
        if not _is_of_ones_own(path):
            return self._admin
        if not self._own:
            self._own = self.service.log_in(self.service.register())["access_token"]
        return self._own

    # --- sending, and judging

    def send(  # noqa: PLR0913 - a request has these parts
        self,
        operation: Operation,
        value: object,
        place: str,
        *,
        content: bytes | None = None,
        path: str = "",
        query: str = "",
    ) -> httpx2.Response | None:
        if not path:
            path = operation.path
            for name, known in self._ids.items():
                path = path.replace(f"{{{name}}}", known)
        headers = bearer(self._token(operation.path)) | {"Idempotency-Key": uuid4().hex}
        if content is not None:
            headers["Content-Type"] = "application/json"
        self.sent += 1
        self._tried.add(operation)
        shown = f"{operation.title}, {place} = {value!r:.80}"
        try:
            answer = self.service.client.request(
                operation.method, path + (f"?{query}" if query else ""), content=content, headers=headers
            )
        except httpx2.HTTPError as error:
            self.failures.append(f"{shown}: {error!r}")
            return None
        self._go_on(operation, path, answer)
        self._judge(operation, value, shown, answer)
        return answer

    def _go_on(self, operation: Operation, path: str, answer: httpx2.Response) -> None:
        """With accounts and tokens that are good, whatever became of those that were sent."""
        code = answer.json().get("code") if answer.is_error and answer.content else None
        if code not in _SHUT_OUT:
            self._let_in.add(operation)
        if _is_of_ones_own(path) and (answer.is_success or code in _SHUT_OUT):
            self._own = ""  # whatever became of it, the next one has an account of its own
        elif code == ErrorCode.INVALID_TOKEN:
            self._admin = self.service.log_in()["access_token"]  # it has become old

    def _judge(self, operation: Operation, value: object, shown: str, answer: httpx2.Response) -> None:
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.failures.append(f"{shown}: {answer.status_code} {answer.text:.200}")
        elif answer.status_code not in operation.statuses:
            self.failures.append(f"{shown}: {answer.status_code} is not documented")
        elif answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and isinstance(value, str):
            told = answer.json()
            # Other refusals say which name they do not know.
            invalid = told["code"] == ErrorCode.INVALID_REQUEST
            if invalid and len(value) > _ECHO_LENGTH and value in json.dumps(told["data"], ensure_ascii=False):
                self.failures.append(f"{shown}: a 422 tells what came in")

    def begin(self) -> None:
        """What was seen so far counts no more."""
        self.failures, self._let_in, self._tried = [], set(), set()

    def shut_out(self) -> list[str]:
        """Operations whose requests were all refused for who asked: nothing that was sent came as far as being read."""
        return [f"{each.title}: nobody was let in" for each in self._tried - self._let_in]

    def some(self, values: Sequence[Json], most: int) -> Sequence[Json]:
        return values if most >= len(values) else self._random.sample(values, most)

    def fill_fields(self, values: Sequence[Json], most: int, *, texts_only: bool = False) -> None:
        """Each value in each field of each body, at most so many of them in one field. What is taken comes back as it was."""
        for operation in self.operations:
            if operation.body is None:
                continue
            sample = self._sample(operation.body)
            for place in _places(sample):
                if texts_only and not isinstance(_at(sample, place), str):
                    continue
                for value in self.some(values, most):
                    body = self._sample(operation.body)
                    _put(body, place, value)
                    content = json.dumps(body).encode()
                    answer = self.send(operation, value, "body." + ".".join(map(str, place)), content=content)
                    self._compare(operation, answer, place, value)

    def _compare(
        self, operation: Operation, answer: httpx2.Response | None, place: tuple[str | int, ...], value: Json
    ) -> None:
        if answer is None or not answer.is_success or not isinstance(value, str) or len(place) != 1:
            return
        name = str(place[0])
        stored = answer.json()["data"] if answer.content else None
        if not isinstance(stored, dict) or name not in stored or name in _MADE_ANOTHER or "id" not in stored:
            return
        shown = [stored[name]]
        url = answer.url.path if operation.method != "post" else f"{answer.url.path}/{stored['id']}"
        again = self.service.client.get(url, headers=bearer(self._admin))
        if again.is_success:
            shown.append(again.json()["data"].get(name))
        self.round_trips += 1
        if any(each not in (value, value.strip()) for each in shown):
            self.failures.append(f"{operation.title}, {name} = {value!r:.80} came back as {shown!r:.80}")

    def fill_parameters(self, values: Sequence[str], most: int) -> None:
        """Each value in each parameter of the path and of the query, URL-encoded and, where a URL can have it, as it is."""
        for operation in self.operations:
            for parameter in operation.parameters:
                name, place = parameter["name"], parameter["in"]
                for value in self.some(values, most):
                    with suppress(UnicodeEncodeError):
                        text = quote(value, safe="")
                        if place == "query":
                            self.send(operation, value, f"query.{name}", query=f"{quote(name)}={text}")
                        elif place == "path" and text not in {"", ".", ".."}:
                            path = operation.path.replace(f"{{{name}}}", text)
                            for other, known in self._ids.items():
                                path = path.replace(f"{{{other}}}", known)
                            self.send(operation, value, f"path.{name}", path=path)

    def send_bodies(self, bodies: Sequence[tuple[str, bytes]], most: int) -> None:
        """Each of them as the body of each operation that takes JSON."""
        for operation in self.operations:
            if operation.body is not None:
                for name, content in self.some(bodies, most):
                    answer = self.send(operation, None, name, content=content)
                    if name.startswith("n_") and answer is not None and answer.is_success:
                        self.failures.append(f"{operation.title} takes {name}")


def _places(body: Json, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts: Iterator[tuple[str | int, Json]] = iter(())
    if isinstance(body, dict):
        parts = iter(body.items())
    elif isinstance(body, list):
        parts = iter(enumerate(body))
    for name, part in parts:
        yield (*above, name)
        yield from _places(part, (*above, name))


def _at(body: Json, place: tuple[str | int, ...]) -> Json:
    for step in place:
        body = body[step]
    return body


def _put(body: Json, place: tuple[str | int, ...], value: Json) -> None:
    _at(body, place[:-1])[place[-1]] = value


def blns() -> Sequence[str]:
    strings: list[str] = json.loads((CORPORA / "blns" / "blns.json").read_text())
    return strings


def hostile() -> dict[str, Json]:
    whole: dict[str, Json] = json.loads((CORPORA / "hostile" / "hostile-values.json").read_text())
    return whole


def hostile_values() -> Sequence[Json]:
    """For a field of any type."""
    whole = hostile()
    strings = [_long(value) for value in whole["strings"].values()]
    numbers = [2**31, 2**63, -(2**63) - 1, 10**30, -1, 0, 1e308, -0.0, 1.5]
    others: list[Json] = [None, True, [], {}, [[]], {"__proto__": {"is_admin": True}}, "", " "]
    return [*strings, *whole["datetimes"], *numbers, *others]


def hostile_texts() -> Sequence[str]:
    """For a parameter."""
    whole = hostile()
    pages = [value for _, value in whole["pagination"]]
    strings = [value for name, value in whole["strings"].items() if name != "one_mib"]
    return [*strings, *whole["ints_in_path_or_query"], *pages, *whole["datetimes"]]


def hostile_bodies() -> Sequence[tuple[str, bytes]]:
    return [(name, _raw(text)) for name, text in hostile()["raw_json_bodies"].items()]


def json_test_suite() -> Sequence[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted((CORPORA / "jsontestsuite" / "test_parsing").iterdir())]


def _long(value: str) -> str:
    kind, _, rest = value.partition(":")
    if kind != "REPEAT":
        return value
    letter, _, times = rest.partition(":")
    return letter * int(times)


_RAW: Final[dict[str, Callable[[str], bytes]]] = {
    "REPEATDIGITS": lambda rest: b'{"name":' + b"9" * int(rest) + b"}",
    "DEEP": lambda rest: (rest[0] * int(rest[2:])).encode(),
    "BOM": lambda _: b'\xef\xbb\xbf{"name":"x"}',
    "UTF16": lambda _: '{"name":"x"}'.encode("utf-16"),
}


def _raw(text: str) -> bytes:
    kind, _, rest = text.partition(":")
    return _RAW[kind](rest) if kind in _RAW else text.replace('"F"', '"name"').encode()

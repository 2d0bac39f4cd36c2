"""Whether an answer is one that /openapi.json documents: its status, its error code, and each part of its body."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import httpx2

Schema = dict[str, Any]  # Any: JSON

PAGES = re.compile(r"/(docs|openapi\.json)(/.*)?")
JSON, PROBLEM = "application/json", "application/problem+json"


class UndocumentedError(AssertionError):
    """An answer that the document does not know."""


def check_documented(  # noqa: PLR0913, PLR0917 - an answer has these parts
    schema: Schema, method: str, path: str, status: int, body: object, media_type: str = JSON
) -> None:
    """`body` is the parsed JSON, or None where there is none.

    Raises:
        UndocumentedError: says what the document lacks.
    """
    answer = f"{method} {path} → {status} {str(body)[:500]}"
    operations = _operations(schema, path)
    if operations is None:
        if status != 404 and not PAGES.fullmatch(path):
            raise UndocumentedError(f"{answer}: no such path")
        return
    operation = operations.get(method.lower())
    if operation is None:
        if status != 405 and method != "OPTIONS":
            raise UndocumentedError(f"{answer}: no such method")
        return
    told = operation["responses"].get(str(status))
    if told is None:
        raise UndocumentedError(f"{answer}: no such status, only {', '.join(operation['responses'])}")
    problems = list(_problems(schema, told, status, body, media_type))
    if problems:
        raise UndocumentedError(f"{answer}: {'; '.join(problems)}")


def _operations(schema: Schema, path: str) -> Schema | None:
    """The most literal of the paths that fit."""
    fitting = [template for template in schema["paths"] if _pattern(template).fullmatch(path)]
    return schema["paths"][min(fitting, key=lambda template: template.count("{"))] if fitting else None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)))


def _problems(schema: Schema, told: Schema, status: int, body: object, media_type: str) -> Iterator[str]:
    content = told.get("content", {})
    if not content:
        if body is not None:
            yield "a body where none is documented"
        return
    if media_type not in content and "*/*" not in content:
        yield f"{media_type} where only {', '.join(content)} is documented"
    if media_type not in content or media_type not in (JSON, PROBLEM):
        return
    yield from mismatches(schema, content[media_type].get("schema", {}), body)
    codes = told.get("x-error-codes")
    if codes is not None and isinstance(body, dict) and "code" in body and str(body["code"]) not in codes:
        yield f"code {body['code']} of {status} where only {', '.join(codes)} are documented"


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def mismatches(document: Schema, schema: Schema, value: object, where: str = "body") -> Iterator[str]:
    """What of JSON Schema our documents use; an object has no other properties than those that are named."""
    if "$ref" in schema:
        yield from mismatches(document, resolve(document, schema["$ref"]), value, where)
    for kinds in (schema[name] for name in ("anyOf", "oneOf") if name in schema):
        found = [list(mismatches(document, kind, value, where)) for kind in kinds]
        if all(found):
            yield f"{where} is none of its kinds ({'; '.join(problem for each in found for problem in each)})"
    for part in schema.get("allOf", ()):
        yield from mismatches(document, part, value, where)
    problems = list(_value_mismatches(schema, value, where))
    yield from problems
    if isinstance(value, dict) and not problems:
        yield from _object_mismatches(document, schema, value, where)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from mismatches(document, schema["items"], item, f"{where}.{index}")


def _value_mismatches(schema: Schema, value: object, where: str) -> Iterator[str]:
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else types
    if names and not any(_TYPES[name](value) for name in names):
        yield f"{where} is no {' or '.join(names)}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is not in {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is not {schema['const']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where} does not match {schema['pattern']}"


def _object_mismatches(document: Schema, schema: Schema, value: Schema, where: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", not properties)
    yield from (f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value)
    for name, part in value.items():
        told = properties.get(name, others)
        if told is False:
            yield f"{where}.{name} is not documented"
        elif told is not True:
            yield from mismatches(document, told, part, f"{where}.{name}")


def resolve(document: Schema, reference: str) -> Schema:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    assert isinstance(found, dict)
    return found


def checks(schema_of: Callable[[], Schema]) -> Callable[[httpx2.Response], None]:
    """A hook for clients: each answer that they get is held against the document."""

    def check(response: httpx2.Response) -> None:
        media_type = response.headers.get("content-type", "").partition(";")[0]
        # Only what is JSON is read here: a stream is the test's to read.
        body = _json(response.read()) if media_type in (JSON, PROBLEM) else None
        request = response.request
        check_documented(schema_of(), request.method, request.url.path, response.status_code, body, media_type)

    return check


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None

"""Whether all that may come in has bounds: what the document does not bound, the schemas do not either."""

from collections.abc import Iterator

from tests.support.truth import Schema, resolve

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
# `format` alone says nothing of a length, but for those of a fixed form.
_BOUND = {
    "string": ({"maxLength", "enum", "const"},),
    "integer": ({"minimum", "exclusiveMinimum", "enum", "const"}, {"maximum", "exclusiveMaximum", "enum", "const"}),
    "array": ({"maxItems"},),
}
_BOUND["number"] = _BOUND["integer"]
_OF_FIXED_FORM = {"uuid", "date-time", "date"}


def unbounded(document: Schema) -> list[str]:
    """Each parameter and field of a body that may be as large as it likes, or carry what nobody knows."""
    found: list[str] = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                place = f"{method} {path}: {parameter['in']}.{parameter['name']}"
                found += _unbounded(document, parameter["schema"], place)
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                found += _unbounded(document, body["schema"], f"{method} {path}: {kind}")
    return found


def _unbounded(document: Schema, schema: Schema, place: str) -> Iterator[str]:
    while "$ref" in schema:
        schema = resolve(document, schema["$ref"])
    for each in [part for name in _ALTERNATIVES for part in schema.get(name, ())]:
        yield from _unbounded(document, each, place)
    kind = schema.get("type", "")
    bounds = () if schema.get("format") in _OF_FIXED_FORM else _BOUND.get(kind, ())
    if not all(bound & schema.keys() for bound in bounds):
        yield f"{place} has no bounds"
    if kind == "array":
        yield from _unbounded(document, schema["items"], f"{place}[]")
    if kind == "object":
        if schema.get("additionalProperties") is not False:
            yield f"{place} takes what nobody knows"
        for name, part in schema.get("properties", {}).items():
            yield from _unbounded(document, part, f"{place}.{name}")

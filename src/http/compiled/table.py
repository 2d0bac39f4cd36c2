"""Which route answers a request: literal paths in a dict, the others by their segments; FastAPI's order kept.

Whatever is not certain is not in the table, and goes FastAPI's own way: it asks each of its routes in turn.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from fastapi.routing import APIRoute, RouteContext
from starlette.convertors import StringConvertor
from starlette.routing import Mount, Route, WebSocketRoute

from src.http.compiled.source import Compiled

_PARAMETER = re.compile(r"\{[^}]*\}")


class Entry:
    """A route in the table. It is compiled when it is first asked for: with all of them, a start would take longer."""

    __slots__ = ("_compile", "_compiled", "names", "path", "scope")

    def __init__(
        self, route: RouteContext, scope: dict[str, Any], compiled: Callable[[], Compiled | None]
    ) -> None:  # Any: ASGI's
        self.scope = scope
        """What FastAPI's matching would have put into an ASGI scope."""
        self.names = tuple(route.param_convertors)
        """Of the path's parameters, in order."""
        self.path = route.path
        self._compile: Callable[[], Compiled | None] | None = compiled
        self._compiled: Compiled | None = None

    @property
    def compiled(self) -> Compiled | None:
        """None for a route that FastAPI serves by itself."""
        if self._compile is not None:
            self._compiled, self._compile = self._compile(), None
        return self._compiled


Found = tuple[Entry, dict[str, Any]]  # Any: path parameters, which other convertors might convert


@dataclass
class _Node:
    literal: "dict[str, _Node]" = field(default_factory=dict)
    parameter: "_Node | None" = None
    found: dict[str, tuple[int, Entry | None]] = field(default_factory=dict)
    """By method: the place in FastAPI's order, and the route; None where that is not certain."""


_NOBODY = (0, None)


class Table:
    def __init__(self, routes: Sequence[RouteContext], entry_of: Callable[[RouteContext], Entry]) -> None:
        self._root = _Node()
        plain = [_has_plain_segments(route) for route in routes]
        others = [(place, route) for place, route in enumerate(routes) if not plain[place]]
        for place, route in enumerate(routes):
            if plain[place]:
                entry = entry_of(route)
                for method in route.methods or ():
                    doubtful = any(_takes_from(route, other, method) for at, other in others if at < place)
                    self._add(route.path_format or "", place, method, None if doubtful else entry)
        self._literal = dict(self._certain_literals(self._root, ""))

    def find(self, method: str, path: str) -> Found | None:
        entry = self._literal.get((method, path))
        return (entry, {}) if entry is not None else self._find_by_segments(method, path)

    def _find_by_segments(self, method: str, path: str) -> Found | None:
        if path[:1] != "/" or "\n" in path:  # at the end of a path a regular expression overlooks it
            return None
        segments, node, values = path[1:].split("/"), self._root, []
        for segment in segments:
            literal, parameter = node.literal.get(segment), node.parameter
            if literal is None:
                if parameter is None or not segment:
                    return None
                node = parameter
                values.append(segment)
            elif parameter is None:
                node = literal
            else:
                return self._find_first(method, segments)
        _, entry = node.found.get(method, _NOBODY)
        return None if entry is None else (entry, dict(zip(entry.names, values, strict=True)))

    def _find_first(self, method: str, segments: list[str]) -> Found | None:
        """Where a path can be read in several ways: the route that FastAPI would ask first."""
        found = list(_matches(self._root, segments, 0, method))
        if not found:
            return None
        _, entry, values = min(found, key=itemgetter(0))
        return None if entry is None else (entry, dict(zip(entry.names, values, strict=True)))

    def _add(self, path: str, place: int, method: str, entry: Entry | None) -> None:
        node = self._root
        for segment in path[1:].split("/"):
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        node.found.setdefault(method, (place, entry))

    def _certain_literals(self, node: _Node, path: str) -> Iterator[tuple[tuple[str, str], Entry]]:
        """Those that win over each parameter that would take their path as well."""
        for segment, child in node.literal.items():
            whole = f"{path}/{segment}"
            for method in child.found:
                found = self._find_by_segments(method, whole)
                if found is not None and not found[0].names:
                    yield (method, whole), found[0]
            yield from self._certain_literals(child, whole)


def _has_plain_segments(route: RouteContext) -> bool:
    """An API route like `/users/{user_id}`: each parameter is a whole segment and takes any text."""
    path = route.path_format
    return (
        isinstance(route.original_route, APIRoute)
        and path is not None
        and path.startswith("/")
        and all(type(each) is StringConvertor for each in route.param_convertors.values())
        and all("{" not in segment or _PARAMETER.fullmatch(segment) for segment in path.split("/"))
    )


def _takes_from(route: RouteContext, earlier: RouteContext, method: str) -> bool:
    """Whether a route of another kind, which FastAPI asks before, may take a request of this one."""
    original, path, other = earlier.original_route, route.path_format or "", earlier.path_format
    if isinstance(original, WebSocketRoute) or (
        isinstance(original, APIRoute) and method not in (earlier.methods or ())
    ):
        return False
    if not isinstance(original, Route | Mount) or other is None:
        return True  # by host, or by a rule that we do not know
    if not route.param_convertors:
        return earlier.path_regex.match(path) is not None
    first, second = (_PARAMETER.split(each, maxsplit=1)[0] for each in (path, other))
    return first.startswith(second) or second.startswith(first)


def _matches(
    node: _Node, segments: list[str], depth: int, method: str
) -> Iterator[tuple[int, Entry | None, tuple[str, ...]]]:
    if depth == len(segments):
        if method in node.found:
            place, entry = node.found[method]
            yield place, entry, ()
        return
    segment = segments[depth]
    if segment in node.literal:
        yield from _matches(node.literal[segment], segments, depth + 1, method)
    if node.parameter is not None and segment:
        for place, entry, values in _matches(node.parameter, segments, depth + 1, method):
            yield place, entry, (segment, *values)

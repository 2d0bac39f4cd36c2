"""What a route can answer with, read from its own code, its dependencies' and what they call in the project.

So a route documents what it raises without a word about it. Too much is possible (a code that is only compared),
too little is not, for calls by name and statuses that are written out.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import EnumType
from http import HTTPStatus
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from fastapi.dependencies.models import Dependant
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from src.http.response import Response
from src.shared.errors import ErrorCode


@dataclass(frozen=True)
class Answers:
    codes: set[ErrorCode] = field(default_factory=set)
    raised: set[int] = field(default_factory=set)
    """Statuses of HTTPExceptions."""
    returned: set[int] = field(default_factory=set)
    """Statuses of values: `Response.success(code=201)`, `response.status_code = 202`."""
    rendered: set[int] = field(default_factory=set)
    """Statuses of JSONResponses, whose content no response model describes."""


def answers_of(route: Any) -> Answers:  # Any: APIRoute or FastAPI's RouteContext, same attributes
    answers = Answers()
    for call in _calls(route.endpoint, route.dependant):
        _read(call, answers)
    return answers


def sends_default_status(endpoint: Callable[..., Any]) -> bool:
    """Whether any `return` of the endpoint leaves the status to its route."""
    function = _function(endpoint)
    source = _source(function) if function is not None else None
    if source is None:
        return True
    returns = [node.value for node in source.own if isinstance(node, ast.Return)]
    return not returns or not all(_sets_status(value, source.names) for value in returns)


def _sets_status(value: ast.expr | None, names: dict[str, Any]) -> bool:  # Any: a module's namespace
    answers = Answers()
    if isinstance(value, ast.Call):
        _note_call(value, names, answers)
    return bool(answers.returned or answers.rendered)


def _calls(endpoint: Callable[..., Any], dependant: Dependant) -> Iterator[Callable[..., Any]]:
    yield endpoint
    for sub in dependant.dependencies:
        assert sub.call is not None
        yield from _calls(sub.call, sub)


def _read(call: Callable[..., Any], answers: Answers) -> None:
    if isinstance(call, SecurityBase):
        _note_challenge(call, answers)
        return
    pending, seen = [_function(call)], set[FunctionType]()
    home = pending[0].__module__.partition(".")[0] if pending[0] is not None else ""
    while pending:
        function = pending.pop()
        if function is None or function in seen or function.__module__.partition(".")[0] not in (home, "src"):
            continue
        seen.add(function)
        source = _source(function)
        if source is None:
            continue
        for node in source.nodes:
            value = _value(node, source.names)
            if isinstance(value, ErrorCode):
                answers.codes.add(value)
            elif callable(value) and not inspect.isclass(value):
                pending.append(_function(value))
            elif isinstance(node, ast.Call):
                _note_call(node, source.names, answers)
            elif isinstance(node, ast.Assign):
                _note_assignment(node, source.names, answers)


def _note_challenge(scheme: SecurityBase, answers: Answers) -> None:
    """FastAPI's own schemes refuse by themselves, unless they are told not to."""
    if getattr(scheme, "auto_error", False) and hasattr(scheme, "make_not_authenticated_error"):
        answers.raised.add(scheme.make_not_authenticated_error().status_code)


def _note_call(node: ast.Call, names: dict[str, Any], answers: Answers) -> None:  # Any: a module's namespace
    made = _value(node.func, names)
    if inspect.isclass(made) and issubclass(made, HTTPException):
        _note(answers.raised, _argument(node, 0, "status_code"), names)
    elif inspect.isclass(made) and issubclass(made, JSONResponse):
        _note(answers.rendered, _argument(node, 1, "status_code"), names)
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "success":
        owner = _value(node.func.value, names)
        if inspect.isclass(owner) and issubclass(owner, Response):
            _note(answers.returned, _argument(node, 2, "code"), names)


def _note_assignment(node: ast.Assign, names: dict[str, Any], answers: Answers) -> None:  # Any: as above
    if any(isinstance(target, ast.Attribute) and target.attr == "status_code" for target in node.targets):
        _note(answers.returned, node.value, names)


def _note(statuses: set[int], written: ast.expr | None, names: dict[str, Any]) -> None:  # Any: as above
    value = written.value if isinstance(written, ast.Constant) else _value(written, names)
    if isinstance(value, int) and HTTPStatus.OK <= value < 600:  # noqa: PLR2004 - RFC 9110 §15 ends there
        statuses.add(int(value))


def _argument(node: ast.Call, place: int, name: str) -> ast.expr | None:
    if len(node.args) > place:
        return node.args[place]
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _function(call: object) -> FunctionType | None:
    """The function behind a method, a partial, a cache, a class or an instance that can be called."""
    if isinstance(call, functools.partial):
        return _function(call.func)
    if isinstance(call, MethodType):
        return _function(call.__func__)
    if isinstance(call, FunctionType):
        return call
    if isinstance(call, functools._lru_cache_wrapper):  # noqa: SLF001 - the only name of its type
        return _function(call.__wrapped__)
    made = inspect.getattr_static(call, "__init__", None) if inspect.isclass(call) else None
    called = made or inspect.getattr_static(type(call), "__call__", None)
    return called if isinstance(called, FunctionType) else None


class _Source(NamedTuple):
    names: dict[str, Any]  # Any: what they stand for
    own: list[ast.AST]
    """The function's nodes without those of functions inside it."""
    nodes: list[ast.AST]


@functools.cache
def _source(function: FunctionType) -> _Source | None:
    try:
        # Of the code, since of a function it would be that of the one which it wraps.
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, TypeError, SyntaxError):
        return None
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    names = function.__globals__ | {name: _content(cell) for name, cell in cells}
    body = getattr(tree.body[0], "body", [])
    statements = body if isinstance(body, list) else [body]
    own = [node for statement in statements for node in _outer(statement)]
    return _Source(names, own, [node for statement in statements for node in ast.walk(statement)])


def _outer(node: ast.AST) -> Iterator[ast.AST]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _outer(child)


def _content(cell: Any) -> object:  # Any: types.CellType has no type for its content
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _value(node: ast.AST | None, names: dict[str, Any]) -> object:  # Any: a module's namespace
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Subscript):
        return _value(node.value, names)  # Response[Item]
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, names)
        if isinstance(owner, EnumType):
            return owner.__members__.get(node.attr)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return inspect.getattr_static(owner, node.attr, None)
    return None

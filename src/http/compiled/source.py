"""Writes a route down as one straight-line coroutine: what FastAPI finds out with each request, found out once.

The order of everything is that of FastAPI's own `solve_dependencies`: dependencies depth first, then path, query,
header, cookie and body; a dependency with bad input is not called, the others still are, and all errors are told at
once. Validation is done by the very validators that FastAPI made.
"""

import ast
import inspect
import keyword
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

from fastapi import BackgroundTasks
from fastapi._compat import ModelField, Undefined, field_annotation_is_sequence
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import (
    Dependant,
    _get_cache_key,
    _get_oauth_scopes,
    _is_async_gen_callable,
    _is_coroutine_callable,
    _is_gen_callable,
)
from fastapi.dependencies.utils import (
    _get_form_models,
    _get_param_aliases,
    _get_param_model,
    _should_embed_body_fields,
    _solve_generator,
    _validate_value_with_model_field,
    request_body_to_args,
    request_params_to_args,
)
from fastapi.exceptions import FastAPIError
from fastapi.params import Form
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from fastapi_pagination.ext.sqlalchemy import apaginate
from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaSerializer, SchemaValidator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response as RawResponse
from starlette.types import Scope

from src.http.attempts import BEFORE_COMMIT
from src.http.compiled import runtime
from src.http.envelope import NOT_SENT, AnyValue, Facts
from src.http.errors import BODILESS
from src.http.query import parsed_query
from src.http.response import Response
from src.http.strict_json import StrictRequest
from src.shared.database import get_session
from src.shared.inline import context_of, is_for_its_value, is_inline, plain_of, reader_of
from src.shared.lane import PageJson, page_writer

Endpoint = Callable[..., Any]  # Any: whatever a team writes


class NotUnderstoodError(Exception):
    """Its text says what a route has that FastAPI's own path must serve."""


@dataclass(frozen=True)
class Compiled:
    """A route's coroutine: `await call(scope, receive, send, path_params)`.

    It returns finished JSON (bytes, or a pair of status and bytes when the status is not the route's), or a Response
    that is still to be sent; when it `sends`, it has sent it, since something of it may only end behind the answer.
    """

    call: Callable[..., Any]  # Any: generated
    source: str
    status: int
    sends: bool
    reads: bool
    """Whether it makes a Request, which may be asked for all that a scope has, and may receive the body."""


class _Open(NamedTuple):
    """What must end before the answer leaves: lines of code, and on which condition."""

    fail: str
    end: str
    end_when: str | None
    fail_when: str | None = None


@dataclass
class _Solved:
    arguments: list[tuple[str, str]] = field(default_factory=list)
    errors: str | None = None
    """The variable that holds a list of errors, or None when there are none; None for what takes no input."""


def compile_route(
    original: APIRoute, route: Any, facts: Facts
) -> Compiled:  # Any: APIRoute, or FastAPI's private context
    """Raises NotUnderstoodError."""
    _refuse_unknown(original, route, facts)
    return _Writer(route, facts).write()


def _refuse_unknown(original: APIRoute, route: Any, facts: Facts) -> None:  # Any: see compile_route
    kind = type(original)
    own = ("get_route_handler", "matches", "handle", "__call__")
    reasons = {
        "a route class of its own": any(getattr(kind, name) is not getattr(APIRoute, name) for name in own),
        "a body that a standard fixes": not facts.wraps,
        "a response class of its own": not isinstance(route.response_class, DefaultPlaceholder),
        "no response model": route.response_field is None,
        "a body limit of its own": route.max_body_size is not None,
        "a form": route.body_field is not None and isinstance(route.body_field.field_info, Form),
        "a stream": route.is_sse_stream or route.is_json_stream,
        "a status without a body": (route.status_code or 200) in BODILESS,
    }
    for reason, found in reasons.items():
        if found:
            raise NotUnderstoodError(reason)


def _everything(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for sub in dependant.dependencies:
        yield from _everything(sub)


class _Writer:
    def __init__(self, route: Any, facts: Facts) -> None:  # Any: see compile_route
        self._route = route
        self._facts = facts
        self._dependant: Dependant = route.dependant
        self._status: int = route.status_code or 200
        self._names: dict[str, Any] = {}  # Any: what the generated code refers to
        self._lines: list[str] = []
        self._depth = 1
        self._solved: dict[Any, tuple[str, str | None]] = {}  # Any: FastAPI's cache keys
        self._used: set[str] = set()
        self._open: list[_Open] = []
        self._variables: set[str] = set()
        tree = list(_everything(self._dependant))
        for each in tree[1:]:
            if not each.use_cache or each.concurrency is not None or each.websocket_param_name:
                raise NotUnderstoodError("a dependency without a cache, or with a limit of its own")
        generators = [each for each in tree[1:] if _is_gen_callable(each.call) or _is_async_gen_callable(each.call)]
        # Generators of unknown manners go onto FastAPI's own stacks, and then ours do too, for the order's sake. So does
        # one of the request's scope: it ends behind the answer.
        self._stacks = not all(
            is_inline(each.call) and each.scope == "function" and _is_async_gen_callable(each.call)
            for each in generators
        )
        self._wanted = {_get_cache_key(dependant=each) for each in tree[1:] if each.name is not None}
        self._has_response = any(each.response_param_name for each in tree[1:]) or facts.response_name is not None
        self._has_background = any(each.background_tasks_param_name for each in tree)

    def write(self) -> Compiled:
        name = self._bind(f"serve_{_hint(self._facts.endpoint)}", None)
        if self._stacks:
            self._write_with_stacks()
        else:
            self._write_body()
            self._line("return outcome")
        head = [f"async def {name}(scope, receive, send, path_params):"]
        if "request" in self._used:
            head.append(f"    request = {self._bind('StrictRequest', StrictRequest)}(scope, receive, send)")
        source = "\n".join([*head, *self._lines]) + "\n"
        names = dict(self._names)
        exec(compile(source, f"<compiled {self._route.path_format}>", "exec"), names)  # noqa: S102 - written by us, from the route alone
        call = names[name]
        call.__module__ = __name__
        return Compiled(call, source, self._status, self._stacks, "request" in self._used)

    # --- text -------------------------------------------------------------------------------------------------------

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def _bind(self, hint: str, value: Any) -> str:  # Any: whatever the code refers to
        """A name for the value: the hint, with a number behind it where another value has it already."""
        hint = hint if hint.isidentifier() and hint.isascii() and not keyword.iskeyword(hint) else "value"
        name, number = hint, 2
        while name in _LOCALS or name in self._variables or self._names.get(name, value) is not value:
            name, number = f"{hint}_{number}", number + 1
        self._names[name] = value
        return name

    def _variable(self, prefix: str) -> str:
        name = f"{prefix}{len(self._variables) + 1}"
        while name in self._names:
            name += "_"
        self._variables.add(name)
        return name

    def _request(self) -> str:
        self._used.add("request")
        return "request"

    # --- the whole --------------------------------------------------------------------------------------------------

    def _write_with_stacks(self) -> None:
        stack = self._bind("AsyncExitStack", AsyncExitStack)
        self._line("sent = False")
        with self._block(f"async with {stack}() as request_stack:"):
            self._line("scope['fastapi_inner_astack'] = request_stack")
            with self._block(f"async with {stack}() as function_stack:"):
                self._line("scope['fastapi_function_astack'] = function_stack")
                self._write_body()
            self._line(f"await {self._bind('deliver', runtime.deliver)}(outcome, {self._status}, scope, receive, send)")
            self._line("sent = True")
        with self._block("if not sent:"):
            self._line(f"raise {self._bind('FastAPIError', FastAPIError)}({NOT_SENT!r})")

    def _write_body(self) -> None:
        facts, depth = self._facts, self._depth
        self._line("query = scope['query_string']")
        if facts.check is not None:
            with self._block("if query:"):
                self._line(f"{self._bind('check_query', facts.check)}(query)")
        if facts.body_first:
            self._line(f"await {self._request()}.body()")
        if self._route.body_field is not None:
            strict = self._route.strict_content_type
            strict = strict.value if isinstance(strict, DefaultPlaceholder) else strict
            read = self._bind("read_body", runtime.read_body)
            context = self._bind("endpoint_context", self._context)
            self._line(f"body = await {read}({self._request()}, {bool(strict)}, {context})")
        if self._has_response:
            self._line(f"response = {self._bind('new_response', runtime.new_response)}()")
        if self._has_background:
            self._line("background = None")
        solved = self._solve(self._dependant)
        if solved.errors is not None:
            body = "body" if self._route.body_field is not None else self._bind("Undefined", Undefined)
            with self._block(f"if {solved.errors} is not None:"):
                wrong, context = (
                    self._bind("invalid_request", runtime.invalid_request),
                    self._bind("endpoint_context", self._context),
                )
                self._line(f"raise {wrong}({solved.errors}, {body}, {context}(scope))")
        self._write_call(solved)
        self._close(depth)

    @cached_property
    def _context(self) -> runtime.Context:
        return runtime.endpoint_context(self._dependant)

    def _close(self, depth: int) -> None:
        while self._depth > depth:
            opened = self._open.pop()
            self._depth -= 1
            with self._block("except BaseException as error:"):
                self._line(f"if {opened.fail_when}: {opened.fail}" if opened.fail_when else opened.fail)
                self._line("raise")
            self._line(f"if {opened.end_when}: {opened.end}" if opened.end_when else opened.end)

    # --- dependencies -----------------------------------------------------------------------------------------------

    def _solve(self, dependant: Dependant) -> _Solved:
        solved = _Solved()
        failing: list[str] = []
        for sub in dependant.dependencies:
            value, errors = self._dependency(sub)
            if errors is not None:
                failing.append(errors)
            if sub.name is not None:
                solved.arguments.append((sub.name, value))
        own = self._takes_input(dependant)
        if failing or own:
            solved.errors = self._variable("errors")
            self._line(f"{solved.errors} = None")
            for errors in failing:
                with self._block(f"if {errors} is not None:"):
                    self._line(f"{solved.errors} = [*({solved.errors} or ()), *{errors}]")
        for fields, source in (
            (dependant.path_params, self._path),
            (dependant.query_params, self._query),
            (dependant.header_params, self._header),
            (dependant.cookie_params, self._cookie),
        ):
            if fields:
                source(fields, solved)
        if dependant.body_params:
            self._body(dependant.body_params, solved)
        self._special(dependant, solved)
        return solved

    def _takes_input(self, dependant: Dependant) -> bool:
        return bool(
            dependant.path_params
            or dependant.query_params
            or dependant.header_params
            or dependant.cookie_params
            or dependant.body_params
        )

    def _dependency(self, sub: Dependant) -> tuple[str, str | None]:
        key = _get_cache_key(dependant=sub)
        if key in self._solved:
            return self._solved[key]
        if (reader := reader_of(sub.call)) is not None:
            value = self._variable(_hint(sub.call))
            self._line(f"{value} = {self._bind(_hint(sub.call), reader)}(scope)")
            self._solved[key] = value, None
            return value, None
        solved = self._solve(sub)
        if is_for_its_value(sub.call) and key not in self._wanted:
            self._solved[key] = "None", solved.errors
            return self._solved[key]
        value = self._variable(_hint(sub.call))
        arguments = ", ".join(f"{name}={expression}" for name, expression in solved.arguments)
        if not self._stacks and _is_async_gen_callable(sub.call):
            if (context := context_of(sub.call)) is not None and not solved.arguments:
                self._open_context(self._bind(f"{_hint(sub.call)}_context", context), value)
            else:
                self._generator(self._bind(_hint(sub.call), sub.call), arguments, value, solved.errors)
            self._solved[key] = value, solved.errors
            return value, solved.errors
        work = f"{value} = {self._work(sub, solved, arguments)}"
        if solved.errors is None:
            self._line(work)
        else:
            self._line(f"{value} = None")
            with self._block(f"if {solved.errors} is None:"):
                self._line(work)
        self._solved[key] = value, solved.errors
        return value, solved.errors

    def _work(self, sub: Dependant, solved: _Solved, arguments: str) -> str:
        """The expression that gives the value of a dependency that is nothing to end."""
        if _is_gen_callable(sub.call) or _is_async_gen_callable(sub.call):
            stack = "function_stack" if sub.scope == "function" else "request_stack"
            values = "{" + ", ".join(f"{name!r}: {expression}" for name, expression in solved.arguments) + "}"
            enter = self._bind("enter_generator", _solve_generator)
            dependant = self._bind("dependant", sub)
            return (
                f"await {enter}(dependant={dependant}, stack={stack}, sub_values={values}, request={self._request()})"
            )
        if (plain := plain_of(sub.call)) is not None:
            return f"{self._bind(_hint(sub.call), plain)}({arguments})"
        call = self._bind(_hint(sub.call), sub.call)
        if _is_coroutine_callable(sub.call):
            return f"await {call}({arguments})"
        if _computes(sub.call):
            return f"{call}({arguments})"
        threads = self._bind("run_in_threadpool", run_in_threadpool)
        return f"await {threads}({call}{', ' if arguments else ''}{arguments})"

    def _open_context(self, context: str, value: str) -> None:
        name = self._variable("context")
        self._line(f"{name} = {context}()")
        self._line(f"{value} = {name}.open()")
        self._open.append(
            _Open(
                f"await {name}.__aexit__(type(error), error, error.__traceback__)",
                f"await {name}.__aexit__(None, None, None)",
                f"not {name}.end_unused()",
            )
        )
        self._line("try:")
        self._depth += 1

    def _generator(self, call: str, arguments: str, value: str, errors: str | None) -> None:
        name = self._variable("generator")
        if errors is None:
            self._line(f"{name} = {call}({arguments})")
            self._line(f"{value} = await {name}.__anext__()")
        else:
            self._line(f"{name} = {value} = None")
            with self._block(f"if {errors} is None:"):
                self._line(f"{name} = {call}({arguments})")
                self._line(f"{value} = await {name}.__anext__()")
        when = None if errors is None else f"{name} is not None"
        end = f"await {self._bind('finish', runtime.finish)}({name})"
        self._open.append(_Open(f"await {self._bind('fail', runtime.fail)}({name}, error)", end, when, when))
        self._line("try:")
        self._depth += 1

    def _special(self, dependant: Dependant, solved: _Solved) -> None:
        is_endpoint = dependant is self._dependant
        # The envelope asked for these two on its own behalf; the endpoint gets them only under its own names.
        request_name = self._facts.request_name if is_endpoint else dependant.request_param_name
        response_name = self._facts.response_name if is_endpoint else dependant.response_param_name
        for name in (dependant.http_connection_param_name, request_name):
            if name:
                solved.arguments.append((name, self._request()))
        if dependant.background_tasks_param_name:
            with self._block("if background is None:"):
                self._line(f"background = {self._bind('BackgroundTasks', BackgroundTasks)}()")
            solved.arguments.append((dependant.background_tasks_param_name, "background"))
        if response_name:
            solved.arguments.append((response_name, "response"))
        if dependant.security_scopes_param_name:
            scopes = self._bind("SecurityScopes", SecurityScopes)
            solved.arguments.append(
                (dependant.security_scopes_param_name, f"{scopes}(scopes={_get_oauth_scopes(dependant=dependant)!r})")
            )

    # --- input ------------------------------------------------------------------------------------------------------

    def _path(self, fields: list[ModelField], solved: _Solved) -> None:
        for each in fields:
            if not _is_simple(each):
                raise NotUnderstoodError("a path parameter of an unusual kind")
            loc = ("path", each.alias)
            self._value(each, solved, f"path_params.get({each.alias!r})", loc)

    def _query(self, fields: list[ModelField], solved: _Solved) -> None:
        if not all(map(_is_simple, fields)):
            self._generic(fields, solved, f"{self._request()}.query_params")
            return
        parsed = self._bind("parsed_query", parsed_query)
        if "given" not in self._used:
            self._used.add("given")
            self._line(f"given = dict({parsed}(query)) if query else {{}}")
        for each in fields:
            self._value(each, solved, f"given.get({each.alias!r})", ("query", each.alias))

    def _header(self, fields: list[ModelField], solved: _Solved) -> None:
        if not all(map(_is_simple, fields)):
            self._generic(fields, solved, f"{self._request()}.headers")
            return
        find = self._bind("find_header", runtime.find_header)
        for each in fields:
            name = each.alias.lower().encode("latin-1", "replace")
            self._value(each, solved, f"{find}(scope, {name!r})", ("header", each.alias))

    def _cookie(self, fields: list[ModelField], solved: _Solved) -> None:
        self._generic(fields, solved, f"{self._request()}.cookies")

    def _generic(self, fields: list[ModelField], solved: _Solved, received: str) -> None:
        """FastAPI's own reader, for models, lists and aliases of every kind."""
        read, all_fields = self._bind("read_parameters", request_params_to_args), self._bind("fields", fields)
        values, errors = self._variable("values"), self._variable("errors")
        self._line(f"{values}, {errors} = {read}({all_fields}, {received})")
        self._add_errors(solved, errors)
        for each in fields:
            solved.arguments.append((each.name, f"{values}.get({each.name!r})"))

    def _value(self, each: ModelField, solved: _Solved, raw: str, loc: tuple[str, str]) -> None:
        value, field_name = self._variable("value"), self._bind(f"{each.name}_field", each)
        validate = self._bind(f"validate_{each.name}", _validator(each))
        self._line(f"{value} = {raw}")
        constant = _constant_default(each)
        with self._block(f"if {value} is None:"):
            if constant is _NO_CONSTANT:
                missing, undefined = (
                    self._bind("default_of", _validate_value_with_model_field),
                    self._bind("Undefined", Undefined),
                )
                errors = self._variable("errors")
                self._line(
                    f"{value}, {errors} = {missing}(field={field_name}, value={undefined}, values={{}}, loc={loc!r})"
                )
                self._add_errors(solved, errors)
            else:
                self._line(f"{value} = {self._bind(f'{each.name}_default', constant)}")
        with self._block("else:"):
            self._validated(value, validate, loc, solved)
        solved.arguments.append((each.name, value))

    def _validated(self, value: str, validate: str, loc: tuple[str, ...], solved: _Solved) -> None:
        with self._block("try:"):
            self._line(f"{value} = {validate}({value}, from_attributes=True)")
        with self._block(f"except {self._bind('ValidationError', ValidationError)} as invalid:"):
            errors = self._variable("errors")
            self._line(f"{value}, {errors} = None, {self._bind('errors_of', runtime.errors_of)}(invalid, {loc!r})")
            self._add_errors(solved, errors)

    def _add_errors(self, solved: _Solved, errors: str) -> None:
        with self._block(f"if {errors}:"):
            self._line(f"{solved.errors} = [*({solved.errors} or ()), *{errors}]")

    def _body(self, fields: list[ModelField], solved: _Solved) -> None:
        embed = self._route._embed_body_fields  # noqa: SLF001 - FastAPI's handler is given it too
        single = fields[0]
        if len(fields) == 1 and not embed and not _should_embed_body_fields(fields) and not _get_form_models(single):
            value, field_name = self._variable("value"), self._bind(f"{single.name}_field", single)
            undefined = self._bind("Undefined", Undefined)
            self._line(f"{value} = body")
            with self._block(f"if body is {undefined}:"):
                errors = self._variable("errors")
                missing = self._bind("default_of", _validate_value_with_model_field)
                self._line(f"{value}, {errors} = {missing}(field={field_name}, value=body, values={{}}, loc=('body',))")
                self._add_errors(solved, errors)
            with self._block("else:"):
                validate = self._bind(f"validate_{single.name}", _validator(single))
                self._validated(value, validate, ("body",), solved)
            solved.arguments.append((single.name, value))
            return
        read, all_fields = self._bind("read_body_fields", request_body_to_args), self._bind("fields", fields)
        values, errors = self._variable("values"), self._variable("errors")
        self._line(
            f"{values}, {errors} = await {read}(body_fields={all_fields}, received_body=body, embed_body_fields={embed})"
        )
        self._add_errors(solved, errors)
        for each in fields:
            solved.arguments.append((each.name, f"{values}.get({each.name!r})"))

    # --- the endpoint and its answer --------------------------------------------------------------------------------

    def _write_call(self, solved: _Solved) -> None:
        endpoint = self._facts.endpoint
        call = self._bind(_hint(endpoint), endpoint)
        arguments = ", ".join(f"{name}={expression}" for name, expression in solved.arguments)
        pages = self._pages_json(solved)
        if pages is not None:
            session, writer = pages
            self._line(f"{session}.page_json = {self._bind('page_writer', writer)}")
        if _is_coroutine_callable(endpoint):
            self._line(f"value = await {call}({arguments})")
        else:
            threads = self._bind("run_in_threadpool", run_in_threadpool)
            self._line(f"value = await {threads}({call}{', ' if arguments else ''}{arguments})")
        response = "response" if self._has_response else "None"
        background = "background" if self._has_background else "None"
        raw, ours = self._bind("RawResponse", RawResponse), self._bind("Response", Response)
        # Not isinstance for ours: of a model of pydantic's that asks its metaclass, in Python.
        with self._block(f"if isinstance(value, {raw}) or {ours} in type(value).__mro__:"):
            answer = self._bind("answer", runtime.answer)
            serialise = self._bind("serialise", self._serialise)
            self._line(f"outcome = {answer}(value, scope, {serialise}, {self._status}, {response}, {background})")
        if pages is not None:
            with self._block(f"elif type(value) is {self._bind('PageJson', PageJson)}:"):
                self._line(f"outcome = {self._prefix()!r} + value + b'}}'")
        with self._block("else:"):
            self._write_serialisation()
        plain = []
        if self._has_response:
            plain.append("response.raw_headers or response.status_code")
        if self._has_background:
            plain.append("background is not None")
        if plain:
            # `answer` has heeded them already.
            with self._block(f"if ({' or '.join(plain)}) and type(outcome) is bytes:"):
                dressed = self._bind("dressed", runtime.dressed)
                self._line(
                    f"outcome = {dressed}(outcome, {len(self._prefix())}, {self._status}, {response}, {background})"
                )
        with self._block(f"if {BEFORE_COMMIT!r} in scope:"):
            before = self._bind("before_commit", runtime.run_before_commit)
            self._line(f"outcome = await {before}(scope, outcome, {self._status})")

    def _prefix(self) -> bytes:
        return b'{"code":%d,"msg":"success","data":' % self._status

    def _write_serialisation(self) -> None:
        response_field = self._route.response_field
        if not isinstance(response_field, AnyValue):
            validate = self._bind("validate_answer", _validator(response_field))
            with self._block("try:"):
                self._line(f"valid = {validate}(value, from_attributes=True)")
            with self._block(f"except {self._bind('ValidationError', ValidationError)} as invalid:"):
                wrong, context = (
                    self._bind("invalid_answer", runtime.invalid_answer),
                    self._bind("endpoint_context", self._context),
                )
                self._line(
                    f"raise {wrong}({self._bind('errors_of', runtime.errors_of)}(invalid, ('response',)), value, {context}(scope)) from None"
                )
        else:
            self._line("valid = value")
        to_json = self._bind("to_json", self._to_json)
        self._line(f"outcome = {self._prefix()!r} + {to_json}(valid) + b'}}'")

    def _serialise(self, value: Any, scope: Scope) -> bytes:  # Any: what an endpoint returned
        """The same for the rarer forms: `Response.success(data=…)`."""
        response_field = self._route.response_field
        valid, errors = response_field.validate(value, {}, loc=("response",))
        if errors:
            raise runtime.invalid_answer(errors, value, self._context(scope))
        return self._to_json(valid)

    @cached_property
    def _to_json(self) -> Callable[[Any], bytes]:  # Any: what an endpoint returned
        response_field = self._route.response_field
        if isinstance(response_field, AnyValue):
            return response_field.writer(**self._shape)
        return _json_writer(response_field, self._shape)

    @cached_property
    def _shape(self) -> dict[str, Any]:  # Any: as FastAPI has them
        return {name: getattr(self._route, f"response_model_{name}") for name in _DEFAULT_SHAPE}

    def _pages_json(self, solved: _Solved) -> tuple[str, Any] | None:  # Any: the lane's writer
        """Whether the endpoint hands the page on as it is: `return await apaginate(session, …)`."""
        name = next((sub.name for sub in self._dependant.dependencies if sub.call is get_session and sub.name), None)
        if name is None or not returns_page(self._facts.endpoint, name):
            return None
        if self._shape != _DEFAULT_SHAPE:
            return None
        writer = page_writer(self._route.response_model)
        return None if writer is None else (dict(solved.arguments)[name], writer)


_LOCALS = frozenset(
    re.findall(
        r"\w+",
        """
    scope receive send path_params query request body response background given value valid invalid outcome error
    sent request_stack function_stack isinstance type dict
""",
    )
)
_NO_CONSTANT = object()
_CONSTANTS = (type(None), bool, int, float, str, bytes)


def _hint(call: Any) -> str:  # Any: a callable of any kind
    hint = getattr(call, "__name__", type(call).__name__)
    return hint.lstrip("_") if hint.lstrip("_").isidentifier() else "call"


def _is_simple(each: ModelField) -> bool:
    """One scalar under one name, whose text goes to the validator as it is."""
    return (
        _get_param_model(each) is None
        and not field_annotation_is_sequence(each.field_info.annotation)
        and [name for _, name in _get_param_aliases(each)] == [each.alias]
    )


def _constant_default(each: ModelField) -> object:
    if each.field_info.is_required() or each.field_info.validate_default or each.field_info.default_factory is not None:
        return _NO_CONSTANT
    default = deepcopy(each.default)
    return default if type(default) in _CONSTANTS else _NO_CONSTANT


def _validator(each: ModelField) -> Callable[..., Any]:  # Any: what it was asked to make
    validator = each._type_adapter.validator  # noqa: SLF001 - the very one that FastAPI uses
    if not isinstance(validator, SchemaValidator):
        raise NotUnderstoodError("a type that is not complete when the app starts")
    return validator.validate_python


def _json_writer(each: ModelField, shape: dict[str, Any]) -> Callable[[Any], bytes]:  # Any: as FastAPI has them
    serializer: object = each._type_adapter.serializer  # noqa: SLF001 - as above; a mock while the type is incomplete
    if not isinstance(serializer, SchemaSerializer) or type(each).serialize_json is not ModelField.serialize_json:
        raise NotUnderstoodError("a type that is not complete when the app starts")
    to_json = serializer.to_json
    plain = {name: value for name, value in shape.items() if value != _DEFAULT_SHAPE[name]}
    if plain:
        return lambda value: each.serialize_json(value, **shape)
    return partial(to_json, by_alias=True)


_DEFAULT_SHAPE = {
    "include": None,
    "exclude": None,
    "by_alias": True,
    "exclude_unset": False,
    "exclude_defaults": False,
    "exclude_none": False,
}


def _computes(call: Any) -> bool:  # Any: a callable of any kind
    """What only computes needs no thread: what is marked so, and models of pydantic without an `__init__` of their own."""
    return is_inline(call) or (
        inspect.isclass(call)
        and issubclass(call, BaseModel)
        and call.__init__ is BaseModel.__init__
        and call.model_post_init is BaseModel.model_post_init
    )


def returns_page(endpoint: Endpoint, session: str) -> bool:
    """Whether all that the endpoint does with its session is `return await apaginate(session, …)`, once."""
    if not inspect.isfunction(endpoint) or hasattr(endpoint, "__wrapped__"):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(endpoint.__code__))).body[0]
    except (OSError, TypeError, SyntaxError):
        return False
    if not isinstance(tree, ast.AsyncFunctionDef):
        return False
    nodes = [node for statement in tree.body for node in ast.walk(statement)]
    if sum(isinstance(node, ast.Name) and node.id == session for node in nodes) != 1:
        return False
    for node in nodes:
        match node:
            case ast.Return(
                value=ast.Await(value=ast.Call(func=ast.Name(id=function), args=[ast.Name(id=first), *_]))
            ) if first == session:
                return endpoint.__globals__.get(function) is apaginate
    return False

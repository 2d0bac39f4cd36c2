"""The walls that a contract on imports cannot see. Each check takes a house and names the places that break it."""

import ast
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import grimp

HOUSE_CONTROLLERS = frozenset({"health"})  # about the house itself, no domain
SAYS_NOTHING = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"})
ENDS_TRANSACTIONS = frozenset({"commit", "rollback", "begin"})
DOMAINS_TO_SHARE = 3

# Names of src.shared that fewer than three domains use and that belong there all the same, each with its reason. An
# entry that is no longer needed fails as well.
SHARED_ANYWAY = {
    "src.shared.endings.after_commit": "the session keeps the promise; that outbox alone asks for it so far is chance",
    "src.shared.endings.before_commit": "as after_commit, for audit",
    "src.shared.signatures.verify": "who reads a signature and who makes one go by one room",
    "src.shared.cache_keys": "the patterns name cache keys among what belongs in shared",
    "src.shared.cache_keys.cache_key": "as its module",
    "src.shared.inline.for_its_value": "auth says it of current_user; the compiler, which heeds it, knows no domain",
    "src.shared.inline.reads_scope": "as for_its_value, of the bearer token",
    "src.shared.watching.watch_tables": "auth says which tables decide rights; the engine, which watches, knows none",
    "src.shared.types.Day": "as Name",
    "src.shared.types.Moment": "as Name",
    "src.shared.types.Name": "hostile text is refused in one room; split up, a domain would copy the rule",
    "src.shared.types.Text": "as Name",
    "src.shared.types.start_of_day": "one room knows the presentation zone",
}


# Controllers


def controllers_touch_no_data(house: Path) -> list[str]:
    """A session is passed on and never used, and a page is a page of a service's query."""
    found = []
    for path, tree in _modules(house, "src/http/controllers"):
        services = _service_names(tree)
        for function in _functions(tree):
            sessions = _sessions(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in sessions:
                    found.append(f"{path}:{node.lineno}: {node.value.id}.{node.attr} is for services")
                if (_calls(node, "apaginate") or _calls(node, "paginate")) and not _is_service_call(
                    _argument(node, 1), services
                ):
                    found.append(f"{path}:{_line(node)}: apaginate takes the query of a service")
    return found


def controllers_call_one_service(house: Path) -> list[str]:
    found = []
    for path, tree in _modules(house, "src/http/controllers"):
        services = _service_names(tree)
        for function in _functions(tree):
            calls = sum(_is_service_call(node, services) for node in ast.walk(function))
            if calls > 1:
                found.append(f"{path}:{function.lineno}: {function.name} makes {calls} service calls")
    return found


def controllers_are_named_like_domains(house: Path) -> list[str]:
    known = {name.rpartition(".")[2] for name in _domains(house)} | HOUSE_CONTROLLERS
    return [
        f"{path}: no domain is called {Path(path).stem}"
        for path, _ in _modules(house, "src/http/controllers")
        if Path(path).stem not in known | {"__init__"}
    ]


def _service_names(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("src.")
        for alias in node.names
        if alias.name == "services"
    }


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


_SESSION = re.compile(r"\b(SessionDep|AsyncSession)\b")


def _sessions(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    typed = {
        argument.arg
        for argument in arguments
        if argument.annotation is not None and _SESSION.search(ast.unparse(argument.annotation))
    }
    return typed | {"session"}


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _argument(call: ast.AST, position: int) -> ast.AST | None:
    assert isinstance(call, ast.Call)
    value = call.args[position] if len(call.args) > position else None
    return value.value if isinstance(value, ast.Await) else value


def _is_service_call(node: ast.AST | None, services: set[str]) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in services
        and node.func.attr[:1].islower()  # auth.Device(…) is a value, no call
    )


# Tables


def models_resolve_annotations(house: Path) -> list[str]:
    """SQLModel reads annotations when the class is made: as strings they are lost."""
    return [
        f"{path}:{node.lineno}: `from __future__ import annotations` in a models module"
        for path, tree in _modules(house)
        if path.endswith("/models.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]


def relationships_stay_at_home(house: Path) -> list[str]:
    """Another domain's rows are reached through its services: a string foreign key, no Relationship."""
    found = []
    for path, tree in _modules(house):
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and node.value is not None and _calls(node.value, "Relationship"):
                words = set(re.findall(r"\w+", ast.unparse(node.annotation))) - {"list", "None", "Optional"}
                found += [f"{path}:{node.lineno}: a Relationship to {name}" for name in sorted(words - own)]
    return found


_ENDING = (
    "src/shared/database.py",
    "src/shared/endings.py",
    "src/shared/lane/session.py",
    "src/shared/lane/wire.py",
)


def transactions_end_in_one_place(house: Path) -> list[str]:
    """Only src/shared/database.py commits and rolls back, with the sessions that it makes; services may open
    savepoints."""
    found = []
    for path, tree in _modules(house):
        if path in _ENDING:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ENDS_TRANSACTIONS:
                found.append(f"{path}:{node.lineno}: .{node.attr} is for src/shared/database.py")
            if isinstance(node, ast.Attribute) and node.attr == "begin_nested" and "/services" not in path:
                found.append(f"{path}:{node.lineno}: savepoints are for services")
            if isinstance(node, ast.Constant) and re.match(r"\s*(COMMIT|ROLLBACK|BEGIN)\b", str(node.value)):
                found.append(f"{path}:{node.lineno}: {node.value!r} is for src/shared/database.py")
    return found


# Error codes


def codes_have_status_and_explanation(house: Path) -> list[str]:
    errors = _errors(house)
    return [
        f"{code.name} has no {what}"
        for code in errors.ErrorCode
        for what, told in (("HTTP status", errors.ERROR_CODE_TO_HTTP), ("explanation", errors.ERROR_CODE_EXPLAINED))
        if code not in told
    ]


def codes_are_raised(house: Path) -> list[str]:
    """Compared with is no use: somebody must say it. What only documents codes does not count."""
    said = set()
    for path, tree in _modules(house):
        if path not in ("src/shared/errors.py", "src/http/openapi.py", "src/cli/docs.py"):
            compared = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}
            said |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "ErrorCode"
                and id(node) not in compared
            }
    return [f"{code.name} is never raised" for code in _errors(house).ErrorCode if code.name not in said]


def codes_stay_as_published(house: Path) -> list[str]:
    """docs/error-codes.json is what clients were told: it may grow, no line of it may change."""
    published: dict[str, str] = json.loads((house / "docs/error-codes.json").read_text(encoding="utf-8"))
    codes = {str(code.value): code.name for code in _errors(house).ErrorCode}
    return [
        f"{code} was published as {name}, and is now {codes.get(code, 'gone')}"
        for code, name in published.items()
        if codes.get(code) != name
    ]


def _errors(house: Path) -> Any:  # Any: a module of that house, which nobody has imported
    spec = importlib.util.spec_from_file_location("errors_of_a_house", house / "src/shared/errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The shared floor


def shared_modules_are_shared(house: Path) -> list[str]:
    """By three domains, or by the house's machinery. A controller counts as part of its domain."""
    with standing_in(house):
        graph = grimp.build_graph("src", cache_dir=None)
    domains = _domains(house)
    users = {}
    for module in graph.find_children("src.shared"):
        own = {module, *graph.find_descendants(module)}
        importers = set().union(*(graph.find_modules_that_directly_import(room) for room in own)) - own
        users[module] = {_owner(importer, domains) for importer in importers}
    return _too_few(users)


def shared_names_are_shared(house: Path) -> list[str]:
    """As modules are; a name that its own module builds on counts as used by the house.

    Of a package its door is judged, and the rooms behind it are its own business.
    """
    domains = _domains(house)
    users: dict[str, set[str]] = {name: set() for name in _public_names(house)}
    for path, tree in [*_modules(house), *_modules(house, "migrations")]:
        for name in _names_used(tree, _dotted(path)) & users.keys():
            users[name].add(_owner(_dotted(path), domains))
    return _too_few(users)


def _too_few(users: dict[str, set[str]]) -> list[str]:
    found = []
    for name, owners in sorted(users.items()):
        shared = "the house" in owners or len(owners) >= DOMAINS_TO_SHARE
        if not shared and name not in SHARED_ANYWAY:
            found.append(f"{name} is used by {', '.join(sorted(owners)) or 'nobody else'}")
        if shared and name in SHARED_ANYWAY:
            found.append(f"{name} is shared: SHARED_ANYWAY need not name it")
    return found


_ROOM = re.compile(r"^(src\.shared\.\w+)\.\w+(?=\.\w+$)")


def _owner(module: str, domains: set[str]) -> str:
    if module.startswith("src.http.controllers."):
        named = [domain for domain in domains if domain.rpartition(".")[2] == module.rpartition(".")[2]]
        return named[0] if named else "the house"
    return next((domain for domain in domains if f"{module}.".startswith(f"{domain}.")), "the house")


def _domains(house: Path) -> set[str]:
    """Where there are services, there is a domain."""
    modules = [*(house / "src").rglob("services.py"), *(house / "src").rglob("services")]
    return {_dotted(_name(house, path.parent)) for path in modules}


def _public_names(house: Path) -> set[str]:
    names = set()
    for path, tree in _modules(house, "src/shared"):
        behind_a_door = Path(path).parent.name != "shared" and Path(path).name != "__init__.py"
        if not behind_a_door:
            names |= {f"{_dotted(path)}.{name}" for name in _defined(tree) if not name.startswith("_")}
    return names


def _defined(tree: ast.Module) -> Iterator[str]:
    listed = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    if listed:
        yield from ast.literal_eval(listed[0].value)
        return
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
                yield name


def _names_used(tree: ast.Module, module: str) -> set[str]:
    meant = {name: f"{module}.{name}" for name in _defined(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            meant |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in meant:
            used.add(meant[node.id])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in meant:
            used.add(f"{meant[node.value.id]}.{node.attr}")
    # What the door of a package passes on is known by its room as well.
    return {_ROOM.sub(r"\1", name) for name in used}


# The whole house


def modules_say_what_they_are_for(house: Path) -> list[str]:
    return [
        f"{path}: opens without a docstring"
        for path, tree in _modules(house)
        if not (ast.get_docstring(tree) or "").strip()
    ]


def modules_have_names_of_the_field(house: Path) -> list[str]:
    return [
        f"{_name(house, path)}: a name that says nothing"
        for path in sorted((house / "src").rglob("*"))
        if path.suffix in ("", ".py") and SAYS_NOTHING & set(path.stem.lower().split("_"))
    ]


def middleware_is_pure_asgi(house: Path) -> list[str]:
    """BaseHTTPMiddleware costs 100 µs a request and breaks streams; `@app.middleware` is one in disguise."""
    found = []
    for path, tree in _modules(house):
        for node in ast.walk(tree):
            named = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            if "BaseHTTPMiddleware" in (*named, getattr(node, "id", ""), getattr(node, "attr", "")):
                found.append(f"{path}:{_line(node)}: BaseHTTPMiddleware")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "middleware":
                found.append(f"{path}:{node.lineno}: @app.middleware is a BaseHTTPMiddleware")
    return found


def src_is_not_on_the_path(house: Path) -> list[str]:
    """With src/ itself on sys.path, src/http would hide the standard library's http."""
    return [
        f"{path}:{node.lineno}: sys.path"
        for path, tree in [*_modules(house), *_modules(house, "migrations")]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"
    ]


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


# Reading a house


def _modules(house: Path, folder: str = "src") -> list[tuple[str, ast.Module]]:
    return [
        (_name(house, path), _parsed(path.read_text(encoding="utf-8")))
        for path in sorted((house / folder).rglob("*.py"))
    ]


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _name(house: Path, path: Path) -> str:
    return path.relative_to(house).as_posix()


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@contextmanager
def standing_in(house: Path) -> Iterator[None]:
    """`src` means this house to those who look it up without importing it: grimp and import-linter."""
    loaded = sys.modules.pop("src", None)
    sys.path.insert(0, str(house))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(house))
        if loaded is not None:
            sys.modules["src"] = loaded

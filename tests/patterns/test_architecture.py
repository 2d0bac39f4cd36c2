"""Patterns, Architecture: where the layers and the domains lie. What may import what is checked in tests/architecture."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.server import PROJECT

SRC = PROJECT / "src"
DOMAINS = [SRC / "auth", SRC / "users", SRC / "core" / "products", SRC / "core" / "orders"]


def test_each_domain_contains_models_schemas_and_services() -> None:
    for domain in DOMAINS:
        # One that no longer fits in the head is a package with the same import path.
        rooms = {file.stem for file in domain.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
        assert {"models", "schemas", "services"} <= rooms, domain


def test_tables_lie_in_models_and_nowhere_else() -> None:
    found = {file for file in SRC.rglob("*.py") if any(_is_table(node) for node in _classes(file))}

    assert found
    # The house's own book-keeping is no domain's.
    assert {file.name for file in found if SRC / "shared" not in file.parents} == {"models.py"}


def test_routes_lie_in_http_and_nowhere_else() -> None:
    found = {file for file in SRC.rglob("*.py") if "APIRouter(" in file.read_text()}

    assert found
    assert all((SRC / "http") in file.parents for file in found)


def test_core_holds_domains_and_nothing_else() -> None:
    assert [file.name for file in (SRC / "core").glob("*.py")] == ["__init__.py"]
    assert len((SRC / "core" / "__init__.py").read_text().splitlines()) == 1


def test_shared_knows_no_domain() -> None:
    for file in (SRC / "shared").rglob("*.py"):
        known = {name for name in _imports(file) if name.startswith("src.")}
        assert not {name for name in known if name.startswith(("src.auth", "src.users", "src.core", "src.http"))}, file


def _classes(file: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef))


def _is_table(node: ast.ClassDef) -> bool:
    return any(keyword.arg == "table" for keyword in node.keywords)


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module

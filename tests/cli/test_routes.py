"""`python -m src routes`: who serves which route, and with what code."""

import re

import pytest

from src.users.permissions import PERMISSIONS
from tests.support.server import PROJECT, run_command

PAGE = PROJECT / "docs" / "compiled-routes.md"
SHOWN = re.compile(r"<!-- compiled: (?P<method>\w+) (?P<path>\S+) -->\n```python\n(?P<code>.*?)```\n", re.DOTALL)


@pytest.fixture(scope="module")
def told() -> str:
    listed = run_command("routes", "--compiled", env={}, cwd=PROJECT)
    assert listed.returncode == 0, listed.stderr
    return listed.stdout


def test_each_route_is_listed_with_who_serves_it(told: str) -> None:
    assert "GET     /api/v1/users  compiled\n" in told
    assert "POST    /api/v1/auth/token  by FastAPI: " in told


def test_a_part_of_the_path_chooses(told: str) -> None:
    chosen = run_command("routes", "orders/", env={}, cwd=PROJECT).stdout.splitlines()

    assert chosen
    assert all("orders/" in line for line in chosen)
    assert len(chosen) < told.count("  compiled\n")


def test_nearly_all_routes_of_the_service_are_compiled(told: str) -> None:
    # The token endpoint and the key set, whose bodies standards fix, and the callback of payments, which has none.
    assert told.count("  by FastAPI: ") == 3


def test_the_page_shows_the_code_as_it_is(told: str) -> None:
    shown = SHOWN.search(PAGE.read_text(encoding="utf-8"))

    assert shown is not None
    head = f"{shown['method']:8}{shown['path']}  compiled\n\n"
    _, _, code = told.partition(head)
    assert code.partition("\n\n")[0] + "\n" == shown["code"], f"python -m src routes {shown['path']} --compiled"


def test_what_each_route_asks_of_its_caller_is_listed() -> None:
    listed = run_command("permissions", env={}, cwd=PROJECT)

    assert listed.returncode == 0, listed.stderr
    needs = {
        tuple(line.split(maxsplit=2)[:2]): line.split(maxsplit=2)[2]
        for line in listed.stdout.split("\n\n")[0].splitlines()
    }
    assert needs["GET", "/api/v1/users"] == "user:read"
    assert needs["GET", "/api/v1/admin/stats"] == "role admin"
    assert needs["GET", "/api/v1/profile"] == "log-in"
    assert needs["POST", "/api/v1/auth/login"] == "nothing"
    for name in PERMISSIONS:
        assert f"\n{name} " in listed.stdout


def test_each_permission_that_a_route_asks_for_is_one_that_can_be_given() -> None:
    listed = run_command("permissions", env={}, cwd=PROJECT).stdout.split("\n\n")[0]

    asked_for = set(re.findall(r"\b[a-z]+:[a-z]+\b", listed))
    assert asked_for
    assert asked_for <= set(PERMISSIONS)

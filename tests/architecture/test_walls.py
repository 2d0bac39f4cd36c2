"""The walls that imports do not show stand, and each check of them bites."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import walls
from tests.architecture.conftest import Plant
from tests.support.server import PROJECT

Check = Callable[[Path], list[str]]

ORDERS = "src/http/controllers/orders.py"
CODES = "src/shared/errors.py"
FIRST_CODE = "NOT_AUTHENTICATED = 10001"

# (check, where, what, how the check names it)
FAULTS: list[tuple[Check, str, str, str]] = [
    (walls.controllers_touch_no_data, ORDERS, "async def f(session):\n    await session.get(1)", "session.get is for"),
    (walls.controllers_touch_no_data, ORDERS, "async def f(db: SessionDep):\n    db.add(1)", "db.add is for"),
    (
        walls.controllers_touch_no_data,
        ORDERS,
        "async def f(s):\n    await apaginate(s, select(1))",
        "takes the query of",
    ),
    (
        walls.controllers_call_one_service,
        ORDERS,
        "async def f(session):\n    await orders.get_order(session)\n    await orders.cancel_order(session)",
        "f makes 2 service calls",
    ),
    (walls.controllers_are_named_like_domains, "src/http/controllers/shopping.py", "", "no domain is called shopping"),
    (
        walls.models_resolve_annotations,
        "src/core/invoices/models.py",
        "from __future__ import annotations",
        "src/core/invoices/models.py:2",
    ),
    (
        walls.relationships_stay_at_home,
        "src/core/orders/models.py",
        'class F(SQLModel):\n    products: list["Product"] = Relationship()',
        "a Relationship to Product",
    ),
    (
        walls.transactions_end_in_one_place,
        "src/users/services.py",
        "async def f(s):\n    await s.commit()",
        ".commit is",
    ),
    (walls.transactions_end_in_one_place, "src/http/app.py", "def f(s):\n    s.rollback()", "src/http/app.py:"),
    (walls.transactions_end_in_one_place, "src/retry.py", "def f(e):\n    e.begin()", "src/retry.py:"),
    (walls.transactions_end_in_one_place, "src/http/app.py", "def f(s):\n    s.begin_nested()", "savepoints are for"),
    (
        walls.transactions_end_in_one_place,
        "src/users/services.py",
        "SQL = 'commit'.upper() or 'COMMIT'",
        "'COMMIT' is for",
    ),
    (walls.codes_have_status_and_explanation, CODES, "del ERROR_CODE_TO_HTTP[ErrorCode(10001)]", "no HTTP status"),
    (walls.codes_have_status_and_explanation, CODES, "del ERROR_CODE_EXPLAINED[ErrorCode(10001)]", "no explanation"),
    (walls.shared_modules_are_shared, "src/shared/tax.py", '"""Rates."""', "src.shared.tax is used by nobody else"),
    (walls.shared_names_are_shared, "src/shared/types.py", "def tax(): ...", "types.tax is used by nobody else"),
    (walls.shared_names_are_shared, "src/shared/tax.py", "RATE = 19", "src.shared.tax.RATE is used by nobody else"),
    (walls.modules_say_what_they_are_for, "src/core/orders/silent.py", "RATE = 19", "src/core/orders/silent.py: opens"),
    (walls.modules_have_names_of_the_field, "src/core/orders/order_utils.py", "", "src/core/orders/order_utils.py"),
    (walls.modules_have_names_of_the_field, "src/common/__init__.py", "", "src/common: "),
    (
        walls.middleware_is_pure_asgi,
        "src/http/middleware.py",
        "from starlette.middleware.base import BaseHTTPMiddleware",
        "src/http/middleware.py:",
    ),
    (walls.middleware_is_pure_asgi, "src/http/app.py", '@app.middleware("http")\ndef f(): ...', "src/http/app.py:"),
    (walls.src_is_not_on_the_path, "src/main.py", "import sys\nsys.path.insert(0, 'src')", "src/main.py:"),
]
CHECKS = [*dict.fromkeys(check for check, *_ in FAULTS), walls.codes_are_raised, walls.codes_stay_as_published]


@pytest.mark.parametrize("check", CHECKS)
def test_the_wall_stands(check: Check) -> None:
    assert check(PROJECT) == []


@pytest.mark.parametrize(("check", "where", "what", "named"), FAULTS)
def test_a_check_names_the_place_that_breaks_it(plant: Plant, check: Check, where: str, what: str, named: str) -> None:
    house = plant(where, what)

    assert [place for place in check(house) if named in place]


def test_what_two_domains_share_is_not_shared(plant: Plant) -> None:
    plant("src/shared/tax.py", 'RATE = 19\n"""Per cent."""')
    plant("src/core/orders/services.py", "from src.shared import tax\nprint(tax.RATE)")
    house = plant("src/core/products/services.py", "from src.shared.tax import RATE\nprint(RATE)")

    by_two = "is used by src.core.orders, src.core.products"
    assert walls.shared_modules_are_shared(house) == [f"src.shared.tax {by_two}"]
    assert walls.shared_names_are_shared(house) == [f"src.shared.tax.RATE {by_two}"]


def test_a_controller_counts_as_part_of_its_domain(plant: Plant) -> None:
    plant("src/shared/tax.py", "RATE = 19")
    plant("src/core/orders/services.py", "from src.shared.tax import RATE\nprint(RATE)")
    house = plant(ORDERS, "from src.shared.tax import RATE\nprint(RATE)")

    assert walls.shared_names_are_shared(house) == ["src.shared.tax.RATE is used by src.core.orders"]


@pytest.mark.parametrize("user", ["src/core/statistics/services.py", "src/http/openapi.py"])
def test_what_three_domains_or_the_house_use_is_shared(plant: Plant, user: str) -> None:
    plant("src/shared/tax.py", "RATE = 19")
    for module in ("src/core/orders/services.py", "src/core/products/services.py"):
        plant(module, "from src.shared.tax import RATE\nprint(RATE)")
    house = plant(user, "from src.shared.tax import RATE\nprint(RATE)")

    assert walls.shared_modules_are_shared(house) == []
    assert walls.shared_names_are_shared(house) == []


def test_an_exception_that_is_no_longer_one_is_named(plant: Plant) -> None:
    house = plant("src/http/openapi.py", "from src.shared.types import Text\nprint(Text)")

    assert walls.shared_names_are_shared(house) == ["src.shared.types.Text is shared: SHARED_ANYWAY need not name it"]


def test_a_code_that_nobody_raises_is_named(plant: Plant) -> None:
    house = plant("src/users/services.py", "def f(code):\n    return code is ErrorCode.COMPARED_ONLY")
    _edit(house / CODES, FIRST_CODE, f"COMPARED_ONLY = 10099\n    {FIRST_CODE}")

    assert walls.codes_are_raised(house) == ["COMPARED_ONLY is never raised"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("NOT_AUTHENTICATED = 10099", "10001 was published as NOT_AUTHENTICATED, and is now gone"),
        ("NOT_LOGGED_IN = 10001", "10001 was published as NOT_AUTHENTICATED, and is now NOT_LOGGED_IN"),
    ],
)
def test_a_code_that_changed_after_it_was_published_is_named(plant: Plant, change: str, named: str) -> None:
    house = plant("src/users/services.py", "")
    text = (house / CODES).read_text().replace(FIRST_CODE, change)
    name = change.partition(" ")[0]
    (house / CODES).write_text(text.replace("ErrorCode.NOT_AUTHENTICATED", f"ErrorCode.{name}"))

    assert walls.codes_stay_as_published(house) == [named]


def test_a_code_may_be_added(plant: Plant) -> None:
    house = plant("src/users/services.py", "")
    _edit(house / CODES, FIRST_CODE, f"{FIRST_CODE}\n    ADDED = 10099")

    assert walls.codes_stay_as_published(house) == []


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))

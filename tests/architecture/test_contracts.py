"""The contracts on imports hold, and each of them bites."""

from pathlib import Path
from typing import NamedTuple

import pytest
from importlinter import api as importlinter
from importlinter.application.use_cases import lint_imports

from tests.architecture.conftest import Plant
from tests.architecture.walls import standing_in
from tests.support.server import PROJECT

CONTRACTS = str(PROJECT / "pyproject.toml")


class Fault(NamedTuple):
    contract: str
    where: str
    what: str
    named: str
    """How the report names it."""


FAULTS = [
    Fault("floors", "src/users/services.py", "from src.auth import tokens", "src.users.services -> src.auth.tokens"),
    Fault(
        "floors", "src/auth/services.py", "from src.core.orders import services", "src.auth.services -> src.core.orders"
    ),
    Fault(
        "floors", "src/core/orders/services.py", "import src.http.errors", "src.core.orders.services -> src.http.errors"
    ),
    Fault("floors", "src/shared/types.py", "from src.mixins import utc_now", "src.shared.types -> src.mixins"),
    Fault("floors", "src/cache/memory.py", "from src import retry", "src.cache.memory -> src.retry"),
    Fault("floors", "src/config.py", "from src.shared import types", "src.config -> src.shared.types"),
    Fault("floors", "src/http/app.py", "import src.main", "src.http.app -> src.main"),
    Fault("floors", "src/billing/__init__.py", '"""No floor."""', "- src.billing"),
    Fault(
        "rooms",
        "src/core/orders/models.py",
        "import src.core.orders.schemas",
        "orders.models -> src.core.orders.schemas",
    ),
    Fault("rooms", "src/users/schemas.py", "from src.users import services", "src.users.schemas -> src.users.services"),
    Fault("rooms", "src/core/orders/business.py", '"""No place."""', "- src.core.orders.business"),
    Fault(
        "rooms-of-auth", "src/auth/services.py", "from src.auth.dependencies import device", "-> src.auth.dependencies"
    ),
    Fault(
        "rooms-of-auth", "src/auth/tokens.py", "from src.auth.models import AuthSession", "tokens -> src.auth.models"
    ),
    Fault("rooms-of-auth", "src/auth/second_factors.py", '"""No place."""', "- src.auth.second_factors"),
    Fault("no-web", "src/core/orders/services.py", "from fastapi import HTTPException", "orders.services -> fastapi"),
    Fault(
        "no-web", "src/users/services.py", "def f():\n    import starlette.requests", "src.users.services -> starlette"
    ),
    Fault("no-web", "src/shared/errors.py", "from starlette import status", "src.shared.errors -> starlette"),
    Fault("no-web", "src/mixins.py", "from fastapi import Depends", "src.mixins -> fastapi"),
    Fault("no-web", "src/exceptions.py", "from fastapi import HTTPException", "src.exceptions -> fastapi"),
    Fault(
        "meet-at-services", "src/core/orders/services.py", "import src.core.products.models", "src.core.products.models"
    ),
    Fault(
        "meet-at-services", "src/core/orders/models.py", "import src.core.products.schemas", "src.core.products.schemas"
    ),
    Fault(
        "meet-at-services",
        "src/auth/services.py",
        "from src.users.models import Role",
        "auth.services -> src.users.models",
    ),
    Fault(
        "people-are-ids", "src/core/orders/services.py", "from src.users import User", "orders.services -> src.users "
    ),
    Fault(
        "people-are-ids",
        "src/core/orders/schemas.py",
        "import src.users.schemas",
        "orders.schemas -> src.users.schemas",
    ),
    Fault(
        "people-are-ids",
        "src/core/orders/services.py",
        "from src.core.products import Product",
        "-> src.core.products ",
    ),
    Fault(
        "direction",
        "src/core/products/services.py",
        "from src.core.orders import services",
        "-> src.core.orders.services",
    ),
    Fault("no-cycles", "src/http/errors.py", "def f():\n    from src.http import envelope", ".errors -> .envelope"),
    Fault(
        "controllers-apart",
        "src/http/controllers/users.py",
        "from src.http.controllers import auth",
        "controllers.auth",
    ),
    Fault("controllers-no-sql", "src/http/controllers/users.py", "from sqlmodel import select", "users -> sqlmodel"),
    Fault("controllers-no-sql", "src/http/controllers/users.py", "import sqlalchemy.orm", "users -> sqlalchemy"),
    Fault(
        "door-of-the-log",
        "src/http/app.py",
        "import src.shared.logging.writer",
        "src.http.app -> src.shared.logging.writer",
    ),
    Fault(
        "door-of-the-lane",
        "src/core/orders/services.py",
        "import src.shared.lane.session",
        "src.core.orders.services -> src.shared.lane.session",
    ),
    Fault(
        "door-of-the-compiler",
        "src/http/app.py",
        "import src.http.compiled.source",
        "src.http.app -> src.http.compiled.source",
    ),
]
DOMAIN = {
    "models": "from src.mixins import TimestampMixin",
    "schemas": "from src.core.invoices import models",
    "services": "from src.core.invoices import schemas\nfrom src.core.orders import services as orders",
}


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def keeps(house: Path, *contracts: str) -> bool:
    with standing_in(house):
        return lint_imports(CONTRACTS, limit_to_contracts=contracts, cache_dir=None, no_logo=True)


def test_the_house_keeps_its_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    assert keeps(PROJECT), capsys.readouterr().out


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.contract}: {fault.named}")
def test_a_contract_names_the_import_that_breaks_it(
    plant: Plant, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    house = plant(fault.where, fault.what)

    assert not keeps(house, fault.contract)

    assert fault.named in capsys.readouterr().out


def test_each_contract_has_a_fault_that_it_catches() -> None:
    contracts = importlinter.read_configuration(CONTRACTS)["contracts_options"]

    assert {contract["id"] for contract in contracts} == {fault.contract for fault in FAULTS}


def test_a_new_domain_needs_no_new_contract(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    house = plant("src/core/invoices/__init__.py", '"""What is to be paid."""')
    for room, text in DOMAIN.items():
        plant(f"src/core/invoices/{room}.py", text)
    plant("src/http/controllers/invoices.py", "from src.core.invoices import schemas, services")

    assert keeps(house), capsys.readouterr().out

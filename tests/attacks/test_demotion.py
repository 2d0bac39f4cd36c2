"""Whoever is demoted or disabled over HTTP keeps asking both processes: each refuses from the answer to that on.

The ten thousand checks of tests/auth/test_revocation.py are after changes by SQL that bypass the service; the changes
by its own doors, log-outs, commands and other machines are checked there once each.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.auth.test_revocation import Person, Service, change_the_role, disable, serving, take_the_role
from tests.support.answers import data_of
from tests.support.postgres import Kind
from tests.support.scale import rounds as scaled

pytestmark = pytest.mark.long

CHECKS = scaled(1000, full=10_000)
EACH = 10


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    kind: Kind = request.param
    with serving(kind, tmp_path_factory.mktemp("s"), workers=2 if kind == "postgres" else 1) as service:
        # A connection each, so that any of the processes may be the one that is told.
        service.client.headers["Connection"] = "close"
        yield service


def restore(service: Service, person: Person) -> None:
    data_of(service.call("PATCH", f"/api/v1/roles/{service.role_id}", json={"permissions": ["order:read"]}))
    data_of(service.call("PATCH", f"/api/v1/users/{person.id}", json={"is_active": True}))
    service.give_roles(person, "user", service.role)


def refresh(service: Service, person: Person) -> None:
    letter = data_of(service.call("POST", "/api/v1/auth/refresh", json={"refresh_token": person.refresh_token}))
    person.token, person.refresh_token = letter["access_token"], letter["refresh_token"]


def test_ten_thousand_checks_after_an_acknowledged_demotion_find_nothing_stale(
    service: Service, tried: Callable[[int], None]
) -> None:
    person, heard, cycles = service.hire(), Counter[tuple[str, int]](), 0
    deeds: list[Callable[[Service, Person], None]] = [take_the_role, change_the_role, disable]
    checks = CHECKS if service.url.startswith("postgresql") else CHECKS // 10

    while heard.total() < checks:
        deed = deeds[cycles % len(deeds)]
        with service.kept_warm(person):
            deed(service, person)
        heard.update((deed.__name__, status) for status in service.statuses(person, each=EACH))
        if deed is not disable:
            refresh(service, person)
            heard.update((f"refreshed after {deed.__name__}", status) for status in service.statuses(person))
        restore(service, person)
        if deed is disable:
            service.log_in(person)
        else:
            refresh(service, person)  # to give one right back took another
        cycles += 1

    tried(heard.total())
    assert heard.keys() == {
        ("take_the_role", 401),
        ("refreshed after take_the_role", 403),
        ("change_the_role", 401),
        ("refreshed after change_the_role", 403),
        ("disable", 401),
    }

"""How long a count is believed, and by whom."""

from datetime import UTC, datetime, timedelta

from src.shared.errors import ErrorCode
from tests.support.answers import data_of, refused
from tests.support.orders import make_product
from tests.support.postgres import Kind
from tests.support.service import own_place

STATS = "admin/stats"
KEPT = {"STATISTICS__CACHE_SECONDS": "60"}
MARCH = {"since": "2026-03-01", "until": "2026-03-31"}


def test_a_count_is_given_again_and_says_since_when_it_is_true(database_kind: Kind) -> None:
    with own_place(database_kind, **KEPT) as place, place.service() as service:
        admin = service.log_in()["access_token"]
        before = datetime.now(UTC)
        first = data_of(service.get(STATS, token=admin))
        assert before - timedelta(seconds=1) <= datetime.fromisoformat(first["computed_at"]) <= datetime.now(UTC)

        other = service.register()
        assert data_of(service.get(STATS, token=admin)) == first
        # Other days are another count.
        assert data_of(service.get(STATS, token=admin, **MARCH))["users"]["total"] == first["users"]["total"] + 1
        # What is kept is for administrators, as what is counted.
        refused(service.get(STATS, token=service.log_in(other)["access_token"]), ErrorCode.ROLE_REQUIRED)


def test_services_of_two_zones_and_thresholds_keep_counts_apart(database_kind: Kind, valkey_url: str) -> None:
    shared = KEPT | {"CACHE__URL": valkey_url, "CACHE__NAMESPACE": f"stats-{database_kind}"}
    with (
        own_place(database_kind, **shared) as place,
        place.service() as here,
        place.service(APP__TIMEZONE="5.75") as elsewhere,
        place.service(STATISTICS__LOW_STOCK="50") as anxious,
    ):
        admin = here.log_in()["access_token"]
        make_product(here, admin)
        answers = [data_of(each.get(STATS, token=admin, **MARCH)) for each in (here, elsewhere, anxious)]
        again = [data_of(each.get(STATS, token=admin, **MARCH)) for each in (here, elsewhere, anxious)]

    assert again == answers
    assert len({datetime.fromisoformat(answer["computed_at"]) for answer in answers}) == len(answers)
    assert [answer["computed_at"][26:] for answer in answers] == ["Z", "+05:45", "Z"]
    assert [len(answer["low_stock"]) for answer in answers] == [0, 0, 1]

"""Keys that say for whom, and that cannot be mistaken for one another."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.shared.cache_keys import KeyPart, cache_key

# Few characters, so that what runs together does so often.
TEXTS = st.text("a1:|", max_size=4)
PARTS: st.SearchStrategy[list[KeyPart]] = st.lists(TEXTS | st.integers(0, 20) | st.booleans() | st.none(), max_size=4)
PRINCIPALS = st.none() | TEXTS


def exactly(parts: list[KeyPart]) -> list[tuple[type, KeyPart]]:
    return [(type(part), part) for part in parts]


@given(PARTS, PRINCIPALS, PARTS, PRINCIPALS)
def test_two_keys_are_the_same_only_for_the_same_parts_and_principal(
    one: list[KeyPart], whose: str | None, other: list[KeyPart], whose_other: str | None
) -> None:
    same = exactly(one) == exactly(other) and whose == whose_other

    assert (cache_key(*one, principal=whose) == cache_key(*other, principal=whose_other)) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a|str1:b",), ("a", "b")),
        (("a", ""), ("a",)),
        ((1,), ("1",)),
        ((True,), (1,)),
        ((None,), ("None",)),
        ((1, 12), (11, 2)),
    ],
)
def test_parts_do_not_run_into_each_other(one: tuple[KeyPart, ...], other: tuple[KeyPart, ...]) -> None:
    assert cache_key(*one, principal=None) != cache_key(*other, principal=None)


def test_what_one_may_see_is_not_found_by_another() -> None:
    mine, yours = uuid4(), uuid4()
    keys = {cache_key("orders", principal=whose) for whose in (mine, yours, None, "public", "")}

    assert len(keys) == 5


def test_a_uuid_is_the_same_part_as_its_text() -> None:
    user = UUID("0198c5d4-0000-7000-8000-000000000001")

    assert cache_key("user", user, principal=user) == cache_key("user", str(user), principal=str(user))


def test_a_key_can_be_read() -> None:
    assert cache_key("product", 7, principal=None) == "v1|public|str7:product|int1:7"
    assert cache_key("orders", principal="ann") == "v1|principal:str3:ann|str6:orders"

"""Routes and actors: who is answered what, and who learns nothing by asking. The matrix is matrix.toml."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from src.shared.errors import ErrorCode
from tests.attacks.people import MATRIX, Sample, Town, town
from tests.attacks.snapshot import changed, snapshot
from tests.support.answers import told

pytestmark = [pytest.mark.long, pytest.mark.either]

__all__ = ["town"]

OK = "ok"
ACTORS: list[str] = list(MATRIX["actors"])
ROUTES: dict[str, dict[str, str]] = {
    operation: dict(zip(ACTORS, line.replace("|", " ").split(), strict=True))
    for operation, line in MATRIX["routes"].items()
}
_PARAMETER = re.compile(r"\{\w+\}")
# What says no more than a status: which of the codes it is depends on who asks, not on what.
_PLAIN = {
    ErrorCode.NOT_AUTHENTICATED: "401",
    ErrorCode.INVALID_TOKEN: "401",
    ErrorCode.PERMISSION_DENIED: "403",
    ErrorCode.ROLE_REQUIRED: "403",
    ErrorCode.STEP_UP_REQUIRED: "2nd",
    ErrorCode.SESSION_REQUIRED: "ses",
    ErrorCode.INVALID_SECOND_FACTOR: "bad",
    ErrorCode.INVALID_PASSKEY: "bad",
    ErrorCode.INVALID_PROVIDER_ANSWER: "bad",
    ErrorCode.INVALID_CALLBACK_SIGNATURE: "bad",
    ErrorCode.TOTP_ALREADY_ENABLED: "409",
    ErrorCode.TOTP_NOT_BEGUN: "409",
    ErrorCode.NO_SECOND_FACTOR: "409",
}


def outcome(answer: httpx2.Response) -> str:
    """In a word of the matrix."""
    if answer.is_success:
        return OK
    code = ErrorCode(answer.json()["code"])
    if answer.status_code == HTTPStatus.NOT_FOUND and code.name.endswith("_NOT_FOUND"):
        return "404"
    return _PLAIN.get(code, code.name)


def spends_caller(operation: str) -> bool:
    return bool(MATRIX["requests"].get(operation, {}).get("spends_caller"))


def actor_of(town: Town, name: str, operation: str) -> Any:  # Any: a person or nobody
    succeeds = ROUTES[operation][name] == OK
    return town.new_actor(name) if succeeds and spends_caller(operation) else town.actor(name)


def test_each_route_has_a_line_and_each_line_a_route(town: Town) -> None:
    assert set(town.operations()) == set(ROUTES)


def test_each_request_of_the_matrix_is_for_a_route_of_it() -> None:
    assert set(MATRIX["requests"]) <= set(ROUTES)


def test_each_actor_is_let_in_somewhere_and_refused_somewhere() -> None:
    """A column that is all of one word says nothing."""
    for actor in ACTORS:
        assert len({line[actor] for line in ROUTES.values()}) > 1, actor


@pytest.mark.parametrize("operation", ROUTES)
def test_each_actor_is_answered_as_the_matrix_says(
    town: Town, operation: str, database_url: str, tried: Callable[[int], None]
) -> None:
    tried(len(ACTORS))
    owner = town.actor("owner")
    assert owner is not None
    expected, answers = ROUTES[operation], {}
    asked = [(name, actor_of(town, name, operation)) for name in ACTORS]
    sample = town.sample(operation, owner)
    before = snapshot(database_url)

    # Who is refused asks first, and all for one thing: so it can be seen that nothing came of it.
    for name, actor in asked:
        if expected[name] != OK:
            answers[name] = outcome(town.send(actor, sample))
    came_of_it = changed(before, snapshot(database_url))
    for name, actor in asked:
        if expected[name] == OK:
            mine = actor if name == "owner" else owner
            answers[name] = outcome(town.send(actor, town.sample(operation, mine)))

    assert {name: answers[name] for name in ACTORS} == expected
    assert came_of_it == []


# What a route need not refuse: a change of nothing, and a header that it does not have.
_HARMLESS = {"an empty letter", "a key that is none"}


def otherwise(operation: str, sample: Sample) -> Iterator[tuple[str, Sample]]:
    """The same request, wrong in ways that only those may learn of who may do it.

    Not a query parameter too many: that is refused first, and says what /openapi.json says.
    """
    path = operation.partition(" ")[2]
    if "{" in path:
        yield "an id of nothing", replace(sample, path=_PARAMETER.sub(str(uuid4()), path))
        yield "no id", replace(sample, path=_PARAMETER.sub("1", path))
    if sample.json is not None:
        yield "an empty letter", replace(sample, json={})
        yield "no object", replace(sample, json=[1])
        yield "one field more", replace(sample, json={**sample.json, "is_superuser": True})
    if sample.headers:
        yield "no key", replace(sample, headers={})
    yield "a key that is none", replace(sample, headers={"Idempotency-Key": "not one word"})


@pytest.mark.parametrize(
    "operation", [operation for operation, line in ROUTES.items() if {"401", "403"} & set(line.values())]
)
def test_who_may_not_is_told_the_same_whatever_they_ask_for(town: Town, operation: str) -> None:
    """Refused before anything is looked for or looked at: no id is tried out, no schema is learnt."""
    owner = town.actor("owner")
    assert owner is not None
    sample = town.sample(operation, owner)
    wrong = dict(otherwise(operation, sample))
    differences = []

    for name in (name for name, word in ROUTES[operation].items() if word in {"401", "403"}):
        actor = town.actor(name)
        refusal = told(town.send(actor, sample))
        differences += [
            f"{name}, {how}: {answer[1]!r}"
            for how, answer in ((how, told(town.send(actor, request))) for how, request in wrong.items())
            if answer != refusal
        ]

    assert differences == []
    # The control: who may is told what is wrong.
    best = sorted(ROUTES[operation].items(), key=lambda line: (line[1] == OK, line[1] not in {"401", "403"}))
    allowed = town.new_actor(best[-1][0])
    refusals = {how: town.send(allowed, request) for how, request in wrong.items()}
    assert {how for how, answer in refusals.items() if answer.is_success} <= _HARMLESS

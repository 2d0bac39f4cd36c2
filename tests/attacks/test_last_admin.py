"""Two administrators who take each other away at once: one stays, every time, whatever they do."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text

from src.shared.errors import ErrorCode
from tests.attacks.people import API
from tests.attacks.queues import ADMIN_ROLE, in_a_queue
from tests.conftest import PASSWORD, PATIENT
from tests.support.answers import bearer, data_of, refused
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.scale import rounds as scaled
from tests.support.server import run_command, running_server
from tests.support.tables import execute
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.long

ROUNDS = scaled(40, full=200)
USERS = f"{API}/users"
# Whoever comes second had been let in before, or came with a token that was void by then, or was found to hold nothing
# any more: between the token and the grants, or when their turn came.
REFUSALS = {
    ErrorCode.LAST_ADMIN,
    ErrorCode.INVALID_TOKEN,
    ErrorCode.PERMISSION_DENIED,
    ErrorCode.GRANT_NOT_HELD,
}
_ADMINS = text("""
    SELECT count(*) FROM users JOIN user_roles ON user_id = users.id JOIN roles ON role_id = roles.id
    WHERE roles.name = 'admin' AND users.is_active AND users.is_verified AND users.deleted_at IS NULL
""")


@dataclass
class Admin:
    id: str
    email: str
    token: str


# How one takes another away, and how that is undone.
DEEDS: dict[str, tuple[str, str, dict[str, Any] | None, str, dict[str, Any] | None]] = {  # Any: JSON
    "demote": ("PUT", "/roles", {"roles": ["user"]}, "PUT", {"roles": ["user", "admin"]}),
    "disable": ("PATCH", "", {"is_active": False}, "PATCH", {"is_active": True}),
    "unverify": ("PATCH", "", {"is_verified": False}, "PATCH", {"is_verified": True}),
    "delete": ("DELETE", "", None, "", None),
}


@dataclass
class Board:
    """A service where addresses are verified first, and exactly two administrators of it."""

    url: str
    database_url: str
    client: httpx2.Client
    admins: list[Admin] = field(default_factory=list)
    refused_with: Counter[ErrorCode] = field(default_factory=Counter)

    def log_in(self, email: str) -> str:
        answer = self.client.post(f"{API}/auth/login", json={"email": email, "password": PASSWORD})
        return str(data_of(answer)["access_token"])

    def joins(self, email: str) -> Admin:
        token = self.log_in(email)
        return Admin(data_of(self.client.get(f"{API}/profile", headers=bearer(token)))["id"], email, token)

    def deed(self, by: Admin, name: str, whom: Admin) -> dict[str, Any]:  # Any: as httpx has it
        method, path, body, *_ = DEEDS[name]
        return {"method": method, "url": f"{USERS}/{whom.id}{path}", "json": body, "headers": bearer(by.token)}

    def remaining(self) -> int:
        return int(execute(self.database_url, _ADMINS)[0][0])

    def judge(self, whom: tuple[Admin, Admin], names: tuple[str, str], answers: list[httpx2.Response]) -> None:
        """Exactly one of two deeds was done, the other refused, and then undone by who stayed."""
        assert self.remaining() == 1, (names, [answer.text for answer in answers])
        assert sorted(answer.is_success for answer in answers) == [False, True], [answer.text for answer in answers]
        done = 0 if answers[0].is_success else 1
        code = ErrorCode(answers[1 - done].json()["code"])
        assert code in REFUSALS, answers[1 - done].text
        self.refused_with[code] += 1
        gone = whom[done]
        (stayed,) = (admin for admin in self.admins if admin is not gone)
        # Nothing of what was refused was done by half: the token of who stayed is what it was.
        data_of(self.client.get(f"{API}/admin/stats", headers=bearer(stayed.token)))
        refused(self.client.get(f"{API}/admin/stats", headers=bearer(gone.token)), ErrorCode.INVALID_TOKEN)
        self.admins = [stayed, self._restored(stayed, gone, names[done])]

    def _restored(self, stayed: Admin, gone: Admin, name: str) -> Admin:
        _, path, _, method, body = DEEDS[name]
        if name == "delete":
            email = f"{uuid4().hex}@example.com"
            letter = {"email": email, "password": PASSWORD, "roles": ["user", "admin"]}
            data_of(self.client.post(USERS, json=letter, headers=bearer(stayed.token)), 201)
            return self.joins(email)
        url = f"{USERS}/{gone.id}{path}"
        data_of(self.client.request(method, url, json=body, headers=bearer(stayed.token)))
        gone.token = self.log_in(gone.email)
        return gone


@pytest.fixture(scope="module")
def board(database_kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with ExitStack() as stack:
        url = fresh_database(database_kind)
        stack.callback(drop_database, url)
        env, workers = {"DB__URL": url, "AUTH__REQUIRE_VERIFIED_EMAIL": "true", **PATIENT}, 1
        if database_kind == "postgres":  # where two processes may each let somebody in
            env |= {"CACHE__URL": stack.enter_context(running_valkey()), "CACHE__NAMESPACE": f"test-{uuid4().hex[:12]}"}
            workers = 2
        server = stack.enter_context(running_server(env, workers=workers))
        client = stack.enter_context(httpx2.Client(base_url=server.url, timeout=15, verify=False))
        board, folder = Board(server.url, url, client), tmp_path_factory.mktemp("board")
        for email in ("one@example.com", "two@example.com"):
            made = run_command("create-admin", "--email", email, env=env, cwd=folder, stdin=f"{PASSWORD}\n")
            assert made.returncode == 0, made.stdout + made.stderr
            board.admins.append(board.joins(email))
        assert board.remaining() == 2
        yield board


async def together(board: Board, deeds: list[dict[str, Any]]) -> list[httpx2.Response]:  # Any: as httpx has it
    async with httpx2.AsyncClient(base_url=board.url, timeout=15, verify=False) as client:
        return list(await asyncio.gather(*(client.request(**deed) for deed in deeds)))


async def test_two_administrators_demote_each_other_and_one_stays(board: Board) -> None:
    async with httpx2.AsyncClient(base_url=board.url, timeout=15, verify=False) as client:
        for number in range(ROUNDS):
            one, two = board.admins if number % 2 else reversed(board.admins)
            deeds = [board.deed(one, "demote", two), board.deed(two, "demote", one)]
            answers = await asyncio.gather(*(client.request(**deed) for deed in deeds))
            board.judge((two, one), ("demote", "demote"), list(answers))

    assert board.refused_with.total() == ROUNDS


PAIRS = list(product(DEEDS, DEEDS))


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
async def test_whatever_two_administrators_do_to_each_other_one_stays(board: Board, names: tuple[str, str]) -> None:
    for number in range(5):
        one, two = board.admins if number % 2 else reversed(board.admins)
        answers = await together(board, [board.deed(one, names[0], two), board.deed(two, names[1], one)])
        board.judge((two, one), names, answers)


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
async def test_whatever_two_administrators_do_to_themselves_one_stays(board: Board, names: tuple[str, str]) -> None:
    one, two = board.admins

    answers = await together(board, [board.deed(one, names[0], one), board.deed(two, names[1], two)])

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    board.judge((one, two), names, answers)


@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_of_two_who_were_both_let_in_the_second_is_refused(
    board: Board, names: tuple[str, str], database_kind: Kind
) -> None:
    """Not by chance: both wait for one lock when the first of them gets it."""
    if database_kind == "sqlite":
        pytest.skip("a file has no queue that can be watched")
    one, two = board.admins
    calls: list[Callable[[], httpx2.Response]] = [
        partial(board.client.request, **board.deed(one, names[0], two)),
        partial(board.client.request, **board.deed(two, names[1], one)),
    ]

    answers = in_a_queue(board.database_url, calls, lock=ADMIN_ROLE)

    assert [answer.is_success for answer in answers] == [True, False]
    board.judge((two, one), names, answers)


@pytest.mark.parametrize("name", DEEDS)
def test_the_last_administrator_takes_nobody_away_who_is_the_last(board: Board, name: str) -> None:
    """And the control: of two, one may go."""
    one, two = board.admins

    gone = board.client.request(**board.deed(one, name, one))
    refusal = board.client.request(**board.deed(two, name, two))

    data_of(gone)
    refused(refusal, ErrorCode.LAST_ADMIN)
    board.judge((one, two), (name, name), [gone, refusal])

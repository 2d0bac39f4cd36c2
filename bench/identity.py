"""Log-ins and refreshes a second, and what the time of an answer tells about who has an account."""

import http
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final

from bench import checks, data
from bench.chains import Chain, drive_chains
from bench.further import ROUNDS
from bench.jobs import JOBS
from bench.measure import Result, Run, say
from bench.servers import CONTENDERS, ContenderError, Running, Surroundings, running
from bench.timing import FOLLOWING, Kind, Question, compare
from src.config import AuthSettings

KEYCLOAK: Final = {"log-in": 15, "refresh": 120}
"""A second and vCPU, by its guide for sizing."""
# What one core can be asked by this many at once says what it can do; more of them only wait longer.
CALLERS: Final = 16
LOG_IN_SECONDS: Final = 5
REFRESH_SECONDS: Final = 3
WARM_UP_SECONDS: Final = 1
ONE_HASH: Final = "one hash at once"
TWO_HASHES: Final = "two hashes at once (default)"
_WITHOUT_END: Final = str(10**9)
# A namespace of its own: what fails here must not be held against the log-ins of other parts.
UNTHROTTLED: Final = {
    "AUTH__LOGINS_PER_ADDRESS": _WITHOUT_END,
    # Who is measured gets mails.
    "OUTBOX__DISPATCH": "true",
    "AUTH__LOGIN_FAILURES_PER_ACCOUNT": _WITHOUT_END,
    "AUTH__LOGIN_FAILURES_PER_ADDRESS": _WITHOUT_END,
    "AUTH__LOGIN_FAILURES_OVERALL": _WITHOUT_END,
    "AUTH__REGISTRATIONS_PER_ADDRESS": _WITHOUT_END,
    "AUTH__MAIL_REQUESTS_PER_ADDRESS": _WITHOUT_END,
    "AUTH__REQUIRE_VERIFIED_EMAIL": "true",
    "CACHE__NAMESPACE": "bench_identity",
}
# The delay hides what follows an answer, and is no part of the answer itself.
MAILS_AT_ONCE: Final = {"AUTH__MAIL_DELAY_SECONDS": "0"}
VARIANTS: Final = {
    ONE_HASH: {"AUTH__PASSWORD_HASH_CONCURRENCY": "1"},
    TWO_HASHES: dict[str, str](),
}
_LOG_IN: Final = "/api/v1/auth/login"
_REFRESH: Final = "/api/v1/auth/refresh"
# As long as the right one.
_WRONG: Final = data.ADMIN_PASSWORD[::-1]
_HERE: Final = ["127.0.0.1"]
_ELSEWHERE: Final = ["203.0.113.9"]
_EVERYWHERE: Final = [f"198.51.{n}.1" for n in range(100)]
_ACCOUNTS: Final = 600
"""Of each kind: none is asked often, so that its mails are not refused, and none grows old."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Addresses by what they are to the service."""

    used_here: list[str]
    used_elsewhere: list[str]
    used_everywhere: list[str]
    disabled: list[str]
    unverified: list[str]


def measure_identity(result: Result, surroundings: Surroundings) -> dict[str, Any]:  # Any: JSON
    """In a database of its own: accounts are made here, and `rows` counts those that there are."""
    with _own_database(surroundings) as own:
        accounts = _make_accounts(own.database)
        _measure_rates(result, own, accounts)
        timings = []
        for question in _questions(accounts):
            env = UNTHROTTLED if question.times_what_follows else {**UNTHROTTLED, **MAILS_AT_ONCE}
            with running(CONTENDERS["ours"], own, label="timed", env=env) as server:
                timings.append(compare(server, question))
    return {
        "callers": CALLERS,
        "log_in_seconds": LOG_IN_SECONDS,
        "refresh_seconds": REFRESH_SECONDS,
        "keycloak": KEYCLOAK,
        "hash": _hash_settings(data.password_hash(surroundings.database)),
        "timings": timings,
    }


@contextmanager
def _own_database(surroundings: Surroundings) -> Iterator[Surroundings]:
    url = surroundings.database.url
    own = data.make_postgres(url, surroundings.place)
    try:
        yield replace(surroundings, database=own)
    finally:
        data.drop_postgres(url, own)


def _make_accounts(database: data.Database) -> Accounts:
    def make(places: list[str], *, is_active: bool = True, is_verified: bool = True) -> list[str]:
        emails = [_fresh_email() for _ in range(_ACCOUNTS)]
        data.add_accounts(database, emails, is_active=is_active, is_verified=is_verified, used_from=places)
        return emails

    accounts = Accounts(
        used_here=make(_HERE),
        used_elsewhere=make(_ELSEWHERE),
        used_everywhere=make(_EVERYWHERE),
        disabled=make(_ELSEWHERE, is_active=False),
        unverified=make([], is_verified=False),
    )
    data.tidy(database)
    return accounts


def _fresh_email() -> str:
    """As long as any other."""
    return f"{secrets.token_hex(8)}@example.com"


def _hash_settings(encoded: str) -> dict[str, str]:
    """`$argon2id$v=19$m=19456,t=2,p=1$…`."""
    _, algorithm, _, parameters, *_ = encoded.split("$")
    return {"algorithm": algorithm, **dict(pair.split("=") for pair in parameters.split(","))}


# --- how many a second ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LogIns:
    """One after the other, of accounts that no other connection uses."""

    emails: list[str]
    path: str = _LOG_IN
    _sent: Iterator[int] = field(default_factory=count)

    def body(self) -> bytes:
        return _credentials(self.emails[next(self._sent) % len(self.emails)])

    def take(self, answer: bytes) -> None:
        """The next one needs nothing of it."""


@dataclass(slots=True)
class Refreshes:
    token: str
    path: str = _REFRESH

    def body(self) -> bytes:
        return json.dumps({"refresh_token": self.token}).encode()

    def take(self, answer: bytes) -> None:
        before, self.token = self.token, _refresh_token(answer)
        if before == self.token:
            raise ContenderError("A refresh gave the token that it was given")


def _credentials(email: str, password: str = data.ADMIN_PASSWORD) -> bytes:
    return json.dumps({"email": email, "password": password}).encode()


def _refresh_token(answer: bytes) -> str:
    token: str = json.loads(answer)["data"]["refresh_token"]
    return token


def _measure_rates(result: Result, own: Surroundings, accounts: Accounts) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running(CONTENDERS["ours"], own, label=label, env={**UNTHROTTLED, **env}))
            for label, env in VARIANTS.items()
        ]
        shares = [accounts.used_here[first::CALLERS] for first in range(CALLERS)]
        loads: list[tuple[str, Running, list[Chain], float]] = [
            ("log-in", server, [LogIns(share) for share in shares], LOG_IN_SECONDS) for server in servers
        ]
        by_default = servers[-1]
        chains: list[Chain] = [Refreshes(_log_in(by_default, share[0])) for share in shares]
        loads.append(("refresh", by_default, chains, REFRESH_SECONDS))
        for _, server, chains, _ in loads:
            drive_chains(server.port, chains, WARM_UP_SECONDS)
        for number in range(ROUNDS):
            turn = number % len(loads)
            for name, server, chains, seconds in (*loads[turn:], *loads[:turn]):
                run, problems = _run(server, chains, seconds)
                result.add(name, server.label, run)
                result.problems += [f"{name}, {server.label}, round {number + 1}: {problem}" for problem in problems]
    for problem in result.problems:
        say(f"!! {problem}")
    for name, by_variant in result.runs.items():
        say(f"   {name}: " + ", ".join(f"{label} {result.value(name, label) or 0:,.1f}" for label in by_variant))


def _log_in(server: Running, email: str) -> str:
    answer = server.ask("POST", _LOG_IN, _credentials(email), {"Content-Type": "application/json"})
    if answer.status != http.HTTPStatus.OK:
        raise ContenderError(f"{server.label}: log-in answered {answer.status} {answer.body!r}\n{server.output()}")
    return _refresh_token(answer.body)


def _run(server: Running, chains: list[Chain], seconds: float) -> tuple[Run, list[str]]:
    checks.forget_log(server)
    before = server.cpu_seconds()
    load = drive_chains(server.port, chains, seconds)
    cpu = server.cpu_seconds() - before
    job = replace(JOBS["static"], route=chains[0].path)
    problems = checks.log_problems(server, job, load.requests - load.failures, http.HTTPStatus.OK)
    if load.failures or load.socket_errors:
        problems.append(f"{load.failures} answers were no success, {load.socket_errors} socket errors")
    if not load.requests:
        problems.append("no request was answered in time")
    run = Run(load.per_second, cpu / max(load.requests, 1) * 1e6, load.p50_ms, load.p99_ms, server.memory_mb())
    return run, problems


# --- who has an account -----------------------------------------------------------------------------------------------


def _questions(accounts: Accounts) -> list[Question]:
    per_account, per_address = (
        AuthSettings.model_fields[name].default for name in ("login_failures_per_account", "mail_requests_per_address")
    )
    registrations = AuthSettings.model_fields["registrations_per_address"].default
    unknown, unknown_again = (Kind(title, _nobody) for title in ("unknown address", "unknown address again (control)"))
    return [
        Question(
            "log-in",
            _LOG_IN,
            401,
            tuple(
                Kind(title, _tries(emails, password))
                for title, emails, password in (
                    ("unknown address", None, _WRONG),
                    ("unknown address again (control)", None, _WRONG),
                    ("wrong password", accounts.used_elsewhere, _WRONG),
                    ("wrong password, account used from here before", accounts.used_here, _WRONG),
                    ("wrong password, account used from 100 places", accounts.used_everywhere, _WRONG),
                    ("right password, disabled account", accounts.disabled, data.ADMIN_PASSWORD),
                    ("right password, unverified account", accounts.unverified, data.ADMIN_PASSWORD),
                )
            ),
            allowed=per_account,
            window_seconds=300,
            seconds=65,
            most_rounds=_ACCOUNTS,
        ),
        Question(
            "registration",
            "/api/v1/auth/register",
            202,
            tuple(
                Kind(title, _tries(emails, data.ADMIN_PASSWORD))
                for title, emails in (
                    ("free address", None),
                    ("free address again (control)", None),
                    ("taken, not verified", accounts.unverified),
                    ("taken, verified", accounts.used_elsewhere),
                    ("taken, disabled", accounts.disabled),
                )
            ),
            allowed=registrations,
            window_seconds=60,
            seconds=50,
            most_rounds=_ACCOUNTS,
            settles=True,
        ),
        *(
            Question(
                title,
                f"/api/v1/auth/{path}",
                202,
                (unknown, unknown_again, Kind(known_title, _asks(known))),
                allowed=per_address,
                window_seconds=60,
                seconds=120 if follows else 15,
                most_rounds=1_000,
                settles=True,
                times_what_follows=follows,
            )
            for title, path, known_title, known, follows in (
                ("password forgotten", "password/forgot", "known address", accounts.used_here, False),
                ("verification", "verify/request", "known, not verified", accounts.unverified, False),
                (
                    f"{FOLLOWING} small requests at once behind “password forgotten”",
                    "password/forgot",
                    "known address",
                    accounts.used_here,
                    True,
                ),
            )
        ),
    ]


def _nobody(_number: int) -> dict[str, str]:
    return {"email": _fresh_email()}


def _asks(emails: list[str]) -> Callable[[int], dict[str, str]]:
    return lambda number: {"email": emails[number % len(emails)]}


def _tries(emails: list[str] | None, password: str) -> Callable[[int], dict[str, str]]:
    asks = _nobody if emails is None else _asks(emails)
    return lambda number: {**asks(number), "password": password}

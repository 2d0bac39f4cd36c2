"""Second factors: authenticator apps and recovery codes, from their set-up to their loss."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4
from xml.etree import ElementTree as ET

import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.auth import require_mfa
from src.auth.models import AuthSession, LoginChallenge, RecoveryCode, TotpFactor
from src.shared.errors import ErrorCode
from tests.auth.conftest import (
    FINISH,
    LOGIN,
    SECURITY,
    STEP_UP,
    Guard,
    Guarded,
    OpenSession,
    Session,
    ask,
    begin_totp,
    confirm_totp,
)
from tests.conftest import PASSWORD, Account
from tests.support.answers import at_once, bearer, data_of, refused
from tests.support.mail import Mailbox
from tests.support.phone import Phone
from tests.support.postgres import Kind
from tests.support.service import own_place
from tests.support.tables import execute

NEW_PASSWORD = "violet-harbour-engine-47"


def audited(admin: httpx2.Client, account: Account, action: str) -> list[dict[str, Any]]:  # Any: JSON
    """Newest first."""
    found = data_of(admin.get("/api/v1/audit", params={"target_id": account.id, "action": action}))["items"]
    return list(found)


def make_old(database_url: str, account: Account, seconds: int) -> None:
    """The second factor of all sessions was proven so long ago."""
    execute(
        database_url,
        update(AuthSession)
        .where(col(AuthSession.user_id) == UUID(account.id))
        .values(second_factor_at=datetime.now(UTC) - timedelta(seconds=seconds)),
    )


# --- Setting one up


def test_an_authenticator_app_is_set_up_with_the_password_and_counts_when_it_is_confirmed(
    open_session: OpenSession, database_url: str, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session = open_session()
    refused(begin_totp(session, "not-the-password-99"), ErrorCode.INVALID_CREDENTIALS)

    told = data_of(begin_totp(session), 201)

    assert told.keys() == {"secret", "otpauth_uri", "qr_svg"}
    uri = urlsplit(told["otpauth_uri"])
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert parse_qs(uri.query) == {"secret": [told["secret"]], "issuer": ["Undercroft"]}
    assert ET.fromstring(told["qr_svg"]).tag == "{http://www.w3.org/2000/svg}svg"
    # Not yet: somebody whose phone did not take the picture is not shut out.
    assert data_of(ask(session, "GET", SECURITY))["totp"]["enabled"] is False
    open_session(session.account)

    phone = Phone(told["secret"], database_url)
    refused(confirm_totp(session, phone.wrong_code()), ErrorCode.INVALID_SECOND_FACTOR)
    codes = data_of(confirm_totp(session, phone.code()))["recovery_codes"]

    assert len(set(codes)) == 10
    security = data_of(ask(session, "GET", SECURITY))
    assert (security["totp"]["enabled"], security["recovery_codes_left"]) == (True, 10)
    assert next(each for each in security["sessions"] if each["current"])["second_factor_at"] is not None
    mailbox.wait_for(session.account.email, about="second factor was added")
    assert [entry["outcome"] for entry in audited(admin, session.account, "totp.enabled")] == ["done"]
    refused(confirm_totp(session, phone.code()), ErrorCode.TOTP_NOT_BEGUN)
    refused(begin_totp(session), ErrorCode.TOTP_ALREADY_ENABLED)


def test_a_secret_that_was_asked_for_again_takes_the_place_of_the_one_before(
    open_session: OpenSession, database_url: str
) -> None:
    session = open_session()
    first, second = (Phone(data_of(begin_totp(session), 201)["secret"], database_url) for _ in range(2))

    refused(confirm_totp(session, first.code()), ErrorCode.INVALID_SECOND_FACTOR)
    data_of(confirm_totp(session, second.code()))


def test_what_was_begun_long_ago_is_begun_no_more(open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    phone = Phone(data_of(begin_totp(session), 201)["secret"], database_url)
    mine = col(TotpFactor.user_id) == UUID(session.account.id)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    execute(database_url, update(TotpFactor).where(mine).values(updated_at=long_ago))

    refused(confirm_totp(session, phone.code()), ErrorCode.TOTP_NOT_BEGUN)


# --- Logging in


def test_a_log_in_takes_two_steps_and_the_first_opens_nothing(guard: Guard) -> None:
    guarded = guard()
    letter = {"email": guarded.account.email, "password": PASSWORD}

    told = refused(guarded.session.client.post(LOGIN, json=letter), ErrorCode.SECOND_FACTOR_REQUIRED)

    assert told.keys() == {"mfa_token", "methods", "expires_in"}
    assert (told["methods"], told["expires_in"]) == (["totp", "recovery_code"], 300)
    refused(guarded.session.client.get("/api/v1/profile", headers=bearer(told["mfa_token"])), ErrorCode.INVALID_TOKEN)
    opened = data_of(guarded.finish(told["mfa_token"], guarded.phone.code()))
    assert opened.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    data_of(guarded.session.client.get("/api/v1/profile", headers=bearer(opened["access_token"])))


def test_a_wrong_password_is_answered_as_ever(guard: Guard) -> None:
    guarded = guard()

    letter = {"email": guarded.account.email, "password": NEW_PASSWORD}

    refused(guarded.session.client.post(LOGIN, json=letter), ErrorCode.INVALID_CREDENTIALS)


def test_the_form_of_oauth2_says_that_a_second_factor_is_needed(guard: Guard) -> None:
    guarded = guard()
    form = {"grant_type": "password", "username": guarded.account.email, "password": PASSWORD}

    answer = guarded.session.client.post("/api/v1/auth/token", data=form)

    assert (answer.status_code, answer.json().keys(), answer.json()["error"]) == (
        400,
        {"error", "mfa_token"},
        "mfa_required",
    )
    data_of(guarded.finish(answer.json()["mfa_token"], guarded.phone.code()))


def test_a_wrong_code_leaves_the_log_in_open_and_is_noted(guard: Guard, admin: httpx2.Client) -> None:
    guarded = guard()
    token = guarded.begin_login()

    refused(guarded.finish(token, guarded.phone.wrong_code()), ErrorCode.INVALID_SECOND_FACTOR)
    refused(guarded.finish(token, "not a code"), ErrorCode.INVALID_SECOND_FACTOR)
    refused(guarded.finish(token, "\uff11\uff12\uff13\uff14\uff15\uff16"), ErrorCode.INVALID_SECOND_FACTOR)

    code = guarded.phone.code()
    data_of(guarded.finish(token, f" {code[:3]} {code[3:]}"))
    assert len(audited(admin, guarded.account, "second_factor.refused")) == 3


def test_a_code_is_good_once_wherever_it_is_shown_again(guard: Guard, admin: httpx2.Client) -> None:
    guarded = guard()
    used = guarded.phone.code()
    opened = data_of(guarded.finish(guarded.begin_login(), used))
    session = Session(guarded.session.client, guarded.account, opened["access_token"], opened["refresh_token"])

    refused(guarded.finish(guarded.begin_login(), used), ErrorCode.INVALID_SECOND_FACTOR)
    refused(guarded.step_up(session, used), ErrorCode.INVALID_SECOND_FACTOR)

    noted = audited(admin, guarded.account, "second_factor.refused")
    assert [(entry["outcome"], entry["after"]["replayed"]) for entry in noted] == [("refused", True)] * 2


def test_codes_of_the_neighbouring_steps_are_good_and_none_before_the_last_one_taken(guard: Guard) -> None:
    guarded = guard()
    phone = guarded.phone
    phone.rest()

    def finish(step: int) -> httpx2.Response:
        return guarded.finish(guarded.begin_login(), phone.code_of(step))

    # By a step that may begin meanwhile, two steps off is always wrong, and this step or the next one always right.
    refused(finish(phone.now() - 3), ErrorCode.INVALID_SECOND_FACTOR)
    refused(finish(phone.now() + 3), ErrorCode.INVALID_SECOND_FACTOR)
    data_of(finish(phone.now()))
    newest = phone.now() + 1
    data_of(finish(newest))
    refused(finish(newest - 1), ErrorCode.INVALID_SECOND_FACTOR)


def test_after_ten_wrong_codes_none_is_looked_at_but_a_recovery_code_is(guard: Guard, mailbox: Mailbox) -> None:
    guarded = guard()
    token = guarded.begin_login()
    for _ in range(10):
        refused(guarded.finish(token, guarded.phone.wrong_code()), ErrorCode.INVALID_SECOND_FACTOR)

    answer = guarded.finish(token, guarded.phone.code())

    assert 0 < refused(answer, ErrorCode.TOO_MANY_ATTEMPTS)["retry_after_seconds"] <= 3600
    mailbox.wait_for(guarded.account.email, about="Somebody guesses")
    data_of(guarded.finish(token, guarded.recovery_codes[0], "recovery_code"))


def test_right_codes_are_not_counted(guard: Guard) -> None:
    guarded = guard()

    for _ in range(12):
        guarded.log_in()


@pytest.mark.parametrize("way", ["expired", "completed", "password changed", "sessions ended", "disabled", "made up"])
def test_a_log_in_is_not_completed_when_it_is_over(
    guard: Guard, database_url: str, admin: httpx2.Client, way: str
) -> None:
    guarded = guard()
    token = guarded.begin_login()
    match way:
        case "expired":
            mine = col(LoginChallenge.user_id) == UUID(guarded.account.id)
            execute(database_url, update(LoginChallenge).where(mine).values(expires_at=datetime.now(UTC)))
        case "completed":
            data_of(guarded.finish(token, guarded.phone.code()))
        case "password changed":
            change: dict[str, object] = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
            data_of(guarded.session.post("password/change", change))
        case "sessions ended":
            data_of(guarded.session.post("logout-all"))
        case "disabled":
            data_of(admin.patch(f"/api/v1/users/{guarded.account.id}", json={"is_active": False}))
        case _:
            token = "A" * 43

    refused(guarded.finish(token, guarded.phone.code()), ErrorCode.INVALID_LOGIN_CHALLENGE)
    refused(guarded.finish(token, guarded.recovery_codes[0], "recovery_code"), ErrorCode.INVALID_LOGIN_CHALLENGE)


# --- Recovery codes


def test_a_recovery_code_stands_for_the_factor_once(guard: Guard, mailbox: Mailbox, admin: httpx2.Client) -> None:
    guarded = guard()
    code = guarded.recovery_codes[3]

    data_of(guarded.finish(guarded.begin_login(), code, "recovery_code"))

    refused(guarded.finish(guarded.begin_login(), code, "recovery_code"), ErrorCode.INVALID_SECOND_FACTOR)
    assert data_of(guarded.ask("GET", SECURITY))["recovery_codes_left"] == 9
    mailbox.wait_for(guarded.account.email, about="recovery code")
    (noted,) = audited(admin, guarded.account, "second_factor.refused")
    assert (noted["after"]["method"], noted["after"]["replayed"]) == ("recovery_code", True)


@pytest.mark.parametrize("typed", [str.lower, lambda code: code.replace("-", " "), lambda code: code.replace("-", "")])
def test_a_recovery_code_is_taken_as_people_type_it(guard: Guard, typed: Callable[[str], str]) -> None:
    guarded = guard()

    data_of(guarded.finish(guarded.begin_login(), typed(guarded.recovery_codes[0]), "recovery_code"))


def test_new_recovery_codes_void_those_before(guard: Guard) -> None:
    guarded = guard()

    fresh = data_of(guarded.ask("POST", f"{SECURITY}/recovery-codes"))["recovery_codes"]

    assert len(fresh) == 10
    assert set(fresh).isdisjoint(guarded.recovery_codes)
    token = guarded.begin_login()
    refused(guarded.finish(token, guarded.recovery_codes[0], "recovery_code"), ErrorCode.INVALID_SECOND_FACTOR)
    data_of(guarded.finish(token, fresh[0], "recovery_code"))


def test_somebody_elses_recovery_code_is_none(guard: Guard) -> None:
    mine, theirs = guard(), guard()

    refused(mine.finish(mine.begin_login(), theirs.recovery_codes[0], "recovery_code"), ErrorCode.INVALID_SECOND_FACTOR)


# --- Proving it again


def test_what_changes_the_factors_takes_one_that_was_proven_a_moment_ago(guard: Guard, database_url: str) -> None:
    guarded = guard()
    make_old(database_url, guarded.account, seconds=901)

    for method, path in (("DELETE", "totp"), ("POST", "recovery-codes")):
        answer = guarded.ask(method, f"{SECURITY}/{path}")
        assert refused(answer, ErrorCode.STEP_UP_REQUIRED) == {"max_age_seconds": 900}
        # RFC 9470 §3
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_user_authentication", max_age="900"'

    data_of(guarded.step_up(guarded.session, guarded.phone.code()))
    data_of(guarded.ask("POST", f"{SECURITY}/recovery-codes"))


def test_a_step_up_is_of_its_own_session_alone(guard: Guard, database_url: str) -> None:
    guarded = guard()
    other = guarded.log_in()
    make_old(database_url, guarded.account, seconds=901)

    data_of(guarded.step_up(other, guarded.recovery_codes[0], "recovery_code"))

    data_of(ask(other, "POST", f"{SECURITY}/recovery-codes"))
    refused(guarded.ask("POST", f"{SECURITY}/recovery-codes"), ErrorCode.STEP_UP_REQUIRED)


def test_without_a_factor_nothing_is_proven(open_session: OpenSession) -> None:
    session = open_session()

    for method in ("totp", "recovery_code"):
        answer = ask(session, "POST", STEP_UP, {"method": method, "code": "123456"})
        refused(answer, ErrorCode.NO_SECOND_FACTOR)
    refused(ask(session, "DELETE", f"{SECURITY}/totp"), ErrorCode.STEP_UP_REQUIRED)


def test_wrong_use_of_the_guard_fails_at_import() -> None:
    with pytest.raises(ValueError, match="positive"):
        require_mfa(max_age_seconds=0)


def test_a_factor_that_is_removed_is_asked_for_no_more(guard: Guard, mailbox: Mailbox) -> None:
    guarded = guard()
    other = guarded.log_in()

    data_of(guarded.ask("DELETE", f"{SECURITY}/totp"))

    mailbox.wait_for(guarded.account.email, about="was removed")
    letter = {"email": guarded.account.email, "password": PASSWORD}
    data_of(guarded.session.client.post(LOGIN, json=letter))
    security = data_of(guarded.ask("GET", SECURITY))
    assert (security["totp"]["enabled"], security["recovery_codes_left"]) == (False, 0)
    # What was proven with it is proven no more.
    assert all(each["second_factor_at"] is None for each in security["sessions"])
    refused(ask(other, "POST", f"{SECURITY}/recovery-codes"), ErrorCode.STEP_UP_REQUIRED)


# --- Administrators


@dataclass
class Chapter:
    """A role that takes a second factor, and the permission that it gives."""

    id: str
    name: str


@pytest.fixture
def chapter(admin: httpx2.Client) -> Chapter:
    name = f"r-{uuid4().hex}"
    made = data_of(admin.post("/api/v1/roles", json={"name": name, "permissions": ["audit:read"]}), 201)
    return Chapter(made["id"], made["name"])


def test_a_role_that_takes_a_second_factor_counts_where_one_was_proven(
    open_session: OpenSession, guard: Guard, admin: httpx2.Client, chapter: Chapter
) -> None:
    account = open_session().account
    data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": ["user", chapter.name]}))
    before = open_session(account)
    data_of(ask(before, "GET", "/api/v1/audit"))

    role = data_of(admin.put(f"/api/v1/roles/{chapter.id}/second-factor", json={"required": True}))

    assert role["requires_second_factor"] is True
    refused(before.profile(), ErrorCode.INVALID_TOKEN)
    session = before.refreshed()
    assert refused(ask(session, "GET", "/api/v1/audit"), ErrorCode.STEP_UP_REQUIRED) == {}
    data_of(session.profile())
    assert data_of(ask(session, "GET", SECURITY))["second_factor_required"] is True
    guarded = guard(session)
    data_of(ask(session, "GET", "/api/v1/audit"))
    # Nor does it count any more when the factor goes.
    data_of(guarded.ask("DELETE", f"{SECURITY}/totp"))
    refused(ask(session, "GET", "/api/v1/audit"), ErrorCode.STEP_UP_REQUIRED)
    data_of(admin.put(f"/api/v1/roles/{chapter.id}/second-factor", json={"required": False}))
    data_of(ask(session, "GET", "/api/v1/audit"))


def test_who_reaches_less_far_asks_no_factor_of_a_role(
    open_session: OpenSession, admin: httpx2.Client, chapter: Chapter
) -> None:
    name = f"{chapter.name}-writer"
    data_of(admin.post("/api/v1/roles", json={"name": name, "permissions": ["role:update"]}), 201)
    account = open_session().account
    data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": ["user", name]}))
    writer = open_session(account)

    answer = ask(writer, "PUT", f"/api/v1/roles/{chapter.id}/second-factor", {"required": True})

    assert refused(answer, ErrorCode.GRANT_NOT_HELD) == {"missing": ["audit:read"]}


def test_an_administrator_resets_what_somebody_lost(guard: Guard, admin: httpx2.Client, mailbox: Mailbox) -> None:
    guarded = guard()
    token = guarded.begin_login()
    path = f"/api/v1/users/{guarded.account.id}/second-factors"

    data_of(admin.delete(path))

    refused(guarded.session.profile(), ErrorCode.INVALID_TOKEN)
    refused(guarded.finish(token, guarded.recovery_codes[0], "recovery_code"), ErrorCode.INVALID_LOGIN_CHALLENGE)
    letter = {"email": guarded.account.email, "password": PASSWORD}
    data_of(guarded.session.client.post(LOGIN, json=letter))
    mailbox.wait_for(guarded.account.email, about="was reset")
    assert len(audited(admin, guarded.account, "second_factors.reset")) == 1
    refused(admin.delete(path), ErrorCode.NO_SECOND_FACTOR)


def test_nothing_of_a_factor_outlives_its_account(guard: Guard, admin: httpx2.Client, database_url: str) -> None:
    guarded = guard()
    guarded.begin_login()

    data_of(admin.delete(f"/api/v1/users/{guarded.account.id}"))

    for table in (TotpFactor, RecoveryCode, LoginChallenge):
        query = select(func.count()).where(col(table.user_id) == UUID(guarded.account.id))
        assert execute(database_url, query)[0][0] == 0


@pytest.mark.parametrize("proof", ["verify", "password/reset"])
def test_who_proves_the_address_has_no_factors_and_keys_of_who_had_the_account_before(
    guard: Guard, mailbox: Mailbox, proof: str
) -> None:
    """Whoever registered an address did not have to be its owner."""
    stranger = guard()
    email, client = stranger.account.email, stranger.session.client
    letter = {"name": "mine", "permissions": [], "current_password": PASSWORD}
    key = data_of(stranger.ask("POST", f"{SECURITY}/api-keys", letter), 201)["key"]
    if proof == "verify":
        told = {"token": mailbox.wait_for(email, about="Confirm your address").code}
    else:
        data_of(client.post("/api/v1/auth/password/forgot", json={"email": email}), 202)
        told = {"token": mailbox.wait_for(email, about="new password").code, "new_password": NEW_PASSWORD}

    data_of(client.post(f"/api/v1/auth/{proof}", json=told))

    data_of(client.post(LOGIN, json={"email": email, "password": told.get("new_password", PASSWORD)}))
    refused(client.get("/api/v1/profile", headers=bearer(key)), ErrorCode.INVALID_TOKEN)


def test_a_verified_owner_who_forgot_the_password_keeps_the_factor(
    guard: Guard, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    guarded = guard()
    email, client = guarded.account.email, guarded.session.client
    data_of(admin.patch(f"/api/v1/users/{guarded.account.id}", json={"is_verified": True}))
    data_of(client.post("/api/v1/auth/password/forgot", json={"email": email}), 202)
    told = {"token": mailbox.wait_for(email, about="new password").code, "new_password": NEW_PASSWORD}

    data_of(client.post("/api/v1/auth/password/reset", json=told))

    refused(client.post(LOGIN, json={"email": email, "password": NEW_PASSWORD}), ErrorCode.SECOND_FACTOR_REQUIRED)


def test_an_administrator_with_a_factor_proves_it_before_resetting_one(
    guard: Guard, admin: httpx2.Client, database_url: str
) -> None:
    chief, somebody = guard(), guard()
    data_of(admin.put(f"/api/v1/users/{chief.account.id}/roles", json={"roles": ["admin"]}))
    session = chief.session.refreshed()
    make_old(database_url, chief.account, seconds=901)

    for account in (chief.account, somebody.account):
        answer = ask(session, "DELETE", f"/api/v1/users/{account.id}/second-factors")
        refused(answer, ErrorCode.STEP_UP_REQUIRED)
    data_of(chief.step_up(session, chief.recovery_codes[0], "recovery_code"))

    data_of(ask(session, "DELETE", f"/api/v1/users/{somebody.account.id}/second-factors"))


def test_who_lacks_the_factor_that_a_role_takes_still_has_a_profile(
    open_session: OpenSession, admin: httpx2.Client, chapter: Chapter
) -> None:
    account = open_session().account
    data_of(admin.put(f"/api/v1/users/{account.id}/roles", json={"roles": ["user", chapter.name]}))
    data_of(admin.put(f"/api/v1/roles/{chapter.id}/second-factor", json={"required": True}))
    session, name = open_session(account), f"u-{uuid4().hex}"

    assert data_of(ask(session, "PATCH", "/api/v1/profile", {"username": name}))["username"] == name


def test_wrong_recovery_codes_are_looked_at_without_end_and_noted_so_often(database_kind: Kind) -> None:
    with own_place(database_kind, AUTH__REFUSALS_NOTED="3") as place, place.service() as service:
        letter, email = service.log_in(), service.register()
        told = service.log_in(email)
        session = Session(service.client, Account("", email), told["access_token"], told["refresh_token"])
        phone = Phone(data_of(begin_totp(session), 201)["secret"], place.env["DB__URL"])
        guarded = Guarded(session, phone, data_of(confirm_totp(session, phone.code()))["recovery_codes"])
        token = guarded.begin_login()

        for _ in range(5):
            refused(guarded.finish(token, "AAAA-AAAA-AAAA-AAAA", "recovery_code"), ErrorCode.INVALID_SECOND_FACTOR)

        noted = data_of(service.get("audit", token=letter["access_token"], action="second_factor.refused"))
        assert noted["total"] == 3
        data_of(guarded.finish(token, guarded.recovery_codes[0], "recovery_code"))


def test_recovery_codes_are_renewed_five_times_an_hour(guard: Guard) -> None:
    guarded = guard()

    answers = [guarded.ask("POST", f"{SECURITY}/recovery-codes") for _ in range(11)]

    assert 5 <= sum(answer.is_success for answer in answers) <= 10  # an hour may have ended meanwhile
    refused(next(answer for answer in answers if not answer.is_success), ErrorCode.TOO_MANY_ATTEMPTS)


def test_whoever_has_a_token_alone_keeps_nobody_from_setting_an_app_up(
    open_session: OpenSession, database_url: str, mailbox: Mailbox
) -> None:
    session = open_session()
    phone = Phone(data_of(begin_totp(session), 201)["secret"], database_url)
    for _ in range(10):
        refused(confirm_totp(session, phone.wrong_code()), ErrorCode.INVALID_SECOND_FACTOR)
    refused(confirm_totp(session, phone.code()), ErrorCode.TOO_MANY_ATTEMPTS)

    assert mailbox.mails_to(session.account.email, about="guesses") == []


# --- Many at once


def outcomes(answers: list[httpx2.Response]) -> tuple[int, set[int]]:
    """How many succeeded, and with which codes the others were refused."""
    return (
        sum(answer.is_success for answer in answers),
        {answer.json()["code"] for answer in answers if not answer.is_success},
    )


_REFUSALS = {ErrorCode.INVALID_SECOND_FACTOR, ErrorCode.TOO_MANY_ATTEMPTS, ErrorCode.INVALID_LOGIN_CHALLENGE}


def test_of_fifty_who_use_one_code_one_gets_in(guard: Guard) -> None:
    guarded = guard()
    waiting, code = [guarded.begin_login() for _ in range(50)], guarded.phone.code()

    won, refusals = outcomes(at_once([partial(guarded.finish, token, code) for token in waiting]))

    assert won == 1
    assert refusals <= _REFUSALS


def test_of_fifty_who_complete_one_log_in_one_does(guard: Guard) -> None:
    guarded = guard()
    token, codes = guarded.begin_login(), guarded.recovery_codes

    won, refusals = outcomes(
        at_once([partial(guarded.finish, token, codes[turn % 10], "recovery_code") for turn in range(50)])
    )

    assert won == 1
    assert refusals <= _REFUSALS
    # Who did not get in did not spend a code either.
    assert data_of(guarded.ask("GET", SECURITY))["recovery_codes_left"] == 9


def test_of_fifty_who_use_one_recovery_code_one_gets_in(guard: Guard) -> None:
    guarded = guard()
    waiting, code = [guarded.begin_login() for _ in range(50)], guarded.recovery_codes[0]

    won, refusals = outcomes(at_once([partial(guarded.finish, token, code, "recovery_code") for token in waiting]))

    assert won == 1
    assert refusals <= _REFUSALS


def test_of_fifty_confirmations_one_gives_recovery_codes(open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    phone = Phone(data_of(begin_totp(session), 201)["secret"], database_url)
    code = phone.code()

    won, refusals = outcomes(at_once([partial(confirm_totp, session, code)] * 50))

    assert won == 1
    assert refusals <= {*_REFUSALS, ErrorCode.TOTP_NOT_BEGUN}


# --- Secrets of the service


def test_a_factor_outlives_a_change_of_the_secret_that_sealed_it(database_kind: Kind) -> None:
    old, new = "first-secret-" * 4, "second-secret-" * 4
    with own_place(database_kind, AUTH__SECRET=old) as place:
        account = {"email": "ada@example.com", "password": PASSWORD}
        with place.service() as service:
            data_of(service.client.post("/api/v1/auth/register", json=account), 201)
            letter = data_of(service.client.post(LOGIN, json=account))
            session = Session(
                service.client, Account("", account["email"]), letter["access_token"], letter["refresh_token"]
            )
            phone = Phone(data_of(begin_totp(session), 201)["secret"], place.env["DB__URL"])
            data_of(confirm_totp(session, phone.code()))

        def finish(client: httpx2.Client, code: str) -> httpx2.Response:
            told = refused(client.post(LOGIN, json=account), ErrorCode.SECOND_FACTOR_REQUIRED)
            return client.post(FINISH, json={"mfa_token": told["mfa_token"], "method": "totp", "code": code})

        with place.service(AUTH__SECRET=new) as service:
            refused(finish(service.client, phone.code()), ErrorCode.INVALID_SECOND_FACTOR)
        with place.service(AUTH__SECRET=new, AUTH__PREVIOUS_SECRETS=old) as service:
            data_of(finish(service.client, phone.code()))
        # It was sealed anew when it was used.
        with place.service(AUTH__SECRET=new) as service:
            data_of(finish(service.client, phone.code()))

"""What a mail is good for: verifying an address, choosing a new password, moving to another address."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.auth.models import OneTimeToken, Purpose
from src.auth.tokens import hash_opaque_token
from src.outbox.models import OutboxEvent
from src.shared.errors import ErrorCode
from src.users import User
from tests.auth.conftest import LOGIN, OpenSession, Session
from tests.conftest import PASSWORD, Account
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields, told
from tests.support.mail import Mailbox, running_mail_server
from tests.support.postgres import Kind
from tests.support.service import own_place
from tests.support.tables import execute
from tests.support.waiting import eventually

NEW_PASSWORD = "violet-harbour-engine-47"
VERIFY, RESET, CONFIRM = "verify", "password/reset", "email/confirm"
ABOUT = {VERIFY: "Confirm your address", RESET: "new password", CONFIRM: "new address"}
Register = Callable[[], Account]


@pytest.fixture
def ask(client: httpx2.Client) -> Callable[..., httpx2.Response]:
    return lambda path, **body: client.post(f"/api/v1/auth/{path}", json=body)


Ask = Callable[..., httpx2.Response]


def address() -> str:
    return f"{uuid4().hex}@example.com"


def use(ask: Ask, path: str, code: str) -> httpx2.Response:
    more = {"new_password": NEW_PASSWORD} if path == RESET else {}
    return ask(path, token=code, **more)


def request_move(session: Session, email: str, password: str = PASSWORD) -> httpx2.Response:
    return session.post("email/change", {"new_email": email, "current_password": password})


def code_for(path: str, session: Session, mailbox: Mailbox, ask: Ask, *, number: int = 1) -> str:
    """A fresh one of that kind."""
    email = session.account.email
    if path == CONFIRM:
        email = f"new-{email}"
        data_of(request_move(session, email), 202)
    elif path == RESET:
        data_of(ask("password/forgot", email=email), 202)
    elif number > 1:
        data_of(ask("verify/request", email=email), 202)
    return mailbox.wait_for(email, about=ABOUT[path], number=number).code


def assert_all_ended(*sessions: Session) -> None:
    for session in sessions:
        refused(session.profile(), ErrorCode.INVALID_TOKEN)
        refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)


def test_an_address_is_verified_by_the_code_that_was_sent_to_it(
    ask: Ask, open_session: OpenSession, mailbox: Mailbox
) -> None:
    before = open_session()
    assert data_of(before.profile())["is_verified"] is False

    assert data_of(ask(VERIFY, token=code_for(VERIFY, before, mailbox, ask))) is None

    assert_all_ended(before)
    assert data_of(open_session(before.account).profile())["is_verified"] is True


def test_a_new_password_is_chosen_by_the_code_of_a_mail(ask: Ask, open_session: OpenSession, mailbox: Mailbox) -> None:
    before = open_session()
    email = before.account.email

    assert data_of(use(ask, RESET, code_for(RESET, before, mailbox, ask))) is None

    assert_all_ended(before)
    refused(ask("login", email=email, password=PASSWORD), ErrorCode.INVALID_CREDENTIALS)
    letter = data_of(ask("login", email=email, password=NEW_PASSWORD))
    profile = data_of(before.client.get("/api/v1/profile", headers=bearer(letter["access_token"])))
    assert profile["is_verified"] is True  # who reads mail there has shown it
    assert "was changed" in mailbox.wait_for(email, about="password of your account").subject


def test_an_account_moves_to_an_address_that_was_proved(ask: Ask, open_session: OpenSession, mailbox: Mailbox) -> None:
    before = open_session()
    old, new = before.account.email, f"new-{before.account.email}"
    code = code_for(CONFIRM, before, mailbox, ask)
    assert data_of(before.profile())["email"] == old  # until it is confirmed

    assert data_of(ask(CONFIRM, token=code)) is None

    assert_all_ended(before)
    refused(ask("login", email=old, password=PASSWORD), ErrorCode.INVALID_CREDENTIALS)
    moved = open_session(Account(before.account.id, new))
    assert (data_of(moved.profile())["email"], data_of(moved.profile())["is_verified"]) == (new, True)
    told_old = mailbox.wait_for(old, about="was changed")
    assert new not in told_old.text + told_old.html


@pytest.mark.parametrize("path", ABOUT)
def test_a_code_is_good_once(ask: Ask, open_session: OpenSession, mailbox: Mailbox, path: str) -> None:
    code = code_for(path, open_session(), mailbox, ask)

    answers = at_once([partial(use, ask, path, code) for _ in range(6)])

    assert sorted(answer.status_code for answer in answers) == [200, *[400] * 5]
    refused(use(ask, path, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


@pytest.mark.parametrize("path", ABOUT)
def test_the_newest_code_wins(ask: Ask, open_session: OpenSession, mailbox: Mailbox, path: str) -> None:
    session = open_session()
    first = code_for(path, session, mailbox, ask)
    second = code_for(path, session, mailbox, ask, number=2)

    refused(use(ask, path, first), ErrorCode.INVALID_ONE_TIME_TOKEN)
    data_of(use(ask, path, second))


@pytest.mark.parametrize("path", ABOUT)
def test_a_code_expires(ask: Ask, open_session: OpenSession, mailbox: Mailbox, database_url: str, path: str) -> None:
    code = code_for(path, open_session(), mailbox, ask)
    its = update(OneTimeToken).where(col(OneTimeToken.token_hash) == hash_opaque_token(code))
    execute(database_url, its.values(expires_at=datetime.now(UTC)))

    refused(use(ask, path, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


@pytest.mark.parametrize("path", ABOUT)
def test_a_code_lives_an_hour_at_most(
    ask: Ask, open_session: OpenSession, mailbox: Mailbox, database_url: str, path: str
) -> None:
    code = code_for(path, open_session(), mailbox, ask)

    its = select(col(OneTimeToken.created_at), col(OneTimeToken.expires_at))
    ((made, ends),) = map(
        tuple, execute(database_url, its.where(col(OneTimeToken.token_hash) == hash_opaque_token(code)))
    )
    assert (ends - made).total_seconds() <= 3600


@pytest.mark.parametrize("path", ABOUT)
@pytest.mark.parametrize("end", ["disable", "delete"])
def test_a_code_ends_with_its_account(  # noqa: PLR0913, PLR0917 - fixtures and two tables
    ask: Ask, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client, path: str, end: str
) -> None:
    session = open_session()
    code = code_for(path, session, mailbox, ask)
    user = f"/api/v1/users/{session.account.id}"
    data_of(admin.patch(user, json={"is_active": False}) if end == "disable" else admin.delete(user))

    refused(use(ask, path, code), ErrorCode.INVALID_ONE_TIME_TOKEN)
    if end == "disable":
        # What was sent to whoever had it then is not good for whoever has it now.
        data_of(admin.patch(user, json={"is_active": True}))
        refused(use(ask, path, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


def test_codes_for_a_new_password_end_when_the_password_or_the_address_changes(
    ask: Ask, open_session: OpenSession, mailbox: Mailbox
) -> None:
    """A mailbox that was lost must not take the account back."""
    moving, changing = open_session(), open_session()
    codes = [code_for(RESET, session, mailbox, ask) for session in (moving, changing)]
    data_of(ask(CONFIRM, token=code_for(CONFIRM, moving, mailbox, ask)))
    data_of(changing.post("password/change", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}))

    for code in codes:
        refused(use(ask, RESET, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


@pytest.mark.parametrize("made_for", ABOUT)
@pytest.mark.parametrize("offered_to", ABOUT)
def test_a_code_is_good_for_one_thing(
    ask: Ask, open_session: OpenSession, mailbox: Mailbox, made_for: str, offered_to: str
) -> None:
    code = code_for(made_for, open_session(), mailbox, ask)

    if made_for != offered_to:
        refused(use(ask, offered_to, code), ErrorCode.INVALID_ONE_TIME_TOKEN)

    data_of(use(ask, made_for, code))


@pytest.mark.parametrize("path", ["password/forgot", "verify/request"])
def test_asking_for_a_mail_tells_nobody_whether_there_is_an_account(
    ask: Ask, register: Register, admin: httpx2.Client, mailbox: Mailbox, path: str
) -> None:
    there, disabled, deleted = register(), register(), register()
    data_of(admin.patch(f"/api/v1/users/{disabled.id}", json={"is_active": False}))
    data_of(admin.delete(f"/api/v1/users/{deleted.id}"))
    nobody = address()

    answers = [ask(path, email=email) for email in (there.email, disabled.email, deleted.email, nobody)]

    assert answers[0].status_code == 202
    assert all(told(answer) == told(answers[0]) for answer in answers)
    # What is first in the queue is delivered first: if they got one, it would have come before.
    mailbox.wait_for(there.email, about=ABOUT[RESET if path == "password/forgot" else VERIFY])
    assert mailbox.mails_to(nobody) == []
    assert mailbox.mails_to(disabled.email, about="new password") == []


def test_a_code_that_was_sent_elsewhere_is_none(
    ask: Ask, open_session: OpenSession, mailbox: Mailbox, database_url: str
) -> None:
    """As if the account had moved while it was sent."""
    code = code_for(RESET, open_session(), mailbox, ask)
    its = update(OneTimeToken).where(col(OneTimeToken.token_hash) == hash_opaque_token(code))
    execute(database_url, its.values(email="elsewhere@example.com"))

    refused(use(ask, RESET, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


@pytest.mark.parametrize("end", ["password", "deletion", "address"])
async def test_what_was_asked_for_before_the_account_changed_is_not_done_after_it(
    database_kind: Kind, end: str
) -> None:
    with running_mail_server() as box, own_place(database_kind, MAIL__URL=box.url) as place:
        with place.service(OUTBOX__DISPATCH="false") as service:
            email, new = service.register(), address()
            token = service.log_in(email)["access_token"]
            letter = {"new_email": new, "current_password": PASSWORD}
            data_of(service.post("auth/email/change", letter, token=token), 202)
            data_of(service.post("auth/password/forgot", {"email": email}), 202)
            if end == "password":
                letter = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
                data_of(service.post("auth/password/change", letter, token=token))
            elif end == "deletion":
                data_of(service.post("profile/delete", {"current_password": PASSWORD}, token=token))
            else:
                user = update(User).where(col(User.email) == email)
                moved = user.values(email=f"moved-{email}", email_key=f"moved-{email}", auth_epoch=7)
                execute(place.database_url, moved)

        async def all_is_done() -> bool:
            waiting = select(func.count()).where(
                col(OutboxEvent.delivered_at).is_(None), col(OutboxEvent.dead_at).is_(None)
            )
            return int(execute(place.database_url, waiting)[0][0]) == 0

        with place.worker():
            await eventually(all_is_done, within_seconds=30)

    assert box.mails_to(new) == []
    assert len(box.mails_to(email, about="A new password")) == (1 if end == "password" else 0)


def test_a_mailbox_is_one_however_it_is_spelled_and_whoever_asks(database_kind: Kind) -> None:
    with (
        running_mail_server() as box,
        own_place(database_kind, MAIL__URL=box.url, MAIL__PER_MAILBOX="5") as place,
        place.service() as service,
    ):
        target, last = f"stranger-{uuid4().hex}@example.com", address()
        for number in range(8):
            spelled = target[:number] + target[number:].upper() if number else target
            token = service.log_in(service.register(spelled))["access_token"]
            data_of(service.post("profile/delete", {"current_password": PASSWORD}, token=token))
        box.wait_for(service.register(last))

    assert len([to for to, _ in box.arrived if to.casefold() == target]) == 5


def test_only_so_many_mails_are_sent_to_one_account_within_an_hour(
    ask: Ask, register: Register, mailbox: Mailbox, database_url: str
) -> None:
    account = register()

    for _ in range(12):
        data_of(ask("password/forgot", email=account.email), 202)

    mailbox.wait_for(account.email, about=ABOUT[RESET], number=10)
    made = select(func.count()).where(
        col(OneTimeToken.email) == account.email, col(OneTimeToken.purpose) == Purpose.RESET_PASSWORD
    )
    assert execute(database_url, made)[0][0] == 10


def test_nobody_fills_a_strangers_mailbox_by_wanting_to_move_there(
    open_session: OpenSession, register: Register, mailbox: Mailbox
) -> None:
    stranger, free, last = register(), address(), address()
    movers = [open_session() for _ in range(2)]

    for _ in range(8):
        for mover in movers:
            data_of(request_move(mover, stranger.email), 202)
            data_of(request_move(mover, free), 202)
    fresh = open_session()
    data_of(request_move(fresh, last), 202)
    mailbox.wait_for(last)

    assert len(mailbox.mails_to(stranger.email, about="has an account")) <= 10
    assert len(mailbox.mails_to(free)) <= 10
    # Ten in all for each who wants to move.
    assert len(mailbox.mails_to(stranger.email, about="has an account")) + len(mailbox.mails_to(free)) <= 20


def test_a_weak_password_leaves_the_code_as_it_was(ask: Ask, open_session: OpenSession, mailbox: Mailbox) -> None:
    code = code_for(RESET, open_session(), mailbox, ask)

    refused(ask(RESET, token=code, new_password="password1234"), ErrorCode.WEAK_PASSWORD)

    data_of(use(ask, RESET, code))


def test_moving_takes_the_password_once_more(open_session: OpenSession, mailbox: Mailbox) -> None:
    session, new = open_session(), address()

    refused(request_move(session, new, "not this one"), ErrorCode.INVALID_CREDENTIALS)
    data_of(request_move(session, new), 202)

    mailbox.wait_for(new)
    assert len(mailbox.mails_to(new)) == 1


def test_an_address_that_is_taken_is_warned_and_nobody_else_learns_it(
    open_session: OpenSession, register: Register, mailbox: Mailbox
) -> None:
    session, other = open_session(), register()

    free, taken = request_move(session, address()), request_move(session, other.email)

    assert told(free) == told(taken)
    mailbox.wait_for(other.email, about="has an account")
    assert mailbox.mails_to(other.email, about=ABOUT[CONFIRM]) == []


def test_an_address_that_was_taken_meanwhile_is_not_given_twice(
    ask: Ask, client: httpx2.Client, open_session: OpenSession, mailbox: Mailbox
) -> None:
    session = open_session()
    code = code_for(CONFIRM, session, mailbox, ask)
    taken = {"email": f"new-{session.account.email}", "password": PASSWORD}
    data_of(client.post("/api/v1/auth/register", json=taken), 201)

    refused(ask(CONFIRM, token=code), ErrorCode.EMAIL_TAKEN)

    data_of(session.profile())


@pytest.mark.parametrize("path", ABOUT)
@pytest.mark.parametrize("code", ["A" * 43, "x", "ä€😀", "a b", "." * 512])
def test_what_was_never_sent_is_no_code(ask: Ask, path: str, code: str) -> None:
    refused(use(ask, path, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


@pytest.mark.parametrize("path", ABOUT)
@pytest.mark.parametrize("code", ["", "x" * 513, None, 7, ["x"]])
def test_what_is_no_text_is_malformed(client: httpx2.Client, path: str, code: object) -> None:
    body = {"token": code} | ({"new_password": NEW_PASSWORD} if path == RESET else {})

    assert refused_fields(client.post(f"/api/v1/auth/{path}", json=body)) == {"token"}


def test_an_invited_person_chooses_a_password_and_is_in(ask: Ask, admin: httpx2.Client, mailbox: Mailbox) -> None:
    email = address()
    user = data_of(admin.post("/api/v1/users", json={"email": email}), 201)
    assert (user["is_verified"], user["is_active"]) == (False, True)
    refused(ask("login", email=email, password=PASSWORD), ErrorCode.INVALID_CREDENTIALS)
    first = mailbox.wait_for(email, about="Your account at").code
    data_of(admin.post(f"/api/v1/users/{user['id']}/invitation"), 202)
    second = mailbox.wait_for(email, about="Your account at", number=2).code

    refused(use(ask, VERIFY, second), ErrorCode.INVALID_ONE_TIME_TOKEN)
    refused(use(ask, RESET, first), ErrorCode.INVALID_ONE_TIME_TOKEN)
    data_of(use(ask, RESET, second))

    data_of(ask("login", email=email, password=NEW_PASSWORD))
    refused(admin.post(f"/api/v1/users/{user['id']}/invitation"), ErrorCode.ALREADY_JOINED)
    assert data_of(admin.get(f"/api/v1/users/{user['id']}"))["is_verified"] is True


def test_ones_own_account_can_be_closed(client: httpx2.Client, open_session: OpenSession, admin: httpx2.Client) -> None:
    leaving, pausing = open_session(), open_session()

    def close(session: Session, how: str, password: str) -> httpx2.Response:
        headers = bearer(session.access_token)
        return client.post(f"/api/v1/profile/{how}", json={"current_password": password}, headers=headers)

    for session, how in ((leaving, "delete"), (pausing, "deactivate")):
        refused(close(session, how, "not this one"), ErrorCode.INVALID_CREDENTIALS)
        data_of(session.profile())
        assert data_of(close(session, how, PASSWORD)) is None
        assert_all_ended(session)
        refused(
            client.post(LOGIN, json={"email": session.account.email, "password": PASSWORD}),
            ErrorCode.INVALID_CREDENTIALS,
        )
    refused(admin.get(f"/api/v1/users/{leaving.account.id}"), ErrorCode.USER_NOT_FOUND)
    data_of(admin.patch(f"/api/v1/users/{pausing.account.id}", json={"is_active": True}))
    open_session(pausing.account)

"""Sign-in with a provider: the first time, later, linked to an account that was there, and refused."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import delete, func, select, update
from sqlmodel import col

from src.auth.models import AuthSession, Credential, OneTimeToken, ProviderErrand, ProviderLink
from src.shared.errors import ErrorCode
from tests.auth.conftest import LOGIN, SECURITY, Guard, OpenSession, Session, ask
from tests.auth.test_second_factors import audited, make_old
from tests.conftest import PASSWORD, Account
from tests.support.answers import at_once, bearer, data_of, refused, refused_fields
from tests.support.authenticator import Authenticator
from tests.support.mail import Mailbox
from tests.support.oidc import House, Lies, Somebody, Town
from tests.support.postgres import Kind
from tests.support.service import own_place
from tests.support.tables import execute

PROVIDERS = "/api/v1/auth/providers"
CONFIRM = "/api/v1/auth/provider-links/confirm"
LINKS = f"{SECURITY}/providers"
NEW_PASSWORD = "violet-harbour-engine-47"


@dataclass
class Browser:
    """Somebody in front of one, who is known to a provider."""

    client: httpx2.Client
    house: House
    who: Somebody = field(default_factory=Somebody)

    def begin(self) -> dict[str, Any]:  # Any: JSON
        told: dict[str, Any] = data_of(self.client.post(f"{PROVIDERS}/{self.house.name}/begin"))
        return told

    def come_back(self, begun: dict[str, Any], lies: Lies | None = None) -> dict[str, Any]:  # Any: JSON
        """The letter that the page posts."""
        return {**self.house.visit(begun["authorization_url"], self.who, lies), "browser_token": begun["browser_token"]}

    def finish(self, letter: dict[str, Any]) -> httpx2.Response:  # Any: JSON
        return self.client.post(f"{PROVIDERS}/{self.house.name}/finish", json=letter)

    def sign_in(self, lies: Lies | None = None) -> httpx2.Response:
        return self.finish(self.come_back(self.begin(), lies))

    def session(self) -> Session:
        letter = data_of(self.sign_in())
        mine = data_of(self.client.get("/api/v1/profile", headers=bearer(letter["access_token"])))
        account = Account(mine["id"], mine["email"])
        return Session(self.client, account, letter["access_token"], letter["refresh_token"])


Browse = Callable[..., Browser]


@pytest.fixture
def browse(client: httpx2.Client, provider: House) -> Browse:
    return lambda who=None, house=provider: Browser(client, house, who or Somebody())


def confirm(browser: Browser, code: str) -> httpx2.Response:
    return browser.client.post(CONFIRM, json={"token": code})


def begin_link(session: Session, provider: str = "acme", **letter: object) -> httpx2.Response:
    return ask(session, "POST", f"{LINKS}/{provider}/begin", letter)


def finish_link(session: Session, letter: dict[str, Any], provider: str = "acme") -> httpx2.Response:  # Any: JSON
    return ask(session, "POST", f"{LINKS}/{provider}/finish", letter)


def link(session: Session, browser: Browser, **letter: object) -> httpx2.Response:
    begun = data_of(begin_link(session, browser.house.name, **(letter or {"current_password": PASSWORD})))
    return finish_link(session, browser.come_back(begun), browser.house.name)


def notes(admin: httpx2.Client, provider: str = "acme") -> list[str]:
    """Why answers were refused, newest first."""
    query = {"target_id": provider, "action": "provider.refused", "size": "100"}
    return [entry["after"]["reason"] for entry in data_of(admin.get("/api/v1/audit", params=query))["items"]]


def log_in_long_ago(database_url: str, account: Account, seconds: int = 901) -> None:
    execute(
        database_url,
        update(AuthSession)
        .where(col(AuthSession.user_id) == UUID(account.id))
        .values(created_at=datetime.now(UTC) - timedelta(seconds=seconds)),
    )


def count_links(database_url: str, account: Account) -> int:
    mine = select(func.count()).select_from(ProviderLink).where(col(ProviderLink.user_id) == UUID(account.id))
    return int(execute(database_url, mine)[0][0])


def test_the_providers_are_listed(client: httpx2.Client) -> None:
    assert data_of(client.get(PROVIDERS)) == [{"name": "acme", "title": "Acme"}, {"name": "other", "title": "Other"}]


def test_the_first_sign_in_opens_an_account_and_later_ones_find_it(browse: Browse) -> None:
    browser = browse()

    first = browser.session()
    again = browser.session()

    assert first.account.email == browser.who.email
    assert again.account == first.account
    (link,) = data_of(ask(again, "GET", LINKS))
    assert (link["provider"], link["title"]) == ("acme", "Acme")
    assert link["last_used_at"] > link["created_at"]
    assert data_of(ask(again, "GET", SECURITY))["providers"] == [link]
    assert data_of(ask(again, "GET", SECURITY))["has_password"] is False


def test_what_the_browser_is_sent_with_is_random_and_complete(browse: Browse) -> None:
    one, two = browse().begin(), browse().begin()

    urls = [httpx2.URL(each["authorization_url"]) for each in (one, two)]
    asked = dict(urls[0].params)
    assert asked.keys() >= {"state", "nonce", "code_challenge", "redirect_uri", "client_id"}
    assert (asked["scope"], asked["code_challenge_method"]) == ("openid email", "S256")
    assert all(urls[0].params[name] != urls[1].params[name] for name in ("state", "nonce", "code_challenge"))
    assert all(secret not in one["authorization_url"] for secret in (one["browser_token"], two["browser_token"]))
    assert one["expires_in"] == 300


def test_an_unknown_provider_is_none(client: httpx2.Client, open_session: OpenSession) -> None:
    letter = {"browser_token": "b", "state": "s", "code": "c"}
    refused(client.post(f"{PROVIDERS}/nobody/begin"), ErrorCode.PROVIDER_NOT_FOUND)
    refused(client.post(f"{PROVIDERS}/nobody/finish", json=letter), ErrorCode.PROVIDER_NOT_FOUND)
    refused(begin_link(open_session(), "nobody", current_password=PASSWORD), ErrorCode.PROVIDER_NOT_FOUND)
    refused(finish_link(open_session(), letter, "nobody"), ErrorCode.PROVIDER_NOT_FOUND)
    assert refused_fields(client.post(f"{PROVIDERS}/acme/finish", json={})) == {"browser_token", "state", "code"}


# --- Each answer is good once, in one browser, for one provider


def test_an_answer_is_good_once_and_a_replay_is_audited(browse: Browse, admin: httpx2.Client) -> None:
    browser = browse()
    letter = browser.come_back(browser.begin())
    data_of(browser.finish(letter))

    refused(browser.finish(letter), ErrorCode.INVALID_PROVIDER_ANSWER)

    assert notes(admin)[0] == "replayed"


def test_of_fifty_answers_at_once_one_is_taken(browse: Browse) -> None:
    browser = browse()
    letter = browser.come_back(browser.begin())

    answers = at_once([partial(browser.finish, letter)] * 50)

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 49


def test_an_answer_that_another_browser_asked_for_logs_nobody_in(browse: Browse, admin: httpx2.Client) -> None:
    """Somebody is made to open the address that an attacker came back to: they would be in the attacker's account."""
    victim, attacker = browse(), browse()
    letter = attacker.come_back(attacker.begin())
    begun = victim.begin()

    refused(victim.finish({**letter, "browser_token": begun["browser_token"]}), ErrorCode.INVALID_PROVIDER_ANSWER)

    assert notes(admin)[0] == "other_state"
    # Whatever was wrong, what was begun is over.
    refused(victim.finish(victim.come_back(begun)), ErrorCode.INVALID_PROVIDER_ANSWER)
    data_of(attacker.finish(letter))


def test_a_code_of_somebody_elses_sign_in_is_refused_by_its_challenge(browse: Browse) -> None:
    one, two = browse(), browse()
    mine, theirs = one.come_back(one.begin()), two.come_back(two.begin())

    refused(one.finish({**mine, "code": theirs["code"]}), ErrorCode.INVALID_PROVIDER_ANSWER)


def test_an_answer_that_came_too_late_is_refused(browse: Browse, database_url: str) -> None:
    browser = browse()
    letter = browser.come_back(browser.begin())
    execute(database_url, update(ProviderErrand).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))

    refused(browser.finish(letter), ErrorCode.INVALID_PROVIDER_ANSWER)


def test_what_was_asked_of_one_provider_is_not_answered_by_another(browse: Browse, providers: Town) -> None:
    """Mix-up (RFC 9700 §4.4): each provider has a page of its own, and says who it is."""
    acme, other = browse(), browse(house=providers.house("other"))
    begun = acme.begin()
    letter = acme.come_back(begun)

    refused(other.finish(letter), ErrorCode.INVALID_PROVIDER_ANSWER)
    data_of(acme.finish(letter))  # it was not the other's to spend

    letter = acme.come_back(acme.begin())
    theirs = other.come_back(other.begin())
    refused(acme.finish({**letter, "code": theirs["code"]}), ErrorCode.INVALID_PROVIDER_ANSWER)


@pytest.mark.parametrize("said", ["http://127.0.0.1:1/acme", "", None])
def test_an_answer_says_whose_it_is(browse: Browse, providers: Town, said: str | None) -> None:
    browser = browse()
    letter = browser.come_back(browser.begin())
    assert letter["iss"] == browser.house.issuer

    refused(browser.finish({**letter, "iss": said}), ErrorCode.INVALID_PROVIDER_ANSWER)

    assert all(page != "/token" or letter["code"] not in body for page, body in browser.house.asked)


def test_nothing_that_is_kept_of_a_sign_in_completes_it(browse: Browse, database_url: str) -> None:
    browser = browse()
    begun = browser.begin()
    query = dict(httpx2.URL(begun["authorization_url"]).params)

    kept = repr(execute(database_url, select(ProviderErrand)))

    assert all(value not in kept for value in (begun["browser_token"], query["state"], query["nonce"]))


# --- Who comes


@pytest.mark.parametrize(
    "who",
    [
        Somebody(email_verified=False),
        Somebody(email_verified=None),
        Somebody(email_verified="yes"),
        Somebody(email_verified=1),
        Somebody(email=None),
        Somebody(email=["a@example.com"]),
        Somebody(email="no address"),
        Somebody(email="two@example.com, three@example.com"),
        Somebody(email=""),
    ],
)
def test_without_a_verified_address_nobody_is_let_in(browse: Browse, who: Somebody) -> None:
    refused(browse(who).sign_in(), ErrorCode.PROVIDER_ADDRESS_UNPROVEN)


def test_a_provider_may_write_true_as_a_word(browse: Browse) -> None:
    data_of(browse(Somebody(email_verified="true")).sign_in())


def test_who_is_known_needs_no_address_and_keeps_the_account_with_another_one(browse: Browse) -> None:
    browser = browse()
    account = browser.session().account

    for email, proven in ((None, None), (browser.who.email, False), (f"{uuid4().hex}@example.com", True)):
        browser.who = replace(browser.who, email=email, email_verified=proven)
        assert browser.session().account == account


def test_an_address_that_the_token_lacks_is_asked_for(browse: Browse, provider: House) -> None:
    provider.claims_in_token = False
    try:
        browser = browse()
        assert browser.session().account.email == browser.who.email
        # A word about it is asked for, too.
        silent = Lies({"email": browser.who.email})
        assert data_of(browse(Somebody()).sign_in(silent))
        # Of somebody else it says nothing about this one.
        lies = Lies(userinfo={"sub": "another", "email": f"{uuid4().hex}@example.com", "email_verified": True})
        refused(browse().sign_in(lies), ErrorCode.PROVIDER_ADDRESS_UNPROVEN)
    finally:
        provider.claims_in_token = True


def test_twenty_first_sign_ins_of_one_person_open_one_account(browse: Browse) -> None:
    browser = browse()
    letters = [browser.come_back(browser.begin()) for _ in range(20)]

    tokens = [data_of(answer)["access_token"] for answer in at_once(partial(browser.finish, each) for each in letters)]

    owners = {data_of(browser.client.get("/api/v1/profile", headers=bearer(token)))["id"] for token in tokens}
    assert len(owners) == 1


def test_a_second_factor_is_still_asked_for(browse: Browse, guard: Guard, admin: httpx2.Client) -> None:
    guarded = guard()
    browser = browse()
    data_of(link(guarded.session, browser), 201)

    told = refused(browser.sign_in(), ErrorCode.SECOND_FACTOR_REQUIRED)
    data_of(guarded.finish(told["mfa_token"], guarded.phone.code()))


def test_who_was_shut_out_is_not_let_in(browse: Browse, admin: httpx2.Client) -> None:
    browser = browse()
    account = browser.session().account
    data_of(admin.patch(f"/api/v1/users/{account.id}", json={"is_active": False}))

    refused(browser.sign_in(), ErrorCode.INVALID_PROVIDER_ANSWER)

    (note,) = audited(admin, account, "provider.refused")
    assert note["after"] == {"provider": "acme", "reason": "shut_out"}
    data_of(admin.patch(f"/api/v1/users/{account.id}", json={"is_active": True}))
    assert browser.session().account == account


def test_who_was_deleted_comes_back_as_somebody_new(browse: Browse, admin: httpx2.Client) -> None:
    browser = browse()
    account = browser.session().account
    data_of(admin.delete(f"/api/v1/users/{account.id}"))

    again = browser.session().account

    assert again.email == account.email
    assert again.id != account.id


def test_a_log_in_says_in_the_audit_log_who_vouched(browse: Browse, admin: httpx2.Client) -> None:
    account = browse().session().account

    (entry,) = audited(admin, account, "login.accepted")
    assert entry["after"]["provider"] == "acme"
    assert audited(admin, account, "account.registered")[0]["after"] == {"provider": "acme"}
    assert len(audited(admin, account, "provider.linked")) == 1


# --- An account that was there


def test_an_account_that_was_there_is_linked_when_its_owner_says_so(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session = open_session()
    browser = browse(Somebody(email=session.account.email))
    refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    data_of(ask(session, "GET", LINKS))
    mail = mailbox.wait_for(session.account.email, about="Is it you")
    data_of(admin.patch(f"/api/v1/users/{session.account.id}", json={"is_verified": True}))

    data_of(confirm(browser, mail.code))

    assert browser.session().account.id == session.account.id
    open_session(session.account)
    mailbox.wait_for(session.account.email, about="was added")
    refused(confirm(browser, mail.code), ErrorCode.INVALID_ONE_TIME_TOKEN)
    assert len(audited(admin, session.account, "provider.link_offered")) == 1


def test_an_account_that_nobody_had_verified_goes_to_the_owner_of_the_address(
    browse: Browse, open_session: OpenSession, guard: Guard, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    """Whoever registers with somebody else's address, and waits for them, has nothing of it when they come."""
    stranger = guard()
    session, account = stranger.session, stranger.account
    data_of(link(session, browse()), 201)
    letter = {"name": "export", "permissions": [], "current_password": PASSWORD}
    key = data_of(ask(session, "POST", f"{SECURITY}/api-keys", letter), 201)["key"]
    mfa_token = stranger.begin_login()
    browser = browse(Somebody(email=account.email))
    refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)

    data_of(confirm(browser, mailbox.wait_for(account.email, about="Is it you").code))

    owner = browser.session()  # no second factor either
    assert owner.account.id == account.id
    told = data_of(ask(owner, "GET", SECURITY))
    assert (told["has_password"], told["totp"]["enabled"], len(told["providers"])) == (False, False, 1)
    refused(session.profile(), ErrorCode.INVALID_TOKEN)
    refused(session.refresh(), ErrorCode.INVALID_REFRESH_TOKEN)
    refused(session.client.get("/api/v1/profile", headers=bearer(key)), ErrorCode.INVALID_TOKEN)
    refused(
        session.client.post(LOGIN, json={"email": account.email, "password": PASSWORD}), ErrorCode.INVALID_CREDENTIALS
    )
    refused(stranger.finish(mfa_token, stranger.phone.code()), ErrorCode.INVALID_LOGIN_CHALLENGE)
    assert data_of(admin.get(f"/api/v1/users/{account.id}"))["is_verified"] is True


def test_no_code_that_verifies_the_address_lets_a_strangers_password_stand(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox
) -> None:
    """The owner of the address has two mails, and types in both codes."""
    session = open_session()
    email, client = session.account.email, session.client
    earlier = mailbox.wait_for(email, about="Confirm your address").code
    browser, code = offered(browse, session, mailbox)
    refused(client.post("/api/v1/auth/verify", json={"token": earlier}), ErrorCode.INVALID_ONE_TIME_TOKEN)
    data_of(client.post("/api/v1/auth/verify/request", json={"email": email}), 202)
    later = mailbox.wait_for(email, about="have an account").code  # good for a new password alone
    refused(client.post("/api/v1/auth/verify", json={"token": later}), ErrorCode.INVALID_ONE_TIME_TOKEN)

    data_of(confirm(browser, code))

    assert browser.session().account.id == session.account.id
    refused(client.post(LOGIN, json={"email": email, "password": PASSWORD}), ErrorCode.INVALID_CREDENTIALS)


def test_a_code_for_a_provider_that_is_none_any_more_changes_nothing(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, database_url: str
) -> None:
    session = open_session()
    browser, code = offered(browse, session, mailbox)
    its_own = col(OneTimeToken.user_id) == UUID(session.account.id), col(OneTimeToken.purpose) == "link_provider"
    gone = {"issuer": "https://gone.example.com", "subject": "1"}
    execute(database_url, update(OneTimeToken).where(*its_own).values(facts=gone))

    refused(confirm(browser, code), ErrorCode.INVALID_ONE_TIME_TOKEN)

    open_session(session.account)


def test_a_mail_that_is_not_sent_takes_no_place_of_one_that_was(
    database_kind: Kind, mailbox: Mailbox, providers: Town
) -> None:
    """Anybody can fill a mailbox up to its limit."""
    limits = {"MAIL__URL": mailbox.url, "MAIL__PER_MAILBOX": "2"}
    with own_place(database_kind, **limits, **providers.settings("acme")) as place, place.service() as service:
        browser = Browser(service.client, providers.house("acme"), Somebody(email=service.register()))
        refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
        code = mailbox.wait_for(str(browser.who.email), about="Is it you").code

        refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)

        data_of(confirm(browser, code))


def verified(session: Session, admin: httpx2.Client) -> Session:
    data_of(admin.patch(f"/api/v1/users/{session.account.id}", json={"is_verified": True}))
    return session


def offered(browse: Browse, session: Session, mailbox: Mailbox, number: int = 1) -> tuple[Browser, str]:
    """A mail that asks the owner of the account: the browser that brought it about, and the code."""
    browser = browse(Somebody(email=session.account.email))
    refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    return browser, mailbox.wait_for(session.account.email, about="Is it you", number=number).code


@pytest.mark.parametrize("what", ["password", "disabled", "another address", "a newer offer", "deleted"])
def test_an_offer_ends_with_what_it_was_made_for(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client, what: str
) -> None:
    session = verified(open_session(), admin)
    browser, code = offered(browse, session, mailbox)
    path = f"/api/v1/users/{session.account.id}"

    if what == "password":
        data_of(session.post("password/change", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}))
    elif what == "disabled":
        data_of(admin.patch(path, json={"is_active": False}))
        data_of(admin.patch(path, json={"is_active": True}))
    elif what == "deleted":
        data_of(admin.delete(path))
    elif what == "another address":
        email = f"{uuid4().hex}@example.com"
        data_of(session.post("email/change", {"new_email": email, "current_password": PASSWORD}), 202)
        data_of(session.post("email/confirm", {"token": mailbox.wait_for(email).code}))
    else:
        offered(browse, session, mailbox, number=2)

    refused(confirm(browser, code), ErrorCode.INVALID_ONE_TIME_TOKEN)


def test_of_fifty_confirmations_at_once_one_links(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client, database_url: str
) -> None:
    session = verified(open_session(), admin)
    browser, code = offered(browse, session, mailbox)

    answers = at_once([partial(confirm, browser, code)] * 50)

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 49
    assert count_links(database_url, session.account) == 1


def test_offers_do_not_fill_a_mailbox(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, database_url: str
) -> None:
    session = open_session()

    for _ in range(12):
        refused(browse(Somebody(email=session.account.email)).sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)

    made = (
        select(func.count())
        .select_from(OneTimeToken)
        .where(col(OneTimeToken.user_id) == UUID(session.account.id), col(OneTimeToken.purpose) == "link_provider")
    )
    assert execute(database_url, made)[0][0] == 10


# --- Linking one's own


def test_somebody_logged_in_links_with_the_password(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session, browser = open_session(), browse()
    refused(begin_link(session), ErrorCode.INVALID_CREDENTIALS)
    refused(begin_link(session, current_password="not-the-password-99"), ErrorCode.INVALID_CREDENTIALS)

    made = data_of(link(session, browser), 201)

    assert (made["provider"], made["last_used_at"]) == ("acme", None)
    assert data_of(ask(session, "GET", LINKS)) == [made]
    # Under an address of its own at the provider: who it is was said by the session.
    assert browser.who.email != session.account.email
    assert browser.session().account.id == session.account.id
    mailbox.wait_for(session.account.email, about="Acme was added")
    assert len(audited(admin, session.account, "provider.linked")) == 1


def test_an_account_has_one_link_to_a_provider_and_a_subject_one_account(
    browse: Browse, open_session: OpenSession, providers: Town
) -> None:
    session, browser = open_session(), browse()
    data_of(link(session, browser), 201)

    refused(begin_link(session, current_password=PASSWORD), ErrorCode.PROVIDER_LINKED)
    refused(link(open_session(), browser), ErrorCode.PROVIDER_LINKED)

    data_of(link(session, browse(house=providers.house("other"))), 201)


def test_of_two_links_begun_at_once_one_is_made(browse: Browse, open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    begun = [data_of(begin_link(session, current_password=PASSWORD)) for _ in range(10)]
    letters = [browse().come_back(each) for each in begun]

    answers = at_once(partial(finish_link, session, each) for each in letters)

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert count_links(database_url, session.account) == 1


def test_a_link_is_finished_by_the_session_that_began_it(browse: Browse, open_session: OpenSession) -> None:
    session, browser = open_session(), browse()
    begun = data_of(begin_link(session, current_password=PASSWORD))
    letter = browser.come_back(begun)

    refused(finish_link(open_session(session.account), letter), ErrorCode.INVALID_PROVIDER_ANSWER)
    refused(finish_link(open_session(), letter), ErrorCode.INVALID_PROVIDER_ANSWER)
    refused(browser.finish(letter), ErrorCode.INVALID_PROVIDER_ANSWER)  # nor is it a log-in

    data_of(finish_link(session, letter), 201)


def test_a_log_in_is_no_link(browse: Browse, open_session: OpenSession) -> None:
    session, browser = open_session(), browse()
    letter = browser.come_back(browser.begin())

    refused(finish_link(session, letter), ErrorCode.INVALID_PROVIDER_ANSWER)
    data_of(browser.finish(letter))


def test_a_session_that_ended_meanwhile_links_nothing(
    browse: Browse, open_session: OpenSession, database_url: str
) -> None:
    session = open_session()
    letter = browse().come_back(data_of(begin_link(session, current_password=PASSWORD)))
    data_of(session.log_out())

    refused(finish_link(session, letter), ErrorCode.INVALID_TOKEN)

    assert count_links(database_url, session.account) == 0


def test_who_has_no_password_logged_in_a_moment_ago(browse: Browse, providers: Town, database_url: str) -> None:
    session, other = browse().session(), browse(house=providers.house("other"))
    refused(begin_link(session, "other", current_password=PASSWORD), ErrorCode.INVALID_CREDENTIALS)
    begun = data_of(begin_link(session, "other"))

    log_in_long_ago(database_url, session.account)
    told = refused(begin_link(session, "other"), ErrorCode.STEP_UP_REQUIRED)
    assert told == {"max_age_seconds": 900}

    data_of(finish_link(session, other.come_back(begun), "other"), 201)
    assert other.session().account.id == session.account.id


def test_who_has_a_second_factor_proves_it_to_link_and_to_unlink(
    browse: Browse, guard: Guard, database_url: str
) -> None:
    guarded, browser = guard(), browse()
    begun = data_of(begin_link(guarded.session, current_password=PASSWORD))
    letter = browser.come_back(begun)
    made = data_of(link(guarded.session, browse()), 201)
    make_old(database_url, guarded.account, 901)

    refused(begin_link(guarded.session, current_password=PASSWORD), ErrorCode.STEP_UP_REQUIRED)
    refused(finish_link(guarded.session, letter), ErrorCode.STEP_UP_REQUIRED)
    refused(guarded.ask("DELETE", f"{LINKS}/{made['id']}"), ErrorCode.STEP_UP_REQUIRED)

    data_of(guarded.step_up(guarded.session, guarded.phone.code()))
    data_of(guarded.ask("DELETE", f"{LINKS}/{made['id']}"))


# --- Ways in that end, and one that stays


def test_a_link_is_removed_and_signs_nobody_in(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session, browser = open_session(), browse()
    made = data_of(link(session, browser), 201)
    refused(ask(open_session(), "DELETE", f"{LINKS}/{made['id']}"), ErrorCode.PROVIDER_LINK_NOT_FOUND)

    data_of(ask(session, "DELETE", f"{LINKS}/{made['id']}"))

    refused(ask(session, "DELETE", f"{LINKS}/{made['id']}"), ErrorCode.PROVIDER_LINK_NOT_FOUND)
    assert browser.session().account.id != session.account.id
    mailbox.wait_for(session.account.email, about="Acme was removed")
    assert len(audited(admin, session.account, "provider.unlinked")) == 1


def test_an_old_session_removes_no_link(browse: Browse, open_session: OpenSession, database_url: str) -> None:
    session = open_session()
    made = data_of(link(session, browse()), 201)
    log_in_long_ago(database_url, session.account)

    refused(ask(session, "DELETE", f"{LINKS}/{made['id']}"), ErrorCode.STEP_UP_REQUIRED)

    assert count_links(database_url, session.account) == 1


def test_the_last_way_in_stays(browse: Browse, providers: Town, mailbox: Mailbox, database_url: str) -> None:
    browser = browse()
    session = browser.session()
    (made,) = data_of(ask(session, "GET", LINKS))
    refused(ask(session, "DELETE", f"{LINKS}/{made['id']}"), ErrorCode.LAST_WAY_IN)

    # A link to whom the settings name no more lets nobody in.
    other = data_of(link(session, browse(house=providers.house("other")), current_password=None), 201)
    gone = (
        update(ProviderLink).where(col(ProviderLink.id) == UUID(other["id"])).values(issuer="https://gone.example.com")
    )
    execute(database_url, gone)
    assert [each["provider"] for each in data_of(ask(session, "GET", LINKS))] == ["acme", None]
    refused(ask(session, "DELETE", f"{LINKS}/{made['id']}"), ErrorCode.LAST_WAY_IN)

    data_of(session.client.post("/api/v1/auth/password/forgot", json={"email": session.account.email}), 202)
    code = mailbox.wait_for(session.account.email, about="new password").code
    letter = {"token": code, "new_password": NEW_PASSWORD}
    data_of(session.client.post("/api/v1/auth/password/reset", json=letter))
    # Whoever was in the account before may have made one of the links: they are asked for anew.
    assert count_links(database_url, session.account) == 0
    refused(browser.sign_in(), ErrorCode.PROVIDER_LINK_UNCONFIRMED)
    data_of(confirm(browser, mailbox.wait_for(session.account.email, about="Is it you").code))
    session = browser.session()
    (made,) = data_of(ask(session, "GET", LINKS))
    data_of(ask(session, "DELETE", f"{LINKS}/{made['id']}"))


def test_a_passkey_is_a_way_in_and_the_last_one_stays(
    browse: Browse, open_session: OpenSession, database_url: str
) -> None:
    session, browser, authenticator = open_session(), browse(), Authenticator()
    options = data_of(ask(session, "POST", f"{SECURITY}/passkey-options", {"current_password": PASSWORD}))
    letter = {"name": "laptop", "credential": authenticator.create(options)}
    passkey = data_of(ask(session, "POST", f"{SECURITY}/passkeys", letter), 201)
    made = data_of(link(session, browser), 201)
    forget_password(database_url, session.account)

    data_of(ask(session, "DELETE", f"{LINKS}/{made['id']}"))
    refused(ask(session, "DELETE", f"{SECURITY}/passkeys/{passkey['id']}"), ErrorCode.LAST_WAY_IN)

    assert len(data_of(ask(session, "GET", f"{SECURITY}/passkeys"))) == 1


def forget_password(database_url: str, account: Account) -> None:
    """As when the owner of an address took an account over."""
    execute(database_url, delete(Credential).where(col(Credential.user_id) == UUID(account.id)))


def test_another_password_by_mail_ends_links_and_a_change_of_it_does_not(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client, database_url: str
) -> None:
    session, browser = verified(open_session(), admin), browse()
    data_of(link(session, browser), 201)
    data_of(session.post("password/change", {"current_password": PASSWORD, "new_password": NEW_PASSWORD}))
    assert browser.session().account.id == session.account.id

    data_of(session.client.post("/api/v1/auth/password/forgot", json={"email": session.account.email}), 202)
    code = mailbox.wait_for(session.account.email, about="new password").code
    data_of(session.post("password/reset", {"token": code, "new_password": PASSWORD}))

    assert count_links(database_url, session.account) == 0
    assert len(audited(admin, session.account, "provider.unlinked")) == 1


@pytest.mark.parametrize("way", ["verify", "reset"])
def test_who_proves_an_address_first_ends_the_links_of_strangers(
    browse: Browse, open_session: OpenSession, mailbox: Mailbox, database_url: str, way: str
) -> None:
    session = open_session()
    data_of(link(session, browse()), 201)

    if way == "verify":
        code = mailbox.wait_for(session.account.email, about="Confirm your address").code
        data_of(session.post("verify", {"token": code}))
    else:
        data_of(session.client.post("/api/v1/auth/password/forgot", json={"email": session.account.email}), 202)
        code = mailbox.wait_for(session.account.email, about="new password").code
        data_of(session.post("password/reset", {"token": code, "new_password": NEW_PASSWORD}))

    assert count_links(database_url, session.account) == 0


def test_an_administrator_who_signs_in_with_a_provider_is_able_to(
    database_kind: Kind, mailbox: Mailbox, providers: Town
) -> None:
    """The last one who can log in stays, by whichever way."""
    with own_place(database_kind, MAIL__URL=mailbox.url, **providers.settings("acme")) as place:
        with place.service() as service:
            browser = Browser(service.client, providers.house("acme"))
            account = browser.session().account
            root = service.log_in()["access_token"]
            data_of(
                service.client.put(
                    f"/api/v1/users/{account.id}/roles", json={"roles": ["admin", "user"]}, headers=bearer(root)
                )
            )
            me = data_of(service.get("profile", token=root))["id"]
            mine = browser.session().access_token
            data_of(service.client.patch(f"/api/v1/users/{me}", json={"is_active": False}, headers=bearer(mine)))
        assert place.run("deactivate", "--email", account.email)[0] == 1
        # Where the provider is none any more, nobody is left to be kept.
        assert place.run("deactivate", "--email", account.email, AUTH__PROVIDERS="[]")[0] == 0

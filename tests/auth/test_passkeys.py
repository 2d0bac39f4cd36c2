"""Passkeys: registered, used instead of a password or as the second factor, and refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col

from src.auth.models import Passkey, PasskeyChallenge
from src.shared.errors import ErrorCode
from tests.auth.conftest import (
    LOGIN,
    SECURITY,
    Guard,
    OpenSession,
    Session,
    ask,
    begin_totp,
    confirm_totp,
)
from tests.auth.test_second_factors import audited, make_old
from tests.conftest import PASSWORD
from tests.support.answers import at_once, data_of, refused, refused_fields
from tests.support.authenticator import Authenticator, Json, decoded, encoded
from tests.support.mail import Mailbox
from tests.support.phone import Phone
from tests.support.postgres import Kind
from tests.support.service import own_place
from tests.support.tables import execute

PASSKEYS = f"{SECURITY}/passkeys"
STEP_UP = "/api/v1/auth/step-up/passkey"


def begin(session: Session, password: str = PASSWORD) -> httpx2.Response:
    return ask(session, "POST", f"{SECURITY}/passkey-options", {"current_password": password})


def add(session: Session, credential: Json, name: str = "laptop") -> httpx2.Response:
    return ask(session, "POST", PASSKEYS, {"name": name, "credential": credential})


@dataclass
class Keeper:
    """Somebody with a passkey, and the session in which they set it up."""

    session: Session
    authenticator: Authenticator
    passkey_id: str
    recovery_codes: list[str]

    def options(self, **letter: object) -> Json:
        told: Json = data_of(self.session.client.post(f"{LOGIN}/passkey/options", json=letter))
        return told

    def finish(self, credential: Json, **more: object) -> httpx2.Response:
        return self.session.client.post(f"{LOGIN}/passkey", json={"credential": credential, **more})

    def log_in(self, **more: object) -> httpx2.Response:
        return self.finish(self.authenticator.get(self.options(**more)), **more)

    def begin_login(self) -> dict[str, Any]:  # Any: JSON
        """By the password: what its refusal tells."""
        letter = {"email": self.session.account.email, "password": PASSWORD}
        told: dict[str, Any] = refused(self.session.client.post(LOGIN, json=letter), ErrorCode.SECOND_FACTOR_REQUIRED)
        return told


Keep = Callable[..., Keeper]


@pytest.fixture
def keep(open_session: OpenSession) -> Keep:
    """Give somebody, new or not, a passkey."""

    def set_up(session: Session | None = None, **how: Any) -> Keeper:  # Any: as the authenticator has it
        session, authenticator = session or open_session(), Authenticator(**how)
        made = data_of(add(session, authenticator.create(data_of(begin(session)))), 201)
        return Keeper(session, authenticator, made["id"], made["recovery_codes"])

    return set_up


def the_session_of(keeper: Keeper, answer: httpx2.Response) -> Session:
    letter = data_of(answer)
    return replace(keeper.session, access_token=letter["access_token"], refresh_token=letter["refresh_token"])


# --- Setting one up


def test_a_passkey_is_registered_with_the_password_and_named(
    open_session: OpenSession, mailbox: Mailbox, admin: httpx2.Client
) -> None:
    session = open_session()
    refused(begin(session, "not-the-password-99"), ErrorCode.INVALID_CREDENTIALS)
    options = data_of(begin(session))
    assert options["rp"] == {"name": "Undercroft", "id": "localhost"}
    assert decoded(options["user"]["id"]) == UUID(session.account.id).bytes
    assert (options["attestation"], options["excludeCredentials"]) == ("none", [])

    made = data_of(add(session, Authenticator().create(options)), 201)

    assert made.keys() == {"id", "name", "is_synced", "created_at", "last_used_at", "recovery_codes"}
    assert (made["name"], made["last_used_at"], len(made["recovery_codes"])) == ("laptop", None, 10)
    (listed,) = data_of(ask(session, "GET", PASSKEYS))
    assert listed == {name: value for name, value in made.items() if name != "recovery_codes"}
    assert data_of(ask(session, "GET", SECURITY))["passkeys"] == [listed]
    mailbox.wait_for(session.account.email, about="second factor was added")
    assert len(audited(admin, session.account, "passkey.added")) == 1


def test_an_account_has_several_and_each_is_renamed_and_removed(keep: Keep, admin: httpx2.Client) -> None:
    keeper = keep()
    session, other = keeper.session, Authenticator()
    options = data_of(begin(session))
    assert [each["id"] for each in options["excludeCredentials"]] == [encoded(keeper.authenticator.credential_id)]
    second = data_of(add(session, other.create(options), "phone"), 201)
    assert second["recovery_codes"] == []

    renamed = data_of(ask(session, "PATCH", f"{PASSKEYS}/{second['id']}", {"name": "old phone"}))
    assert renamed["name"] == "old phone"
    data_of(ask(session, "DELETE", f"{PASSKEYS}/{keeper.passkey_id}"))

    assert [each["id"] for each in data_of(ask(session, "GET", PASSKEYS))] == [second["id"]]
    refused(keeper.log_in(), ErrorCode.INVALID_PASSKEY)
    keeper.authenticator = other
    data_of(keeper.log_in())
    assert len(audited(admin, session.account, "passkey.removed")) == 1


def test_with_the_last_one_the_password_is_all_again(keep: Keep) -> None:
    keeper = keep()

    data_of(ask(keeper.session, "DELETE", f"{PASSKEYS}/{keeper.passkey_id}"))

    data_of(keeper.session.client.post(LOGIN, json={"email": keeper.session.account.email, "password": PASSWORD}))
    security = data_of(ask(keeper.session, "GET", SECURITY))
    assert (security["passkeys"], security["recovery_codes_left"]) == ([], 0)
    refused(ask(keeper.session, "POST", f"{SECURITY}/recovery-codes"), ErrorCode.STEP_UP_REQUIRED)


def test_one_that_is_known_is_not_registered_twice(keep: Keep, open_session: OpenSession) -> None:
    keeper, other = keep(), open_session()
    again = keeper.authenticator.create(data_of(begin(other)))

    refused(add(other, again), ErrorCode.PASSKEY_KNOWN)


def test_somebody_elses_passkey_does_not_exist(keep: Keep, guard: Guard) -> None:
    keeper, stranger = keep(), guard()

    for method, body in (("PATCH", {"name": "mine"}), ("DELETE", None)):
        refused(stranger.ask(method, f"{PASSKEYS}/{keeper.passkey_id}", body), ErrorCode.PASSKEY_NOT_FOUND)


def test_a_new_one_takes_a_factor_that_was_proven_a_moment_ago(keep: Keep, database_url: str) -> None:
    keeper = keep()
    make_old(database_url, keeper.session.account, seconds=901)

    refused(begin(keeper.session), ErrorCode.STEP_UP_REQUIRED)
    refused(ask(keeper.session, "DELETE", f"{PASSKEYS}/{keeper.passkey_id}"), ErrorCode.STEP_UP_REQUIRED)


def test_a_set_up_that_was_begun_before_the_first_factor_is_no_way_around_it(
    open_session: OpenSession, guard: Guard, database_url: str
) -> None:
    """A stolen session and a password, once, are what a second factor is there to withstand."""
    owner = open_session()
    thief = open_session(owner.account)
    authenticator, phone = Authenticator(), Phone(data_of(begin_totp(thief), 201)["secret"], database_url)
    asked = data_of(begin(thief))
    data_of(add(owner, Authenticator().create(data_of(begin(owner)))), 201)

    refused(add(thief, authenticator.create(asked)), ErrorCode.STEP_UP_REQUIRED)
    refused(confirm_totp(thief, phone.code()), ErrorCode.STEP_UP_REQUIRED)


def test_an_account_has_twenty_and_no_more(keep: Keep) -> None:
    session = keep().session
    asked = [data_of(begin(session)) for _ in range(2)]
    for _ in range(18):
        data_of(add(session, Authenticator().create(data_of(begin(session)))), 201)
    data_of(add(session, Authenticator().create(asked[0])), 201)

    refused(add(session, Authenticator().create(asked[1])), ErrorCode.TOO_MANY_PASSKEYS)
    assert refused(begin(session), ErrorCode.TOO_MANY_PASSKEYS) == {"limit": 20}


def test_an_id_has_the_length_that_the_standard_allows(open_session: OpenSession) -> None:
    session = open_session()
    long = Authenticator(credential_id=b"x" * 1024)

    refused(add(session, long.create(data_of(begin(session)))), ErrorCode.INVALID_PASSKEY)

    data_of(add(session, Authenticator(credential_id=b"x" * 1000 + uuid4().bytes).create(data_of(begin(session)))), 201)


def test_who_tries_without_end_does_not_write_without_end(database_kind: Kind) -> None:
    with own_place(database_kind, AUTH__REFUSALS_NOTED="3") as place, place.service() as service:
        letter = service.log_in()
        for _ in range(5):
            options = data_of(service.client.post(f"{LOGIN}/passkey/options", json={}))
            answer = service.client.post(f"{LOGIN}/passkey", json={"credential": Authenticator().get(options)})
            refused(answer, ErrorCode.INVALID_PASSKEY)

        noted = data_of(service.get("audit", token=letter["access_token"], action="passkey.refused"))
        assert noted["total"] == 3


# --- Logging in


def test_a_passkey_logs_in_without_a_password_and_is_two_factors(keep: Keep, admin: httpx2.Client) -> None:
    keeper = keep()
    options = keeper.options()
    assert (options["rpId"], options["allowCredentials"], options["userVerification"]) == ("localhost", [], "required")

    session = the_session_of(keeper, keeper.finish(keeper.authenticator.get(options)))

    data_of(session.profile())
    data_of(ask(session, "POST", f"{SECURITY}/recovery-codes"))
    assert data_of(ask(session, "GET", PASSKEYS))[0]["last_used_at"] is not None
    accepted = audited(admin, keeper.session.account, "login.accepted")
    assert accepted[0]["after"]["second_factor"] == "passkey"


def test_a_passkey_is_the_second_step_behind_a_password(keep: Keep) -> None:
    keeper = keep(verifies=False)
    told = keeper.begin_login()
    assert told["methods"] == ["passkey", "recovery_code"]
    options = keeper.options(mfa_token=told["mfa_token"])
    assert [each["id"] for each in options["allowCredentials"]] == [encoded(keeper.authenticator.credential_id)]

    answer = keeper.finish(keeper.authenticator.get(options), mfa_token=told["mfa_token"])

    data_of(the_session_of(keeper, answer).profile())
    refused(keeper.log_in(), ErrorCode.INVALID_PASSKEY)  # alone it has to know who is holding it


def test_a_passkey_proves_a_session_again(keep: Keep, database_url: str) -> None:
    keeper = keep()
    make_old(database_url, keeper.session.account, seconds=901)
    refused(ask(keeper.session, "POST", f"{SECURITY}/recovery-codes"), ErrorCode.STEP_UP_REQUIRED)

    credential = keeper.authenticator.get(data_of(ask(keeper.session, "POST", f"{STEP_UP}/options")))
    data_of(ask(keeper.session, "POST", STEP_UP, {"credential": credential}))

    data_of(ask(keeper.session, "POST", f"{SECURITY}/recovery-codes"))


# --- What is refused


def reasons(admin: httpx2.Client, keeper: Keeper) -> list[str]:
    return [str(entry["after"]["reason"]) for entry in audited(admin, keeper.session.account, "passkey.refused")]


def test_an_assertion_is_good_once(keep: Keep, admin: httpx2.Client) -> None:
    keeper = keep(counts=False)
    used = keeper.authenticator.get(keeper.options())
    data_of(keeper.finish(used))

    refused(keeper.finish(used), ErrorCode.INVALID_PASSKEY)

    noted = data_of(admin.get("/api/v1/audit", params={"action": "passkey.refused", "target_type": "passkey"}))
    assert noted["items"][0]["after"] == {"reason": "replayed"}


def test_a_counter_that_does_not_go_up_is_a_second_authenticator(keep: Keep, admin: httpx2.Client) -> None:
    keeper = keep()
    clone = replace(keeper.authenticator)
    data_of(keeper.log_in())
    data_of(keeper.log_in())

    keeper.authenticator = clone
    refused(keeper.log_in(), ErrorCode.INVALID_PASSKEY)

    assert reasons(admin, keeper) == ["cloned"]


def tampered(keeper: Keeper, name: str, change: Callable[[bytes], bytes]) -> Json:
    credential = keeper.authenticator.get(keeper.options())
    raw = decoded(credential["response"][name])
    return credential | {"response": credential["response"] | {name: encoded(change(raw))}}


@pytest.mark.parametrize(
    "forge",
    [
        lambda keeper: tampered(keeper, "signature", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])),
        lambda keeper: tampered(keeper, "signature", lambda _: b""),
        lambda keeper: tampered(keeper, "authenticatorData", lambda raw: raw[:32] + b"\x05" + raw[33:36] + b"\xff"),
        lambda keeper: tampered(keeper, "authenticatorData", lambda raw: raw[:10]),
        lambda keeper: tampered(keeper, "authenticatorData", lambda _: b"\xff" * 1000),
        lambda keeper: tampered(keeper, "clientDataJSON", lambda raw: raw.replace(b"webauthn.get", b"webauthn.create")),
        lambda keeper: tampered(keeper, "clientDataJSON", lambda _: b"{"),
        lambda keeper: tampered(keeper, "userHandle", lambda _: uuid4().bytes),
        lambda keeper: tampered(keeper, "userHandle", lambda _: b"short"),
        lambda keeper: replace(keeper.authenticator, origin="https://evil.example").get(keeper.options()),
        lambda keeper: replace(keeper.authenticator, origin="http://localhost").get(keeper.options()),
        lambda keeper: replace(keeper.authenticator, domain="evil.example").get(keeper.options()),
        lambda keeper: replace(keeper.authenticator, verifies=False).get(keeper.options()),
        lambda keeper: replace(keeper.authenticator, key=Authenticator().key).get(keeper.options()),
        lambda keeper: replace(keeper.authenticator, credential_id=b"unknown").get(keeper.options()),
        lambda keeper: keeper.authenticator.get({"challenge": encoded(b"x" * 32)}),
        lambda keeper: keeper.authenticator.get(data_of(ask(keeper.session, "POST", f"{STEP_UP}/options"))),
        lambda keeper: keeper.authenticator.get(keeper.options(mfa_token=keeper.begin_login()["mfa_token"])),
        lambda keeper: Authenticator().create(data_of(begin(keeper.session))),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_opens_nothing(keep: Keep, forge: Callable[[Keeper], Json]) -> None:
    keeper = keep()

    refused(keeper.finish(forge(keeper)), ErrorCode.INVALID_PASSKEY)

    data_of(keeper.log_in())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda credential: credential | {"id": "not base64url!"},
        lambda credential: credential | {"type": "password"},
        lambda credential: credential | {"response": {}},
        lambda credential: credential | {"response": credential["response"] | {"clientDataJSON": "A" * 65_537}},
    ],
)
def test_what_no_browser_says_is_malformed(keep: Keep, spoil: Callable[[Json], Json]) -> None:
    keeper = keep()

    refused_fields(keeper.finish(spoil(keeper.authenticator.get(keeper.options()))))


def test_a_registration_is_for_the_session_that_asked(keep: Keep, open_session: OpenSession) -> None:
    mine, theirs = open_session(), open_session()
    credential = Authenticator().create(data_of(begin(mine)))

    refused(add(theirs, credential), ErrorCode.INVALID_PASSKEY)
    refused(add(open_session(mine.account), credential), ErrorCode.INVALID_PASSKEY)

    data_of(add(mine, credential), 201)
    refused(add(mine, credential), ErrorCode.INVALID_PASSKEY)


def test_somebody_elses_passkey_is_no_second_factor(keep: Keep) -> None:
    mine, theirs = keep(), keep()
    token = mine.begin_login()["mfa_token"]

    credential = theirs.authenticator.get(mine.options(mfa_token=token))

    refused(mine.finish(credential, mfa_token=token), ErrorCode.INVALID_PASSKEY)
    data_of(mine.log_in(mfa_token=token))


def test_a_challenge_expires(keep: Keep, database_url: str) -> None:
    keeper = keep()
    credential = keeper.authenticator.get(keeper.options())
    execute(database_url, update(PasskeyChallenge).values(expires_at=datetime.now(UTC)))

    refused(keeper.finish(credential), ErrorCode.INVALID_PASSKEY)


@pytest.mark.parametrize("way", ["disabled", "deleted", "reset"])
def test_who_may_not_log_in_does_not_by_a_passkey(
    keep: Keep, admin: httpx2.Client, database_url: str, way: str
) -> None:
    keeper = keep()
    user = f"/api/v1/users/{keeper.session.account.id}"
    match way:
        case "disabled":
            data_of(admin.patch(user, json={"is_active": False}))
        case "deleted":
            data_of(admin.delete(user))
        case _:
            data_of(admin.delete(f"{user}/second-factors"))

    refused(keeper.log_in(), ErrorCode.INVALID_PASSKEY)

    left = select(func.count()).where(col(Passkey.user_id) == UUID(keeper.session.account.id))
    assert execute(database_url, left)[0][0] == (way == "disabled")


def test_of_fifty_who_use_one_assertion_one_gets_in(keep: Keep) -> None:
    keeper = keep(counts=False)
    credential = keeper.authenticator.get(keeper.options())

    answers = at_once([partial(keeper.finish, credential)] * 50)

    assert sum(answer.is_success for answer in answers) == 1
    assert {answer.json()["code"] for answer in answers if not answer.is_success} == {ErrorCode.INVALID_PASSKEY}


def test_a_service_without_a_domain_knows_no_passkeys(database_kind: Kind) -> None:
    production = {
        "APP__ENV": "production",
        "HTTP__ALLOWED_HOSTS": "127.0.0.1",
        "AUTH__SECRET": uuid4().hex + "Aa+" + uuid4().hex,
        "HTTP__DRAIN_SECONDS": "0",
    }
    with own_place(database_kind, **production) as place, place.service() as service:
        refused(service.client.post(f"{LOGIN}/passkey/options", json={}), ErrorCode.PASSKEYS_OFF)

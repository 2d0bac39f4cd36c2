"""What a log must survive, and what it must not give away."""

import json
import logging
import re
from collections import UserDict
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from pydantic import BaseModel, SecretStr, ValidationError

from src.shared import logging as log
from src.shared.logging.capture import plain
from src.shared.logging.lines import Event, json_line, text_line
from src.shared.logging.redaction import redact_text
from tests.support.hostile import hostile_texts
from tests.support.log import Log, fail, log_access, log_in_memory

CANARY = "canary-7f3a9c"
LINE_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def out() -> Iterator[Log]:
    with log_in_memory() as log_of_the_test:
        yield log_of_the_test


def test_hostile_text_in_any_place_is_one_line_of_json(out: Log) -> None:
    out.set_up()
    values = list(hostile_texts())
    for value in values:
        token = log.enter_request(log.RequestContext(value, user_id=value))
        try:
            fail(RuntimeError(value))
        except RuntimeError:
            logger.bind(value=value, nested={value: [value]}, **{value: 1}).exception(value)
        logging.getLogger("library").error(value)
        log_access(method=value, path=value, route=value, client=value, request_id=value, user_id=value)
        log.leave_request(token)
    log.shut_down_logging()

    assert not LINE_BREAKS.search(out.written().replace("\n", ""))
    lines = out.lines()
    assert len(lines) == 3 * len(values)
    assert {line["level"] for line in lines} == {"ERROR", "INFO"}
    assert not [line for line in lines if "could not be rendered" in line["message"]]


def test_hostile_text_for_people_is_one_line_too(out: Log) -> None:
    out.set_up(form="text")
    values = list(hostile_texts())
    for value in values:
        logger.bind(value=value, **{value: value}).info(value)
        log_access(method=value, path=value, route=value, client=value, request_id=value, user_id=value)

    *lines, end = out.text().split("\n")
    assert end == ""
    assert len(lines) == 2 * len(values)
    assert all(re.match(r"\d{4}-\S+Z INFO     ", line) for line in lines)
    assert not LINE_BREAKS.search("".join(lines))


@given(st.text(), st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists))
def test_any_text_and_value_render(message: str, value: object) -> None:
    event = Event(0, "INFO", message, "x", fields={"value": plain(value)})

    line = json_line(event)
    assert line.count(b"\n") == 1
    assert json.loads(line, parse_constant=pytest.fail)["level"] == "INFO"
    assert text_line(event).count(b"\n") == 1


def test_markup_and_format_strings_are_only_text(out: Log) -> None:
    logger.bind(value="{message}").info("<red>{value} {0} {record}</red> %s")

    line = out.line()
    assert line["message"] == "<red>{value} {0} {record}</red> %s"
    assert line["value"] == "{message}"


def test_ordinary_text_comes_through_whole(out: Log) -> None:
    logger.info("Ünïcödé \u65e5\u672c 😀 \\ \" ' \t end")

    assert out.line()["message"] == "Ünïcödé \u65e5\u672c 😀 \\ \" ' \t end"


def test_a_line_that_is_too_long_keeps_its_head_and_the_end_of_its_traceback(out: Log) -> None:
    def sink_into(depth: int) -> None:
        if depth:
            sink_into(depth - 1)
        raise RuntimeError("at the bottom" + "!" * 9000)

    try:
        sink_into(200)
    except RuntimeError:
        logger.bind(order_id=7, huge=["x" * 500] * 100).exception("m" * 9000)

    line = out.line()
    assert line["truncated"] is True
    assert line["message"].startswith("mmm")
    assert line["exception"]["traceback"].startswith("Traceback")
    assert line["exception"]["traceback"].endswith("!!!")
    assert line["order_id"] == 7


def test_more_fields_than_a_line_holds_are_cut_and_said_so(out: Log) -> None:
    logger.bind(**{f"f{number}": number for number in range(200)}).info("many")

    line = out.line()
    assert line["truncated"] is True
    assert line["f0"] == 0
    assert "f199" not in line


class Spiteful:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class SpitefulError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Talkative:
    def __repr__(self) -> str:
        logger.info("from within")
        return "talkative"


class Lying(int):
    def __ge__(self, other: object) -> bool:
        raise RuntimeError("no")

    __lt__ = __le__ = __eq__ = __ge__
    __hash__ = None  # type: ignore[assignment]  # as spiteful as it gets


class Colour(StrEnum):
    RED = "red"


def test_objects_that_cannot_be_shown_hurt_nobody(out: Log) -> None:
    logger.bind(spite=Spiteful(), listed=[Spiteful()], keyed={Spiteful(): 1}, fine=1).info("still here")
    try:
        fail(SpitefulError())
    except SpitefulError:
        logger.exception("unsayable")

    bound, error = out.lines()
    assert bound["spite"] == "<unserialisable>"
    assert bound["fine"] == 1
    assert error["exception"]["message"] == "<unserialisable>"
    assert error["exception"]["type"].endswith("SpitefulError")


def test_an_object_that_logs_while_it_is_logged_does_not_block(out: Log) -> None:
    logger.bind(value=Talkative()).info("outer")

    inner, outer = out.lines()
    assert (inner["message"], outer["value"]) == ("from within", "talkative")


def test_values_are_taken_down_as_they_were(out: Log) -> None:
    basket = {"items": [1]}
    logger.bind(basket=basket).info("placed")
    basket["items"].append(2)

    assert out.line()["basket"] == {"items": [1]}


def test_all_kinds_of_values_have_a_form_in_json() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert plain(Lying(3)) == 3
    assert plain(Colour.RED) == "red"
    assert plain(2**64) == hex(2**64)
    assert plain(float("nan")) == "nan"
    assert plain(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00+00:00"
    assert plain({1, 2}) == [1, 2]
    assert plain(UserDict(a=(1, b"x"))) == {"a": [1, "b'x'"]}
    assert plain(SecretStr(CANARY)) == "[redacted]"
    assert plain([0] * 100) == [*[0] * 64, "… 36 more"]
    assert plain(endless) == [[[[[["…"]]]]]]
    assert len(json.dumps(plain([[["x" * 100] * 100] * 100] * 100))) < 100_000
    assert len(str(plain(Path("/" + "x" * 9000)))) <= 1024


@pytest.mark.parametrize(
    "name",
    [
        "password", "Passwd", "new_password", "client_secret", "access_token", "refreshToken", "Authorization",
        "cookie", "Set-Cookie", "api_key", "x-api-key", "apiKey", "private_key", "otp", "totp", "otp_code", "pin",
        "db.pwd", "jwt", "passphrase", "credentials", "recovery_code",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_field_named_like_a_secret_is_redacted(out: Log, name: str, form: str) -> None:
    out.set_up(form=form)
    logger.bind(**{name: CANARY}, nested={"deep": [{name: [CANARY]}]}, number={name: 424242}).info("x")
    logging.getLogger("library").warning("x", extra={name: CANARY})

    assert CANARY not in out.text()
    assert "424242" not in out.text()
    assert out.text().count("[redacted]") == 4


def test_names_that_only_sound_like_secrets_are_shown(out: Log) -> None:
    logger.bind(shipping="dhl", laptop="x1", compass="n", opinion=3, author="b", has_password=True, token=None).info(
        "x"
    )

    line = out.line()
    assert (line["shipping"], line["laptop"], line["compass"], line["opinion"]) == ("dhl", "x1", "n", 3)
    assert (line["author"], line["has_password"], line["token"]) == ("b", True, None)


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"authorization=Basic {CANARY} {CANARY}",
        f"BASIC {CANARY.replace('-', '')}==",
        f"eyJhbGciOiJIUzI1NiJ9.{CANARY}.{CANARY}",
        f"callback%20eyJhbGciOiJIUzI1NiJ9.{CANARY}.{CANARY}.x.{CANARY}",
        f"password={CANARY}",
        f"PASSWORD = {CANARY}",
        f"?a=1&refresh_token={CANARY}&b=2",
        f"{{'password': '{CANARY} with \\' words'}}",
        f'{{"password": "{CANARY} with words"}}',
        f'{{\\"password\\": \\"{CANARY}\\"}}',
        f"LoginRequest(email='a@b.c', password='{CANARY}')",
        f"[(b'authorization', b'Basic {CANARY}'), (b'x', b'y')]",
        f"('cookie', 'sid={CANARY}; theme=dark')",
        f"Set-Cookie: sid={CANARY}; theme={CANARY}",
        f"postgresql://app:{CANARY}@db:5432/shop",
        f"redis://:{CANARY}@cache",
        f"https://{CANARY}@sentry.example.com/1",
        f"postgresql://app:p@{CANARY}@db/shop",
        f"input_value={{'a': '{CANARY}'}}, input_type=dict]",
        f"-----BEGIN RSA PRIVATE KEY-----\nMII{CANARY.replace('-', '')}\n-----END RSA PRIVATE KEY-----",
        f"otp={CANARY}",
        f"İ password={CANARY}",
    ],
)
def test_a_secret_in_a_text_is_redacted_wherever_the_text_is(out: Log, text: str) -> None:
    out.set_up()
    assert CANARY.replace("-", "") not in redact_text(text).replace("-", "")
    try:
        fail(RuntimeError(text))
    except RuntimeError as error:
        logger.bind(value=text, nested=[{"x": text}], error=error).exception(text)
    logging.getLogger("library").warning("%s", text)
    log_access(path=text)

    written = out.text()
    for part in (CANARY, CANARY.replace("-", "")):
        # The traceback shows source lines, and these are the test's own.
        assert part not in written


def test_text_around_a_secret_stays(out: Log) -> None:
    logger.info("connect postgresql://app:hunter2@db:5432/shop failed, password=hunter2 for user ann")

    assert out.line()["message"] == (
        "connect postgresql://[redacted]@db:5432/shop failed, password=[redacted] for user ann"
    )


@pytest.mark.parametrize(
    "text", ["Order 7: paid, shipped", "GET /orders?page=2", "https://example.com/a@b", "keyboard: qwerty", "a.b.c"]
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_redacting_twice_is_redacting_once() -> None:
    once = redact_text("password=hunter2 cookie: a=b")

    assert redact_text(once) == once


def test_a_secret_that_was_formatted_into_the_message_is_redacted(out: Log) -> None:
    logger.info("logging in with {password} and {otp}", password=CANARY, otp=424242)

    assert out.line()["message"] == "logging in with [redacted] and [redacted]"


def test_an_input_that_pydantic_quotes_is_redacted(out: Log) -> None:
    class Letter(BaseModel):
        password: int

    try:
        Letter.model_validate({"password": CANARY})
    except ValidationError:
        logger.exception("invalid")

    assert CANARY not in out.text()
    assert "valid integer" in out.text()


@pytest.mark.parametrize(
    "text",
    [
        "token" * 1600, "password='" * 800, "eyJ" * 2700, "eyJa." * 1600, "://" * 2700, "://" + "a:" * 4000,
        "input_value=" * 680, '"' * 8192, "'\\" * 4000, "token" + " " * 8000, "bearer " * 1100, "-----begin " * 700,
    ],
)  # fmt: skip
def test_hostile_text_is_searched_in_linear_time(text: str) -> None:
    # Counted in steps of the engine one cannot; a search that grows with the square would need minutes for this.
    redact_text((text + "=") * 20)

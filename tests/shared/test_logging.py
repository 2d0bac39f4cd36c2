"""Each line of the log: what it says, of what, in which form."""

import asyncio
import json
import logging
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from loguru import logger

from src.shared import logging as log
from src.shared.logging.lines import Event, text_line
from tests.support.log import Log, fail, log_access, log_in_memory

CANARY = "canary-7f3a9c"


@pytest.fixture
def out() -> Iterator[Log]:
    with log_in_memory() as log_of_the_test:
        yield log_of_the_test


def test_bound_values_are_fields_of_the_line(out: Log) -> None:
    logger.bind(order_id=7, amount=Decimal("12.50")).info("Order completed")

    line = out.line()
    assert line["message"] == "Order completed"
    assert (line["order_id"], line["amount"]) == (7, "12.50")
    assert line["level"] == "INFO"
    assert re.fullmatch(r".*test_logging:test_bound_values_are_fields_of_the_line:\d+", line["logger"])


def test_the_time_is_utc_in_iso_8601(out: Log) -> None:
    before = datetime.now(UTC)
    logger.info("now")

    line = out.line()
    assert line["time"].endswith("Z")
    assert abs(datetime.fromisoformat(line["time"]) - before).total_seconds() < 60


def test_an_exception_comes_with_its_traceback_and_causes(out: Log) -> None:
    try:
        try:
            fail(KeyError("basket"))
        except KeyError as error:
            raise ValueError("no basket") from error
    except ValueError:
        logger.exception("Order processing failed")

    line = out.line()
    assert line["level"] == "ERROR"
    assert line["exception"]["type"] == "ValueError"
    assert line["exception"]["message"] == "no basket"
    assert line["exception"]["traceback"].startswith("Traceback (most recent call last)")
    assert "KeyError: 'basket'" in line["exception"]["traceback"]
    assert 'raise ValueError("no basket") from error' in line["exception"]["traceback"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_values_of_variables(out: Log, form: str) -> None:
    out.set_up(form=form)

    def charge(card: str) -> None:
        fail(ValueError(len(card)))

    try:
        charge(CANARY)
    except ValueError:
        logger.exception("Payment failed")

    assert "fail(ValueError(len(card)))" in out.text()
    assert CANARY not in out.text()


def test_an_exception_without_one_under_way_is_a_plain_error(out: Log) -> None:
    logger.exception("nothing under way")

    assert "exception" not in out.line()


def test_an_exception_does_not_outlive_its_request_in_the_log(out: Log) -> None:
    class Session:
        def __del__(self) -> None:
            ended_in.append(threading.current_thread())

    def serve() -> None:
        session = Session()
        raise RuntimeError(repr(session))

    ended_in: list[threading.Thread] = []
    try:
        serve()
    except RuntimeError:
        logger.exception("failed")

    assert ended_in == [threading.current_thread()]


def test_lines_of_a_request_carry_its_id_and_user(out: Log) -> None:
    context = log.RequestContext("req-1")
    token = log.enter_request(context)
    logger.info("before log-in")
    context.user_id = UUID(int=5)
    logger.info("after log-in")
    logging.getLogger("library").warning("as well")
    log.leave_request(token)
    logger.info("outside")

    before, after, library, outside = out.lines()
    assert before["request_id"] == "req-1"
    assert "user_id" not in before
    assert after["user_id"] == library["user_id"] == str(UUID(int=5))
    assert library["request_id"] == "req-1"
    assert not {"request_id", "user_id"} & set(outside)


async def test_a_user_found_in_a_copied_context_is_seen_outside(out: Log) -> None:
    token = log.enter_request(log.RequestContext("req-2"))

    async def dependency() -> None:
        context = log.current_request()
        assert context is not None
        context.user_id = "u-1"

    await asyncio.create_task(dependency())
    logger.info("in the request")
    log.leave_request(token)

    assert out.lines()[-1]["user_id"] == "u-1"
    assert log.current_request() is None


def test_core_fields_cannot_be_overwritten(out: Log) -> None:
    token = log.enter_request(log.RequestContext("real"))
    forged = dict.fromkeys(("time", "level", "logger", "request_id", "user_id", "exception", "truncated"), "forged")
    logger.bind(message="forged", message_="both are kept", **forged).info("real")
    log.leave_request(token)

    line = out.line()
    assert (line["message"], line["level"], line["request_id"]) == ("real", "INFO", "real")
    assert {line[f"{name}_"] for name in forged} == {"forged"}
    assert {line["message_"], line["message__"]} == {"forged", "both are kept"}
    assert not {"user_id", "exception", "truncated"} & set(line)


def test_contextualized_and_formatted_values_are_fields_too(out: Log) -> None:
    with logger.contextualize(job="nightly"):
        logger.info("took {seconds} s", seconds=3)

    line = out.line()
    assert (line["message"], line["job"], line["seconds"]) == ("took 3 s", "nightly", 3)


def test_a_level_below_the_setting_is_not_written(out: Log) -> None:
    out.set_up(level="WARNING")
    logger.info("no")
    logging.getLogger("library").info("no")
    log_access(path="/no")
    logger.warning("yes")
    logging.getLogger("library").warning("yes")

    assert [line["message"] for line in out.lines()] == ["yes", "yes"]


def test_set_up_twice_writes_each_line_once(out: Log) -> None:
    out.set_up()
    out.set_up()
    logger.info("ours")
    logging.getLogger("library").warning("theirs")
    log_access()

    assert len(out.lines()) == 3


def test_a_sink_that_somebody_else_added_stays(out: Log) -> None:
    got: list[str] = []
    other = logger.add(got.append, format="{message}")
    out.set_up()
    logger.info("both")
    logger.remove(other)

    assert got == ["both\n"]
    assert out.line()["message"] == "both"


def test_what_is_logged_after_the_end_is_still_written(out: Log) -> None:
    log.shut_down_logging()
    logger.info("Finished server process")

    assert json.loads(out.written())["message"] == "Finished server process"


def test_order_is_kept_across_all_ways_in(out: Log) -> None:
    for number in range(500):
        logger.bind(n=number * 3).info("loguru")
        logging.getLogger("library").warning("standard", extra={"n": number * 3 + 1})
        log_access(size=number * 3 + 2)

    lines = out.lines()
    assert [line.get("n", line.get("bytes")) for line in lines] == list(range(1500))


def test_an_access_line_says_what_was_asked_and_answered(out: Log) -> None:
    log_access(user_id=UUID(int=9))

    line = out.line()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "message": "GET /orders/{id} 200",
        "logger": "access",
        "method": "GET",
        "route": "/orders/{id}",
        "status": 200,
        "request_id": "req-1",
        "user_id": str(UUID(int=9)),
        "path": "/orders/1",
        "duration_ms": 1.235,
        "client": "192.0.2.1",
        "bytes": 12,
    }


def test_an_access_line_without_route_client_or_size_is_a_line(out: Log) -> None:
    log_access(route=None, client=None, size=None)

    line = out.line()
    assert line["message"] == "GET 200"
    assert not {"user_id", "client", "bytes"} & set(line)


def test_an_access_line_that_would_be_too_long_is_cut(out: Log) -> None:
    log_access(path="😀" * 5000, route="/\x00" * 3000, request_id="r" * 5000, client="\ud800" * 9000)

    line = out.line()
    assert line["truncated"] is True
    assert (line["level"], line["logger"]) == ("INFO", "access")


def test_standard_library_lines_join_with_level_name_and_exception(out: Log) -> None:
    out.set_up(level="DEBUG")
    try:
        fail(LookupError("lost"))
    except LookupError:
        logging.getLogger("sqlalchemy.pool").exception("Pool %s failed", "main", extra={"size": 5})
    logging.getLogger("asyncio").debug("loop")

    error, debug = out.lines()
    assert (error["level"], error["message"], error["size"]) == ("ERROR", "Pool main failed", 5)
    assert error["logger"].startswith("sqlalchemy.pool:test_standard_library_lines_join")
    assert error["exception"]["type"] == "LookupError"
    assert (debug["level"], debug["message"]) == ("DEBUG", "loop")


def test_libraries_that_write_whole_addresses_are_held_back(out: Log) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET https://api.example.com/?key=%s", CANARY)
    logging.getLogger("httpcore.connection").debug("headers")

    assert out.text() == ""


# --- text -----------------------------------------------------------------------------------------------------------


def test_people_read_one_line_an_event(out: Log) -> None:
    out.set_up(form="text")
    logger.bind(order_id=7, note="two words").info("Order completed")
    log_access()

    completed, access, end = out.text().split("\n")
    assert re.fullmatch(
        r'\S+Z INFO     \S*test_logging:\w+:\d+ Order completed  order_id=7 note="two words"', completed
    )
    assert " access GET /orders/1 200  route=/orders/{id} duration_ms=1.235" in access
    assert end == ""


def test_a_traceback_for_people_is_indented(out: Log) -> None:
    out.set_up(form="text")
    try:
        fail(ValueError("first\n2026-01-01T00:00:00.000000Z INFO     forged"))
    except ValueError:
        logger.exception("failed")

    head, *trace, end = out.text().split("\n")
    assert head.endswith("failed")
    assert end == ""
    assert all(line.startswith("    ") for line in trace)


def test_colour_marks_the_level_only() -> None:
    line = text_line(Event(0, "ERROR", "\x1b[32mgreen", "a:b:1"), colour=True).decode()

    assert line == "1970-01-01T00:00:00.000000Z \x1b[31mERROR   \x1b[0m a:b:1 \\x1b[32mgreen\n"

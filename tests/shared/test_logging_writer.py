"""The thread that writes, and the life of a process around it."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from src.shared.logging.lines import Event, json_line
from src.shared.logging.writer import MAX_WAITING, Writer


class Stalled:
    """An output that nobody reads, until somebody does."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.read = threading.Event()
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.reached.set()
        self.read.wait()
        self.data += data


def test_a_stalled_output_drops_lines_counts_them_and_keeps_errors() -> None:
    output = Stalled()
    writer = Writer(json_line, output.write)
    writer.put(Event(0, "INFO", "first", "x"))
    assert output.reached.wait(20)

    _put(writer, [Event(0, "INFO", "line", "x")] * (MAX_WAITING + 500), important=False)
    _put(writer, [Event(0, "ERROR", "error", "x")], important=True)
    output.read.set()
    writer.stop()

    messages = [json.loads(line)["message"] for line in output.data.decode().splitlines()]
    assert messages == ["first", *["line"] * MAX_WAITING, "error", "500 log lines dropped"]


def test_even_errors_do_not_pile_up_without_end() -> None:
    output = Stalled()
    writer = Writer(json_line, output.write)
    writer.put(Event(0, "INFO", "first", "x"))
    assert output.reached.wait(20)

    _put(writer, [Event(0, "ERROR", "error", "x")] * 3 * MAX_WAITING, important=True)
    output.read.set()
    writer.stop()

    assert f"{MAX_WAITING} log lines dropped" in output.data.decode()


def test_a_stalled_output_does_not_keep_the_process_from_ending() -> None:
    output = Stalled()
    writer = Writer(json_line, output.write)
    writer.put(Event(0, "INFO", "first", "x"))
    assert output.reached.wait(20)

    writer.stop(timeout_seconds=0.01)
    writer.put(Event(0, "INFO", "late", "x"))

    output.read.set()
    writer.stop()
    assert [json.loads(line)["message"] for line in output.data.decode().splitlines()] == ["first", "late"]


def test_without_a_thread_lines_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    written = bytearray()
    writer = Writer(json_line, written.extend)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer.put(Event(0, "INFO", "first", "x"))
    writer.put(Event(0, "INFO", "second", "x"))

    assert [json.loads(line)["message"] for line in written.decode().splitlines()] == ["first", "second"]
    writer.stop()


def test_an_output_that_fails_hurts_nobody() -> None:
    def fail(_: bytes) -> None:
        raise BrokenPipeError

    writer = Writer(json_line, fail)
    writer.put(Event(0, "INFO", "lost", "x"))
    writer.stop()
    writer.put(Event(0, "INFO", "lost too", "x"))


def test_a_line_that_cannot_be_rendered_does_not_take_the_others_along() -> None:
    written = bytearray()
    writer = Writer(json_line, written.extend)
    writer.put(Event(0, "INFO", None, "x"))  # type: ignore[arg-type]  # the planted fault
    writer.put(Event(0, "INFO", "fine", "x"))
    writer.stop()

    broken, fine = (json.loads(line) for line in written.decode().splitlines())
    assert broken["message"] == "A log line could not be rendered"
    assert fine["message"] == "fine"


def test_writes_to_a_pipe_are_short_enough_not_to_be_mixed_with_those_of_other_workers() -> None:
    writes: list[bytes] = []
    writer = Writer(json_line, writes.append)
    for number in range(1000):
        writer.put(Event(number, "INFO", "m" * (number % 300), "x"))
    writer.stop()

    assert all(len(data) <= 4096 and data.endswith(b"\n") for data in writes)
    assert b"".join(writes).count(b"\n") == 1000


def _put(writer: Writer, events: list[Event], *, important: bool) -> None:
    """In a thread of its own, so that a put that waits is a failure and not a test that never ends."""

    def put() -> None:
        for event in events:
            writer.put(event, important=important)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "a put waits for the output"


# --- processes ------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
SET_UP = """
import logging, os, sys, warnings
from loguru import logger
from src.config import AppSettings, Env, LogSettings, Settings
from src.shared.logging import log_access, set_up_logging, shut_down_logging
set_up_logging(Settings(app=AppSettings(env=Env.TEST), log=LogSettings(format="json")))
"""


def test_lines_are_flushed_when_the_process_ends() -> None:
    lines = _run("for n in range(1000): logger.bind(n=n).info('line')")

    assert [line["n"] for line in lines] == list(range(1000))


def test_lines_are_flushed_when_the_process_ends_with_an_error() -> None:
    lines = _run("logger.error('last words'); raise SystemExit(3)", code=3)

    assert [line["message"] for line in lines] == ["last words"]


def test_lines_written_at_the_very_end_are_written() -> None:
    lines = _run("import atexit; atexit.register(logger.info, 'last'); logger.info('first')")

    assert [line["message"] for line in lines] == ["first", "last"]


def test_a_warning_is_a_line() -> None:
    (line,) = _run("warnings.warn('old\\nhat')")

    assert line["level"] == "WARNING"
    assert line["logger"].startswith("py.warnings:")
    assert "UserWarning: old\nhat" in line["message"]


def test_handlers_that_write_to_the_console_are_replaced() -> None:
    lines = _run(
        "logging.basicConfig(); logging.getLogger('x').addHandler(logging.StreamHandler(sys.stdout));"
        "set_up_logging(Settings(app=AppSettings(env=Env.TEST), log=LogSettings(format='json')));"
        "logging.getLogger('x').warning('once')"
    )

    assert [line["message"] for line in lines] == ["once"]


def test_standard_library_arguments_that_do_not_fit_are_shown() -> None:
    # In a process of its own: pytest's handler raises what a handler must not.
    few, spiteful = _run("""
        class Spiteful:
            def __str__(self): raise RuntimeError("no")
            __repr__ = __str__
        logging.getLogger("library").warning("%d items of %s", "x")
        logging.getLogger("library").warning("%s", Spiteful())
    """)

    assert few["message"] == "%d items of %s ['x']"
    assert spiteful["message"] == "%s <unserialisable>"


@pytest.mark.parametrize(
    "fork",
    [
        """
        pid = os.fork()
        if not pid:
            logger.info('child')
            sys.exit()
        os.waitpid(pid, 0)
        """,
        """
        import multiprocessing
        child = multiprocessing.get_context('fork').Process(target=logger.info, args=('child',))
        child.start()
        child.join()
        """,
    ],
    ids=["os.fork", "multiprocessing"],
)
def test_a_fork_repeats_nothing_and_loses_nothing(fork: str) -> None:
    lines = _run(f"logger.info('before')\n{dedent(fork)}\nlogger.info('after')")

    messages = [line["message"] for line in lines if not line["logger"].startswith("py.warnings")]
    assert sorted(messages) == ["after", "before", "child"]


def test_workers_on_one_pipe_do_not_mix_their_lines() -> None:
    lines = _run("""
        children = []
        for worker in range(4):
            pid = os.fork()
            if not pid:
                for n in range(2000): logger.bind(worker=worker, n=n).info("m" * (n % 200))
                sys.exit()
            children.append(pid)
        for pid in children: os.waitpid(pid, 0)
    """)

    numbers = [(line["worker"], line["n"]) for line in lines if "worker" in line]
    assert sorted(numbers) == [(worker, n) for worker in range(4) for n in range(2000)]
    for worker in range(4):
        assert all(a < b for a, b in pairwise(n for who, n in numbers if who == worker))


def test_a_pipe_that_nobody_reads_blocks_nobody() -> None:
    script = "for n in range(20_000): logger.bind(n=n).info('m' * 100)\nprint('not blocked', file=sys.stderr)"
    with _process(SET_UP + script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], 30)[0], "logging blocked"
        out, err = process.communicate(timeout=30)

    lines = [json.loads(line) for line in out.splitlines()]
    dropped = sum(line.get("dropped", 0) for line in lines)
    assert err == "not blocked\n"
    assert dropped > 0
    assert sum("n" in line for line in lines) + dropped == 20_000


def test_closed_output_hurts_nobody() -> None:
    assert _run("os.close(1); logger.error('nobody reads this')") == []


def test_uvicorn_speaks_through_our_log(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(
        SET_UP + "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        for kind in ('startup', 'shutdown'):\n"
        "            await receive()\n"
        "            if kind == 'shutdown': shut_down_logging()\n"
        "            await send({'type': f'lifespan.{kind}.complete'})\n"
        "        return\n"
        "    if scope['path'] == '/crash': raise LookupError('lost')\n"
        "    await send({'type': 'http.response.start', 'status': 204, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    command = ["-m", "uvicorn", "served:app", "--app-dir", str(tmp_path), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_env()
    ) as server:
        assert server.stdout is not None
        lines: list[dict[str, Any]] = []  # Any: whatever a line says
        while not lines or "running on" not in lines[-1]["message"]:
            lines.append(json.loads(server.stdout.readline()))
        port = int(lines[-1]["message"].split("127.0.0.1:")[1].split()[0])
        for path, status in (("/", 204), ("/crash", 500)):
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", path)
            assert connection.getresponse().status == status
            connection.close()
        server.send_signal(signal.SIGTERM)
        lines += [json.loads(line) for line in server.stdout]

    messages = [line["message"] for line in lines]
    (crash,) = (line for line in lines if line["level"] == "ERROR")
    assert crash["logger"].startswith("uvicorn.error:")
    assert crash["exception"]["type"] == "LookupError"
    assert not [message for message in messages if "HTTP/1.1" in message]
    assert messages[-1].startswith("Finished server process")


def _run(script: str, *, code: int = 0) -> list[dict[str, Any]]:  # Any: whatever a line says
    with _process(SET_UP + dedent(script)) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    return [json.loads(line) for line in out.splitlines()]


def _process(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _env() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}

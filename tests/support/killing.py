"""SIGKILL for processes of ours, which are gone when it returns. Linux only."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def kill_all(process: subprocess.Popen[bytes]) -> int:
    """It and all that it started; how many there were."""
    # While it stands still it starts nobody, and it reaps nobody, whose id the system could then give to a stranger.
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it had ended by itself: {status}"
    with ExitStack() as opened:
        others = [opened.enter_context(_handle(pid)) for pid in _descendants(process.pid)]
        for other in others:
            signal.pidfd_send_signal(other, signal.SIGKILL)
        process.kill()
        process.wait()
        for other in others:
            _wait_until_dead(other)
    return 1 + len(others)


def kill_one(pid: int) -> None:
    """For one that somebody of ours has started and not yet waited for: the id is nobody else's."""
    with _handle(pid) as process:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        _wait_until_dead(process)


def stall_all(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started stand still until `resume_all`."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    for pid in _descendants(process.pid):
        os.kill(pid, signal.SIGSTOP)


def resume_all(process: subprocess.Popen[bytes]) -> None:
    for pid in _descendants(process.pid):
        os.kill(pid, signal.SIGCONT)
    process.send_signal(signal.SIGCONT)


@contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _wait_until_dead(handle: int) -> None:
    select.select([handle], [], [])


def _descendants(pid: int) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            yield from _descendants(child)
            yield child

"""Processes of ours that begin where their imports end: forks of one that has imported all of the service.

Imports were half of what a run of the tests took. What is forked runs the command line as `python -m src` would, in the
environment, the folder and with the streams that it is given, and is a child of whoever asked for it.
"""

import atexit
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final, NoReturn

_PROJECT: Final = Path(__file__).resolve().parents[2]
_LONGEST_MESSAGE: Final = 1 << 17
_CHILD_SUBREAPER: Final = 36  # of prctl(2)
Letter = dict[str, Any]  # Any: JSON


def can_fork(cwd: Path, env: Mapping[str, str]) -> bool:
    """Whether a fork is what a process of its own would be: not where modules or interpreters come from elsewhere, or
    where its start is measured."""
    return (
        sys.platform == "linux"
        and os.environ.get("TEST_FORKED") != "off"
        and env.get("PYTHONPATH") == str(_PROJECT)
        and "COVERAGE_PROCESS_START" not in env
        and not (cwd / "src").is_dir()
    )


class Forked(subprocess.Popen[bytes]):
    """`python -m …` with all that Popen can do; `env` is the whole environment."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], **streams: Any) -> None:
        # Any: as Popen has stdin, stdout, stderr and text
        self._letter = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env)}
        super().__init__(["python", "-m", *arguments], **streams)

    def _execute_child(self, *given: Any) -> None:  # Any: of Popen's own, its pipes among them
        child_in, parent_in, parent_out, child_out, parent_error, child_error = given[10:16]
        fds = [own if wanted == -1 else wanted for own, wanted in enumerate((child_in, child_out, child_error))]
        self.pid = _nursery().fork(self._letter, fds)
        self._child_created = True
        self._close_pipe_fds(child_in, parent_in, parent_out, child_out, parent_error, child_error)  # type: ignore[attr-defined] # Popen's


class _Nursery:
    def __init__(self) -> None:
        self._lock = Lock()
        self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_PROJECT,
                env=os.environ | {"PYTHONPATH": str(_PROJECT), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, letter: Letter, fds: Sequence[int]) -> int:
        with self._lock:
            # Whose parent ends is given to the nearest process above that takes such children in.
            _take_in_orphans(1)
            try:
                socket.send_fds(self._asking, [json.dumps(letter).encode()], fds)
                return int(self._asking.recv(32))
            finally:
                _take_in_orphans(0)

    def close(self) -> None:
        self._asking.close()
        self._process.wait()


@cache
def _nursery() -> _Nursery:
    nursery = _Nursery()
    atexit.register(nursery.close)
    return nursery


def _take_in_orphans(yes: int) -> None:
    assert ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, yes, 0, 0, 0) == 0


# --- In the nursery


def _main(number: int) -> None:
    import src.cli
    import src.http.app  # noqa: F401 - imported for those to come

    gc.collect()
    gc.freeze()
    asked = socket.socket(fileno=number)
    while True:
        letter, fds, _, _ = socket.recv_fds(asked, _LONGEST_MESSAGE, 3)
        if not letter:
            return
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            for fd in (reading, writing, asked.detach()):
                os.close(fd)
            _become(json.loads(letter), fds)
        os.waitpid(between, 0)  # from now on it is the child of whoever asked
        asked.send(os.read(reading, 32))
        for fd in (reading, writing, *fds):
            os.close(fd)


def _become(letter: Letter, fds: Sequence[int]) -> NoReturn:
    for own, fd in enumerate(fds):
        os.dup2(fd, own)
        os.close(fd)
    os.chdir(letter["cwd"])
    os.environ.clear()
    os.environ.update(letter["env"])
    module, *arguments = letter["arguments"]
    sys.argv = [module, *arguments]
    sys.path[0] = letter["cwd"]
    if module == "src":
        from src.__main__ import main
    else:
        from uvicorn.main import main
    main()
    sys.exit()


if __name__ == "__main__":
    _main(int(sys.argv[1]))

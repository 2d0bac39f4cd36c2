"""One number that all processes of a machine share for a database: when it changed, what they remember may be wrong."""

import hashlib
import mmap
import os
import secrets
import stat
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from loguru import logger
from sqlalchemy import URL

_CELL_BYTES = 8
_ID_BYTES = 16
_FILE_BYTES = _CELL_BYTES + _ID_BYTES


class Generation:
    """`cell[0]` is the generation: one aligned load of 8 bytes, some 40 ns.

    It is a fresh random number each time, not a count: an increment of two processes at once could lose one, and a
    lost one would be a right that lives on. A number that nobody had before needs no lock.
    """

    def __init__(self, memory: mmap.mmap, domain: UUID, *, reaches_all: bool) -> None:
        self.cell = memoryview(memory)[:_CELL_BYTES].cast("Q")
        self.domain = domain
        """Equal in two processes if and only if they share the number."""
        self.reaches_all = reaches_all
        """Whether each process of this machine that opens the database finds it."""

    def advance(self) -> None:
        self.cell[0] = secrets.randbits(64)


def open_generation(url: URL) -> Generation:
    """The one of this database; one of this process and its forks alone where sharing is not possible or not safe."""
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and url.database in (None, "", ":memory:"):
        return _private(reaches_all=True)
    try:
        return _beside(Path(str(url.database))) if sqlite else _of_user(url)
    except OSError as error:
        logger.bind(error=type(error).__name__).warning("No memory to share with other processes: {}", error)
        return _private(reaches_all=False)


def _private(*, reaches_all: bool) -> Generation:
    # Not a plain number: a process that forks takes the domain along, so it must take the memory along.
    return Generation(mmap.mmap(-1, _FILE_BYTES), uuid.uuid4(), reaches_all=reaches_all)


def _beside(database: Path) -> Generation:
    """SQLite keeps what its processes share beside the file, as its own -shm: whoever reaches one reaches the other."""
    _refuse_windows()
    if str(database).startswith("file:"):
        raise OSError("an SQLite URI may name any file")
    database = database.resolve()
    # SQLite follows links to the database, and gives what it makes the rights and the owner of the database.
    found = database.stat() if database.exists() else None
    mode = 0o600 if found is None else stat.S_IMODE(found.st_mode) & 0o666
    owner = os.geteuid() if found is None else found.st_uid
    group = None if found is None else found.st_gid
    directory = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _open(directory, f"{database.name}-generation", mode, owner, group)
    finally:
        os.close(directory)


def _of_user(url: URL) -> Generation:
    """Processes of other users have one of their own, and find each other in the database (`leases`)."""
    _refuse_windows()
    name = hashlib.sha256(url.render_as_string(hide_password=False).encode()).hexdigest()[:32]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime) / "undercroft" if runtime else Path(tempfile.gettempdir()) / f"undercroft-{os.geteuid()}"
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _refuse_strangers(os.fstat(directory), 0o700, os.geteuid())
        return _open(directory, name, 0o600, os.geteuid(), None)
    finally:
        os.close(directory)


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise OSError("not on Windows")


def _open(directory: int, name: str, mode: int, owner: int, group: int | None) -> Generation:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        _make(directory, name, mode, owner, group)
        file = os.open(name, flags, dir_fd=directory)
    try:
        found = os.fstat(file)
        _refuse_strangers(found, mode, owner)
        if not stat.S_ISREG(found.st_mode) or found.st_size != _FILE_BYTES:
            raise OSError(f"{name} is not what this version writes")
        memory = mmap.mmap(file, _FILE_BYTES)
    finally:
        os.close(file)
    # A copy of the file, in an image or on another machine, is another memory: it must be another domain.
    place = f"{_machine()}/{found.st_dev}/{found.st_ino}"
    return Generation(memory, UUID(bytes=_digest(memory[_CELL_BYTES:], place)), reaches_all=True)


def _refuse_strangers(found: os.stat_result, mode: int, owner: int) -> None:
    """Whoever may write to it could take a change back."""
    if found.st_uid not in (owner, os.geteuid()):
        raise PermissionError("it belongs to somebody else")
    if stat.S_IMODE(found.st_mode) & 0o022 & ~mode:
        raise PermissionError("others may write to it")


def _make(directory: int, name: str, mode: int, owner: int, group: int | None) -> None:
    """Whole or not at all, and the first one wins: a process must not map what is still empty."""
    draft = f".{name}.{secrets.token_hex(8)}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        os.write(file, secrets.token_bytes(_FILE_BYTES))
        os.fchmod(file, mode)
        if group is not None and os.geteuid() == 0:
            os.fchown(file, owner, group)
        with suppress(FileExistsError):
            os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(file)
        os.unlink(draft, dir_fd=directory)


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{uuid.getnode():x}"


def _digest(stored: bytes, place: str) -> bytes:
    return hashlib.sha256(stored + place.encode()).digest()[:_ID_BYTES]

"""What can become of a database and of a cache server, in one table: how each fault begins, and how it ends."""

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Final, Literal
from urllib.parse import urlsplit

import asyncpg
from redis import Redis

from tests.faults.proxy import BLACK_HOLE, CUT, DOWN, HANGS_UP, PASS, Proxy, Way, running_proxy
from tests.support.killing import kill_all, kill_one, resume_all, stall_all
from tests.support.ports import reserved_port
from tests.support.postgres import Postgres, execute, own_postgres
from tests.support.valkey import Valkey, own_valkey

ROLE: Final = "service"
"""Whom the service logs in as: it owns its database, and is no superuser."""
NAME: Final = "under-fault"
"""By which PostgreSQL knows its connections."""
SOON_SECONDS: Final = 20
_SETTINGS: Final = {
    # What was acknowledged outlives the death of a process; the machine stays up.
    "synchronous_commit": "on",
    # For the standby.
    "wal_level": "replica",
    "max_wal_senders": "4",
}


@dataclass
class Stage:
    """A PostgreSQL and a Valkey of its own, and the wires to them."""

    postgres: Postgres
    valkey: Valkey
    database: Proxy
    cache: Proxy
    room: "Room | None"
    stack: ExitStack
    during: ExitStack = field(default_factory=ExitStack)
    """Closed when the fault ends."""

    @property
    def database_url(self) -> str:
        """As the service has it."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.database.port}/{ROLE}"

    @property
    def cache_url(self) -> str:
        return f"redis://127.0.0.1:{self.cache.port}/0"

    @property
    def own_url(self) -> str:
        """Past the proxy, and with all rights."""
        return urlsplit(self.postgres.url)._replace(path=f"/{ROLE}").geturl()

    def sql(self, statement: str) -> list[asyncpg.Record]:
        return execute(self.own_url, statement)

    def backends(self) -> dict[str, int]:
        """Of the service, by what they are doing."""
        counted = self.sql(
            f"SELECT coalesce(state, '') AS state, count(*) AS n FROM pg_stat_activity WHERE application_name = '{NAME}' GROUP BY 1"
        )
        return {row["state"]: row["n"] for row in counted}

    @contextmanager
    def redis(self) -> Iterator[Redis]:
        with Redis(port=self.valkey.port, socket_timeout=5) as client:
            yield client


@dataclass(frozen=True)
class Room:
    """A small file system in a mount namespace of its own, in which PostgreSQL lives: with its holder it is gone."""

    place: Path
    holder: subprocess.Popen[bytes]

    def fill(self) -> None:
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self.holder.pid}/root{self.place}/filler")


@dataclass(frozen=True)
class Fault:
    name: str
    of: Literal["database", "cache", "both"]
    begin: Callable[[Stage], None]
    end: Callable[[Stage], None]
    meanwhile: Callable[[Stage], None] | None = None
    """Again and again until it ends."""
    unseen: bool = False
    """Clients notice nothing, but for a little time."""
    felt: bool = True
    """By a client who is refused, or in the service's log, if only the cache is in trouble."""
    needs_room: bool = False
    """A file system of its own, which only the superuser of a machine with namespaces can make."""


@contextmanager
def open_stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        postgres = stack.enter_context(own_postgres(**_SETTINGS))
        room = _move_into_room(postgres, stack)
        execute(postgres.url, f"CREATE ROLE {ROLE} LOGIN")
        execute(postgres.url, f"CREATE DATABASE {ROLE} OWNER {ROLE}")
        valkey = stack.enter_context(own_valkey())
        database = stack.enter_context(running_proxy(postgres.port))
        cache = stack.enter_context(running_proxy(valkey.port))
        yield Stage(postgres, valkey, database, cache, room, stack)


# The wire


def _switch(way: Way, *wires: Literal["database", "cache"]) -> Callable[[Stage], None]:
    def switch(stage: Stage) -> None:
        for wire in wires:
            getattr(stage, wire).switch(way)

    return switch


def _repair(*wires: Literal["database", "cache"], reset: bool = True) -> Callable[[Stage], None]:
    def repair(stage: Stage) -> None:
        for wire in wires:
            getattr(stage, wire).switch(PASS, reset=reset)

    return repair


def _wire(of: Literal["database", "cache"], name: str, way: Way, *, reset: bool = True, slight: bool = False) -> Fault:
    begin, end = _switch(way, of), _repair(of, reset=reset)
    return Fault(f"{of}: {name}", of, begin, end, unseen=slight or of == "cache", felt=not slight)


# PostgreSQL itself


def _stop_postgres(stage: Stage, how: signal.Signals = signal.SIGINT) -> None:
    stage.postgres.process.send_signal(how)
    stage.postgres.process.wait(SOON_SECONDS)


def _start_postgres(stage: Stage) -> None:
    stage.postgres.start()


def _restart_postgres(stage: Stage) -> None:
    _stop_postgres(stage)
    stage.postgres.start()


def _kill_postgres(stage: Stage) -> None:
    kill_all(stage.postgres.process)


def _kill_backend(stage: Stage) -> None:
    """The others are ended by PostgreSQL then, which recovers as after a crash."""

    def one_dies() -> bool:
        rows = stage.sql(f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}' LIMIT 1")
        for row in rows:
            kill_one(row["pid"])
        return bool(rows)

    _soon(one_dies, ProcessLookupError)  # one may have ended by itself since it was listed


def _wait_for_postgres(stage: Stage) -> None:
    _soon(lambda: bool(stage.sql("SELECT 1")), asyncpg.PostgresError, OSError)


def _on_backends(function: str) -> Callable[[Stage], None]:
    def call(stage: Stage) -> None:
        stage.sql(f"SELECT {function}(pid) FROM pg_stat_activity WHERE application_name = '{NAME}'")

    return call


def _limit_connections(stage: Stage) -> None:
    stage.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    _on_backends("pg_terminate_backend")(stage)


def _lift_limit(stage: Stage) -> None:
    stage.sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


def _set_postgres(name: str, value: str) -> Callable[[Stage], None]:
    def change(stage: Stage) -> None:
        stage.sql(f"ALTER SYSTEM SET {name} = {value}")
        stage.sql("SELECT pg_reload_conf()")

    return change


def _reset_postgres(name: str) -> Callable[[Stage], None]:
    def reset(stage: Stage) -> None:
        stage.sql(f"ALTER SYSTEM RESET {name}")
        stage.sql("SELECT pg_reload_conf()")

    return reset


def _lock_tables(stage: Stage) -> None:
    lock = "BEGIN; LOCK TABLE orders, products, users, idempotency_records IN ACCESS EXCLUSIVE MODE"
    stage.during.enter_context(session(stage.postgres.port, lock))


def _fill_disk(stage: Stage) -> None:
    assert stage.room is not None
    stage.sql(f"CREATE TABLESPACE small LOCATION '{stage.room.place}'")
    # Nearly each row takes a page of its own, so that the first order needs room.
    stage.sql("ALTER TABLE idempotency_records SET (fillfactor = 10)")
    stage.sql("ALTER TABLE idempotency_records SET TABLESPACE small")
    stage.room.fill()


def _clear_disk(stage: Stage) -> None:
    assert stage.room is not None
    stage.room.clear()
    stage.sql("ALTER TABLE idempotency_records SET TABLESPACE pg_default")
    stage.sql("ALTER TABLE idempotency_records RESET (fillfactor)")
    stage.sql("DROP TABLESPACE small")


def _lose_primary(stage: Stage) -> None:
    """A standby that has all that was acknowledged, and then the primary dies."""
    with reserved_port() as port:
        standby = _standby(stage, port)
    stage.during.callback(_promote, stage, standby)
    kill_all(stage.postgres.process)


def _standby(stage: Stage, port: int) -> Postgres:
    place = Path(stage.stack.enter_context(TemporaryDirectory(prefix="undercroft-standby-")))
    shutil.chown(place, *_owner(stage.postgres.place))
    command = [str(word) for word in stage.postgres.command]
    postgres = next(number for number, word in enumerate(command) if word.endswith("/postgres"))
    as_owner, binary = command[:postgres], command[postgres]
    backup = [str(Path(binary).with_name("pg_basebackup")), "-h127.0.0.1", f"-p{stage.postgres.port}", "-Uundercroft"]
    made = subprocess.run(
        [*as_owner, *backup, "-D", str(place / "data"), "-R", "--checkpoint=fast", "--no-sync"],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    settings = command[postgres + 3 :]
    moved = [f"-cport={port}" if word.startswith("-cport=") else word for word in settings]
    standby = Postgres(port, place, [*as_owner, binary, "-D", place / "data", *moved])
    stage.stack.callback(_end, standby)
    standby.start()
    _set_postgres("synchronous_standby_names", "'*'")(stage)
    _soon(lambda: bool(stage.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")))
    return standby


def _promote(stage: Stage, standby: Postgres) -> None:
    execute(standby.url, "SELECT pg_promote()")
    # The one before it is gone, with its directory and its exit code.
    stage.postgres.process, stage.postgres.port = standby.process, standby.port
    stage.postgres.command, stage.postgres.place = standby.command, standby.place
    stage.database.target_port = standby.port


def _end(server: Postgres) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGQUIT)
        server.process.wait()


def _owner(place: Path) -> tuple[int, int]:
    found = place.stat()
    return found.st_uid, found.st_gid


def _move_into_room(postgres: Postgres, stack: ExitStack) -> Room | None:
    """It is started anew within the namespace of the room."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        return None
    place = postgres.place / "room"
    place.mkdir()
    user, group = _owner(postgres.place)
    mount = f"mount -t tmpfs -o size=64m,mode=700,uid={user},gid={group} room '{place}' && echo there && exec sleep infinity"
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", "-c", mount],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(_bury, holder)
    assert holder.stdout is not None
    if not holder.stdout.readline():
        return None  # a container that may not mount
    postgres.process.send_signal(signal.SIGINT)
    postgres.process.wait()
    postgres.command = ["nsenter", f"--target={holder.pid}", "--mount", f"--wd={postgres.place}", *postgres.command]
    postgres.start()
    return Room(place, holder)


def _bury(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.communicate()


def session(port: int, statement: str) -> socket.socket:
    """A connection of PostgreSQL's own protocol, version 3.0, that stays as it is left."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=SOON_SECONDS)
    words = ("user", "undercroft", "database", ROLE, "application_name", NAME, "")
    letter = b"".join(word.encode() + b"\0" for word in words)
    connection.sendall(struct.pack("!ii", 8 + len(letter), 196_608) + letter)
    _until_ready(connection)
    _say(connection, statement)
    return connection


def _say(connection: socket.socket, statement: str) -> None:
    text = statement.encode() + b"\0"
    connection.sendall(b"Q" + struct.pack("!i", 4 + len(text)) + text)
    _until_ready(connection)


def _until_ready(connection: socket.socket) -> None:
    with connection.makefile("rb") as answers:
        while True:
            head = answers.read(5)
            kind, size = head[:1], struct.unpack("!i", head[1:])[0]
            body = answers.read(size - 4)
            assert kind != b"E", body
            if kind == b"Z":
                return


# Valkey itself


def _stall_valkey(stage: Stage) -> None:
    stage.during.enter_context(stage.valkey.stalled())


def _kill_valkey(stage: Stage) -> None:
    stage.valkey.process.kill()
    stage.valkey.process.wait()


def _start_valkey(stage: Stage) -> None:
    """Another one in its place, which knows nothing."""
    stage.valkey = stage.stack.enter_context(own_valkey(stage.valkey.port))


def _restart_valkey(stage: Stage) -> None:
    _kill_valkey(stage)
    _start_valkey(stage)


def _tell_valkey(*commands: str) -> Callable[[Stage], None]:
    def tell(stage: Stage) -> None:
        with stage.redis() as client:
            for command in commands:
                client.execute_command(*command.split())  # type: ignore[no-untyped-call] # redis-py leaves it bare

    return tell


def _crowd_valkey(stage: Stage) -> None:
    """Ours is the one that stays, so whoever comes is one too many until the fault ends."""
    client = stage.during.enter_context(stage.redis())
    client.config_set("maxclients", 1)
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")  # type: ignore[no-untyped-call] # redis-py leaves it bare
    stage.during.callback(client.config_set, "maxclients", 10_000)


def stay(_: Stage) -> None:
    """It ends by itself, or with what `during` holds."""


def _soon(condition: Callable[[], bool], *forgiven: type[Exception]) -> None:
    deadline = monotonic() + SOON_SECONDS
    while True:
        with suppress(*forgiven):
            if condition():
                return
        assert monotonic() < deadline
        sleep(0.01)


_read_only = "default_transaction_read_only"

FAULTS: Final[tuple[Fault, ...]] = (
    _wire("database", "refuses connections", DOWN),
    _wire("database", "accepts and hangs up", HANGS_UP),
    _wire("database", "black hole, then reset", BLACK_HOLE),
    _wire("database", "black hole for good", BLACK_HOLE, reset=False),
    _wire("database", "network cut, then whole", CUT),
    _wire("database", "reset in mid-reply", Way(reset_after_bytes=40)),
    _wire("database", "slow", Way(latency_seconds=0.01), slight=True),
    _wire("database", "very slow", Way(latency_seconds=0.6)),
    _wire("database", "tiny pieces", Way(piece_bytes=3), slight=True),
    _wire("database", "narrow", Way(bytes_per_second=3000)),
    Fault("database: stopped", "database", _stop_postgres, _start_postgres),
    Fault("database: restarted", "database", _restart_postgres, stay),
    Fault(
        "database: stalled",
        "database",
        lambda stage: stall_all(stage.postgres.process),
        lambda stage: resume_all(stage.postgres.process),
    ),
    Fault("database: kill -9", "database", _kill_postgres, _start_postgres),
    Fault("database: kill -9 of a backend", "database", _kill_backend, _wait_for_postgres),
    Fault("database: too many connections", "database", _limit_connections, _lift_limit),
    Fault("database: terminated backends", "database", stay, stay, meanwhile=_on_backends("pg_terminate_backend")),
    Fault("database: cancelled statements", "database", stay, stay, meanwhile=_on_backends("pg_cancel_backend")),
    Fault("database: read-only", "database", _set_postgres(_read_only, "on"), _reset_postgres(_read_only)),
    Fault("database: locked tables", "database", _lock_tables, stay),
    Fault("database: disk full", "database", _fill_disk, _clear_disk, needs_room=True),
    Fault("database: failover to its standby", "database", _lose_primary, stay),
    _wire("cache", "refuses connections", DOWN),
    _wire("cache", "accepts and hangs up", HANGS_UP),
    _wire("cache", "black hole, then reset", BLACK_HOLE),
    _wire("cache", "black hole for good", BLACK_HOLE, reset=False),
    _wire("cache", "reset in mid-reply", Way(reset_after_bytes=3)),
    _wire("cache", "slow", Way(latency_seconds=0.02), slight=True),
    _wire("cache", "very slow", Way(latency_seconds=0.6)),
    _wire("cache", "tiny pieces", Way(piece_bytes=1), slight=True),
    _wire("cache", "narrow", Way(bytes_per_second=2000)),
    Fault("cache: stalled", "cache", _stall_valkey, stay, unseen=True),
    Fault("cache: kill -9", "cache", _kill_valkey, _start_valkey, unseen=True),
    # Whoever comes next may find the new one, and nothing wrong with it.
    Fault("cache: restarted empty", "cache", _restart_valkey, stay, unseen=True, felt=False),
    Fault("cache: too many clients", "cache", _crowd_valkey, stay, unseen=True),
    Fault(
        "cache: read-only",
        "cache",
        _tell_valkey("REPLICAOF 127.0.0.1 1"),
        _tell_valkey("REPLICAOF NO ONE"),
        unseen=True,
    ),
    Fault(
        "cache: out of memory",
        "cache",
        _tell_valkey("CONFIG SET maxmemory 1"),
        _tell_valkey("CONFIG SET maxmemory 0"),
        unseen=True,
    ),
    Fault(
        "cache: terminated clients",
        "cache",
        stay,
        stay,
        meanwhile=_tell_valkey("CLIENT KILL TYPE normal SKIPME yes", "CLIENT KILL TYPE pubsub"),
        unseen=True,
    ),
    Fault("both: refuse connections", "both", _switch(DOWN, "database", "cache"), _repair("database", "cache")),
)

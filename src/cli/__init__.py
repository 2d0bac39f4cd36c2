"""The command line: serve, migrate, care for accounts, and a development server with demo data."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from uuid import UUID

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from uvicorn.importer import import_from_string

from src.audit import services as audit
from src.audit.schemas import Source
from src.audit.services import Verdict
from src.auth import services as auth
from src.auth.schemas import CreateUserRequest
from src.cli import demo
from src.cli.docs import write_pages
from src.cli.payment_provider import SCRIPTS, PaymentProvider, listening_socket, make_server
from src.config import ConfigurationError, Settings, load_settings, refuse_weak, setting_name, use_settings, with_secret
from src.doctor import examine
from src.exceptions import BusinessException
from src.http.compiled import list_routes
from src.http.envelope import install_envelope
from src.http.errors import field_errors
from src.http.needs import list_needs
from src.http.server import server_options
from src.jobs import working
from src.outbox import services as outbox
from src.outbox.schemas import EventFilters, EventState
from src.shared import migrations
from src.shared.database import DATABASE_ERRORS, close_engine, transaction
from src.shared.errors import ErrorCode
from src.shared.logging import set_up_logging, shut_down_logging
from src.users import services as users
from src.users.permissions import PERMISSIONS, Grants
from src.users.schemas import UpdateUserRequest
from src.users.services import ADMIN

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

cli = typer.Typer(name="python -m src", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_say = Console(highlight=False, soft_wrap=True).print
_complain = Console(stderr=True, highlight=False, soft_wrap=True).print

_SHOWN = 20
_A_DAY = 86_400
_EVERYTHING = Grants(frozenset({ADMIN}), frozenset({"*"}))


def run() -> None:
    """Bad settings, refusals and outages end with a sentence and a status, not with a traceback."""
    try:
        cli()
    except ConfigurationError as error:
        _fail(str(error), 2)
    except BusinessException as refusal:
        _fail(f"{refusal.msg} ({refusal.code.name})", 1)
    except DATABASE_ERRORS as error:
        _fail(f"The database cannot do this now ({type(error).__name__}); see {setting_name('db', 'url')}", 1)


def _fail(message: str, status: int) -> None:
    _complain(message, markup=False)
    sys.exit(status)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on", min=0, max=65_535)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes", min=1, max=256)] = None,
) -> None:
    """Serve the API."""
    given = {"host": host, "port": port, "workers": workers}
    settings = _settings(http={name: value for name, value in given.items() if value is not None})
    _serve(settings)


def _settings(**overrides: Any) -> Settings:  # Any: sections, validated when they are loaded
    settings = load_settings(**overrides)
    refuse_weak(settings)
    return use_settings(with_secret(settings))


def _serve(settings: Settings) -> None:
    http = settings.http
    # Workers are processes of their own and read the settings for themselves; a secret made up here must be theirs too.
    os.environ[setting_name("http", "workers")] = str(http.workers)
    os.environ[setting_name("http", "port")] = str(http.port)
    os.environ[setting_name("auth", "secret")] = settings.auth.secret.get_secret_value()
    _take_all_descriptors()
    # uvicorn raises the signal that stopped it once more when it is done; by then everything asked was answered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run("src.main:app", **server_options(settings))


def _take_all_descriptors() -> None:
    """Each connection is one, and a shell gives 1024 where the system allows more."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):  # where "unlimited" is more than the system gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@cli.command()
def migrate(
    down_to: Annotated[str | None, typer.Option(help="Go back to this revision; `base` drops everything")] = None,
) -> None:
    """Bring the database's tables to this version."""
    use_settings(load_settings())
    if down_to is None:
        migrations.upgrade()
    else:
        migrations.downgrade(down_to)
    _say(f"The tables are at {down_to or migrations.newest()}", markup=False)


@cli.command()
def migration(message: Annotated[str, typer.Argument(help="What it does, as in 'Add invoices'")]) -> None:
    """Write the migration that brings the tables from the newest revision to what the models say now."""
    with TemporaryDirectory() as folder:
        use_settings(load_settings(db={"url": f"sqlite:///{folder}/scratch.db"}))
        migrations.upgrade()
        _say(f"Read it before you commit it: {migrations.write(message)}", markup=False)


@cli.command("routes")
def show_routes(
    path: Annotated[str, typer.Argument(help="Only those whose path contains this")] = "",
    compiled: Annotated[bool, typer.Option("--compiled", help="With the coroutine that serves each")] = False,  # noqa: FBT002 - a flag
) -> None:
    """List the routes, and who serves them: a coroutine made from the route, or FastAPI's own path."""
    use_settings(load_settings(app={"env": "development"}))
    # By name, as the server does it: the doors do not know each other.
    app = import_from_string("src.main:app")
    install_envelope(app)
    for route in list_routes(app):
        if path in route.path:
            served = "compiled" if route.compiled is not None else f"by FastAPI: {route.reason}"
            print(f"{','.join(route.methods):8}{route.path}  {served}")  # noqa: T201 - code, and not for a terminal's colours
            if compiled and route.compiled is not None:
                print(f"\n{route.compiled.source}")  # noqa: T201 - as above


@cli.command("docs")
def write_docs() -> None:
    """Write the pages that come from the code: the catalogue of error codes, and the example of all settings."""
    for page in write_pages():
        _say(str(page), markup=False)


@cli.command()
def create_admin(email: Annotated[str, typer.Option(help="E-mail address of the account")]) -> None:
    """Create an administrator. The password is asked for, or is the first line of standard input."""
    use_settings(with_secret(load_settings()))
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    _create_admin(email, password)
    _say(f"{email} is an administrator", markup=False)


def _create_admin(email: str, password: str) -> None:
    try:
        request = CreateUserRequest(email=email, password=password, roles=[ADMIN])
    except ValidationError as error:
        _fail("\n".join(f"{e['field']}: {e['message']}" for e in field_errors(error.errors(include_input=False))), 1)
        raise
    _run(lambda: auth.create_user(request, held=_EVERYTHING))


@cli.command()
def set_roles(
    email: Annotated[str, typer.Option(help="E-mail address of the account")],
    role: Annotated[
        list[str] | None, typer.Option(help="A role that it has from now on; none: it has no roles")
    ] = None,
) -> None:
    """Replace the roles of an account. What it loses it has lost everywhere when the command ends."""
    use_settings(with_secret(load_settings()))

    async def replace() -> None:
        async with transaction() as session:
            user = await users.get_user_by_email(session, email)
            await users.set_roles(session, user.id, role or [], held=_EVERYTHING)

    _run(replace)
    _say(f"{email} has {', '.join(role) if role else 'no roles'}", markup=False)


@cli.command()
def deactivate(email: Annotated[str, typer.Option(help="E-mail address of the account")]) -> None:
    """Disable an account and end its sessions. Nothing accepts them any more when the command ends."""
    use_settings(with_secret(load_settings()))

    async def disable() -> None:
        async with transaction() as session:
            user = await users.get_user_by_email(session, email)
            await auth.update_user(session, user.id, UpdateUserRequest(is_active=False), held=_EVERYTHING)

    _run(disable)
    _say(f"{email} is disabled", markup=False)


@cli.command("rotate-keys")
def rotate_keys(
    at_once: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--at-once", help="The keys before count no more: everybody has to refresh")
    ] = False,
) -> None:
    """Sign access tokens with a new key; those before run out, or with --at-once are void when the command ends."""
    use_settings(with_secret(load_settings()))
    key_id: list[str] = []

    async def rotate() -> None:
        async with transaction() as session:
            key_id.append(await auth.rotate_keys(session, at_once=at_once))

    _run(rotate)
    _say(f"Access tokens are signed with key {key_id[0]}", markup=False)


@cli.command("permissions")
def show_permissions(
    path: Annotated[str, typer.Argument(help="Only routes whose path contains this")] = "",
) -> None:
    """List what each route asks of its caller, and each permission that there is."""
    use_settings(load_settings(app={"env": "development"}))
    app = import_from_string("src.main:app")
    for needs in list_needs(app):
        if path in needs.path:
            print(f"{','.join(needs.methods):8}{needs.path:66}{needs}")  # noqa: T201 - for a pipe, too
    if not path:
        print()  # noqa: T201 - as above
        for name, meaning in PERMISSIONS.items():
            print(f"{name:20}{meaning}")  # noqa: T201 - as above


@cli.command("verify-audit")
def verify_audit(
    head: Annotated[
        str, typer.Option(help="SEQ:DIGEST as it was printed once: the log must still have that entry")
    ] = "",
) -> None:
    """Read the audit log from its beginning: exit code 1 where an entry was changed, taken out or cut off."""
    use_settings(with_secret(load_settings()))
    verdict: list[Verdict] = []

    async def verify() -> None:
        async with transaction() as session:
            verdict.append(await audit.verify(session, once_head=head or None))

    _run(verify)
    if verdict[0].problem is not None:
        _fail(f"The audit log is not intact: {verdict[0].problem}", 1)
    _say(f"The audit log is intact: {verdict[0].entries}:{verdict[0].head}", markup=False)


@cli.command()
def doctor() -> None:
    """Check what must be true of the tables: exit code 1 where it is not, with the rows that break it."""
    # All of each table is read, which may take longer than a request may.
    use_settings(with_secret(load_settings(db={"statement_timeout_seconds": _A_DAY})))
    broken: list[str] = []

    async def look() -> None:
        async with transaction() as session:
            async for finding in examine(session):
                _say(f"{'BROKEN' if finding.broken else 'ok':8}{finding.sentence}", markup=False)
                for row in finding.broken[:_SHOWN]:
                    _say(f"        {', '.join(f'{name}={value}' for name, value in row.items())}", markup=False)
                if len(finding.broken) > _SHOWN:
                    _say(f"        and {len(finding.broken) - _SHOWN} more", markup=False)
                if finding.broken:
                    broken.append(finding.sentence)

    _run(look)
    if broken:
        _fail(f"Not true: {'; '.join(broken)}", 1)


@cli.command("outbox")
def show_outbox(
    retry: Annotated[str, typer.Option(help="Have the event with this id, which was given up, delivered again")] = "",
    retry_all: Annotated[bool, typer.Option("--retry-all", help="The same for all of them")] = False,  # noqa: FBT002 - a flag
) -> None:
    """List the events that were given up, and how far behind the deliveries are."""
    use_settings(with_secret(load_settings()))

    async def look() -> None:
        if retry:
            async with transaction() as session:
                await outbox.retry_event(session, _event_id(retry))
        if retry_all:
            _say(f"{await _retry_all()} events are delivered again", markup=False)
        async with transaction() as session:
            status = await outbox.get_status(session)
            dead = outbox.select_events(EventFilters(state=EventState.DEAD)).limit(_SHOWN)
            newest = (await session.execute(dead)).scalars().all()
        _say(
            f"{status.waiting} wait, for {status.lag_seconds:.0f} s at most; {status.dead} were given up", markup=False
        )
        for event in newest:
            _say(
                f"{event.id}  {event.kind}  {event.aggregate}  {event.attempts} attempts, {event.last_error}",
                markup=False,
            )
        if status.dead > len(newest):
            _say(f"and {status.dead - len(newest)} more", markup=False)

    _run(look)


async def _retry_all() -> int:
    """In parts: each of them is in the audit log, whose end is locked until COMMIT."""
    count = 0
    while True:
        async with transaction() as session:
            some = await outbox.retry_dead(session)
        if not some:
            return count
        count += some


def _event_id(written: str) -> UUID:
    try:
        return UUID(written)
    except ValueError:
        raise BusinessException(ErrorCode.EVENT_NOT_FOUND) from None


@cli.command()
def worker() -> None:
    """Deliver what waits in the outbox, until it is stopped. For services with OUTBOX__DISPATCH=false."""
    settings = _settings()
    set_up_logging(settings)

    async def work() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with working():
            await stop.wait()

    try:
        _run(work, source="job")
    finally:
        shut_down_logging()


def _run(work: Callable[[], Awaitable[object]], *, source: Source = "command") -> None:
    async def do() -> None:
        audit.source_outside_requests.set(source)
        try:
            await work()
        finally:
            await close_engine()

    asyncio.run(do())


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _fail(f"Cannot listen on {host}:{port}: {error.strerror}. Another port: make run PORT=8001", 1)


@cli.command("payment-provider")
def run_payment_provider(
    callback_url: Annotated[str, typer.Option(help="Where this service takes what a provider says")] = (
        "http://127.0.0.1:8000/api/v1/callbacks/payments"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on", min=0, max=65_535)] = 8200,
) -> None:
    """Run a payment provider for development: with the key and the secret of PAYMENTS__API_KEY and PAYMENTS__CALLBACK_SECRETS."""
    settings = load_settings()
    if settings.production:
        _fail(f"{setting_name('app', 'env')}: a provider that approves whatever it is told to is for development", 2)
    if not settings.payments.api_key.get_secret_value() or not settings.payments.callback_secrets:
        _fail(f"{setting_name('payments', 'api_key')}, {setting_name('payments', 'callback_secrets')}: missing", 2)
    provider = PaymentProvider(
        settings.payments.api_key.get_secret_value(),
        settings.payments.callback_secrets[0].get_secret_value(),
        callback_url,
    )
    for source, script in SCRIPTS.items():
        _say(f"{source:20}{script.meaning}", markup=False)
    listening = listening_socket(port)
    _say(f"http://127.0.0.1:{listening.getsockname()[1]}", markup=False)
    make_server(provider).run([listening])


@cli.command()
def dev(port: Annotated[int, typer.Option(help="Port to listen on", min=0, max=65_535)] = 8000) -> None:
    """Serve with demo data and a development admin: SQLite and memory, or what DB__URL and CACHE__URL say."""
    demo.use_development_profile()
    with demo.payments_provided(port) as with_provider:
        _serve_demo(port, with_provider=with_provider)


def _serve_demo(port: int, *, with_provider: bool) -> None:
    settings = _settings(http={"port": port})
    _refuse_taken_port(settings.http.host, port)
    migrations.upgrade()
    password = demo.new_password()
    try:
        _create_admin(demo.ADMIN_EMAIL, password)
    except BusinessException:
        password = "(shown when the account was made; `python -m src create-admin` makes another)"  # noqa: S105 - a hint in its place
    _run(demo.fill)
    url = f"http://{settings.http.host}:{port}"
    _say(
        f"\n  [bold]{settings.app.name}[/bold]  {url}\n"
        f"  API docs    {url}/docs\n"
        f"  Admin       {demo.ADMIN_EMAIL}\n"
        f"  Password    {password}\n"
        + (
            "  Payments    by a provider that runs beside it: source tok_approve, tok_decline, …\n"
            if with_provider
            else ""
        )
    )
    _serve(settings)

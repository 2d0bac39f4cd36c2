"""The command line as an operator types it."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from src.cli.payment_provider import SCRIPTS, PaymentProvider, served_beside
from src.shared.signatures import make_secret
from tests.support.ports import reserved_port
from tests.support.postgres import Kind, drop_database, fresh_database
from tests.support.server import Server, child_environment, run_command, running_server

PASSWORD = "plum-lantern-quarry-81"


@pytest.fixture
def url(database_kind: Kind) -> Iterator[str]:
    url = fresh_database(database_kind)
    yield url
    drop_database(url)


@contextmanager
def development(cwd: Path, port: int) -> Iterator[tuple[str, str]]:
    """`make run`, without its set-up: (base URL, what it has printed so far)."""
    with subprocess.Popen(
        [sys.executable, "-m", "src", "dev", "--port", str(port)],
        cwd=cwd,
        env=child_environment({"APP__ENV": "development"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "running on" in line:
                break
        try:
            yield f"http://127.0.0.1:{port}", printed
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(25) == 0, printed


def log_in(url: str, password: str) -> httpx2.Response:
    return httpx2.post(
        f"{url}/api/v1/auth/login", json={"email": "admin@example.com", "password": password}, verify=False
    )


def test_the_development_server_makes_its_world_once_and_keeps_it(tmp_path: Path) -> None:
    with reserved_port() as port, development(tmp_path, port) as (url, printed):
        password = re.findall(r"Password\s+(\S+)", printed)[0]
        answer = log_in(url, password)
        goods = httpx2.get(f"{url}/api/v1/products", verify=False).json()["data"]["total"]
        home = httpx2.get(url, follow_redirects=True, verify=False)
    assert answer.status_code == 200, answer.text
    assert goods == 5
    assert home.status_code == 200
    assert "swagger" in home.text

    with reserved_port() as port, development(tmp_path, port) as (url, printed):
        again = log_in(url, password)
        token = answer.json()["data"]["access_token"]
        profile = httpx2.get(f"{url}/api/v1/profile", headers={"Authorization": f"Bearer {token}"}, verify=False)
    assert password not in printed
    assert again.status_code == 200
    assert profile.status_code == 200  # signed before the restart


def test_in_development_an_order_is_paid_at_once(tmp_path: Path) -> None:
    with reserved_port() as port, development(tmp_path, port) as (url, printed):
        token = log_in(url, re.findall(r"Password\s+(\S+)", printed)[0]).json()["data"]["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}
        goods = httpx2.get(f"{url}/api/v1/products", params={"q": "rope"}, verify=False).json()["data"]["items"]
        letter = {"items": [{"product_id": goods[0]["id"], "quantity": 1}]}
        order = httpx2.post(f"{url}/api/v1/orders", json=letter, headers=headers, verify=False).json()["data"]
        path = f"{url}/api/v1/orders/{order['id']}"
        paid = httpx2.post(f"{path}/payments", json={"source": "tok_approve"}, headers=headers, verify=False)
        status = httpx2.get(path, headers=headers, verify=False).json()["data"]["status"]

    assert (paid.status_code, status) == (201, "paid"), paid.text


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"APP__ENV": "production"}, "APP__ENV"),
        ({}, "PAYMENTS__API_KEY"),
        ({"PAYMENTS__API_KEY": "key"}, "PAYMENTS__CALLBACK_SECRETS"),
    ],
)
def test_a_provider_for_development_says_what_it_lacks(tmp_path: Path, env: dict[str, str], named: str) -> None:
    refused = run_command("payment-provider", "--port", "0", env=env, cwd=tmp_path)

    assert (refused.returncode, named in refused.stderr) == (2, True), refused.stderr


def test_a_provider_for_development_runs_by_itself(tmp_path: Path) -> None:
    env = {"PAYMENTS__API_KEY": "key", "PAYMENTS__CALLBACK_SECRETS": make_secret()}
    with subprocess.Popen(
        [sys.executable, "-m", "src", "payment-provider", "--port", "0"],
        cwd=tmp_path,
        env=child_environment(env),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            told = [process.stdout.readline().strip() for _ in range(len(SCRIPTS) + 1)]
            answer = httpx2.get(f"{told[-1]}/charges/none", headers={"Authorization": "Bearer key"}, verify=False)
        finally:
            process.send_signal(signal.SIGTERM)

    assert [line.split()[0] for line in told[:-1]] == list(SCRIPTS)
    assert answer.status_code == 404


def test_a_provider_that_ran_beside_is_gone_afterwards() -> None:
    """Whatever thread it had would be there yet when the interpreter is taken down, and crash it."""
    before = set(threading.enumerate())
    with served_beside(PaymentProvider("key", make_secret(), "http://127.0.0.1:9/")) as url:
        answer = httpx2.get(f"{url}/charges/none", headers={"Authorization": "Bearer key"}, verify=False)
        beside = set(threading.enumerate()) - before

    assert answer.status_code == 404
    assert beside
    assert not [thread for thread in beside if thread.is_alive()]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url, verify=False)


def test_a_taken_port_is_named_before_anything_is_made(tmp_path: Path, server: Server) -> None:
    refused = run_command("dev", "--port", str(server.port), env={}, cwd=tmp_path)

    assert refused.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{server.port}" in refused.stderr
    assert not (tmp_path / "var/undercroft.db").exists()


@pytest.mark.parametrize(
    ("email", "password", "said"),
    [
        ("nobody", PASSWORD, "email: Not a valid e-mail address"),
        ("root@example.com", "short", "password: "),
        ("root@example.com", "password1234", "easy to guess (WEAK_PASSWORD)"),
        ("root@example.com", "", "password: "),
    ],
)
def test_an_admin_that_cannot_be_is_refused_with_a_sentence(
    url: str, tmp_path: Path, email: str, password: str, said: str
) -> None:
    refused = run_command("create-admin", "--email", email, env={"DB__URL": url}, cwd=tmp_path, stdin=f"{password}\n")

    assert refused.returncode == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_admin_is_created_once(url: str, tmp_path: Path) -> None:
    first, second = (
        run_command(
            "create-admin", "--email", "root@example.com", env={"DB__URL": url}, cwd=tmp_path, stdin=f"{PASSWORD}\n"
        )
        for _ in range(2)
    )

    assert (first.returncode, second.returncode) == (0, 1)
    assert "EMAIL_TAKEN" in second.stderr


def test_a_database_that_is_away_is_a_sentence_too(tmp_path: Path) -> None:
    with reserved_port() as port:
        env = {"DB__URL": f"postgresql://nobody@127.0.0.1:{port}/nothing"}
        refused = run_command("migrate", env=env, cwd=tmp_path)

    assert refused.returncode == 1
    assert "see DB__URL" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_two_workers_serve_one_database(valkey_url: str) -> None:
    url = fresh_database("postgres")
    try:
        with running_server({"DB__URL": url, "CACHE__URL": valkey_url}, workers=2) as server:
            answers = [httpx2.get(f"{server.url}/health/ready", verify=False).status_code for _ in range(20)]
    finally:
        drop_database(url)

    assert answers == [200] * 20


def test_roles_and_access_are_taken_away(url: str, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, env={"DB__URL": url}, cwd=tmp_path, stdin=f"{PASSWORD}\n")

    for email in ("one@example.com", "two@example.com"):
        assert command("create-admin", "--email", email).returncode == 0

    demoted = command("set-roles", "--email", "one@example.com", "--role", "user")
    assert (demoted.returncode, demoted.stdout) == (0, "one@example.com has user\n"), demoted.stderr
    again = command("set-roles", "--email", "ONE@example.com", "--role", "user", "--role", "admin")
    assert (again.returncode, again.stdout) == (0, "ONE@example.com has user, admin\n"), again.stderr
    disabled = command("deactivate", "--email", "one@example.com")
    assert (disabled.returncode, disabled.stdout) == (0, "one@example.com is disabled\n"), disabled.stderr

    for refused, code in (
        (command("set-roles", "--email", "two@example.com"), "LAST_ADMIN"),
        (command("deactivate", "--email", "two@example.com"), "LAST_ADMIN"),
        (command("set-roles", "--email", "two@example.com", "--role", "nothing"), "ROLE_NOT_FOUND"),
        (command("deactivate", "--email", "nobody@example.com"), "USER_NOT_FOUND"),
    ):
        assert refused.returncode == 1
        assert f"({code})" in refused.stderr
        assert "Traceback" not in refused.stderr

"""The page of the API docs: complete by itself, under a policy that lets nothing in from elsewhere."""

from collections.abc import Iterator
from html.parser import HTMLParser
from secrets import token_urlsafe
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from tests.conftest import PASSWORD
from tests.support.server import Server, running_server

PREFIX = "/shop"


class Page(HTMLParser):
    """What a page loads, and what a strict policy would refuse in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.attributes: set[str] = set()
        self.inline: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.attributes |= {name for name, _ in attrs}
        self.files += [value for name, value in attrs if name in ("src", "href") and value is not None]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.inline.append(data)


@pytest.fixture(scope="module")
def prefixed(server_env: dict[str, str]) -> Iterator[Server]:
    """The service as it stands behind a proxy that strips a prefix."""
    with running_server({**server_env, "HTTP__ROOT_PATH": PREFIX}) as server:
        yield server


@pytest.fixture
def behind_proxy(prefixed: Server) -> Iterator[httpx2.Client]:
    """Calls as the proxy does, which has taken the prefix away."""
    with httpx2.Client(base_url=prefixed.url, verify=False) as client:
        yield client


# What stands on the page has nothing to do with the database.
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True, scope="session")


def test_the_page_loads_only_files_of_its_own_and_each_is_there(client: httpx2.Client) -> None:
    page = Page(client.get("/docs").raise_for_status().text)

    assert page.files
    for file in page.files:
        assert file.startswith("/docs/assets/")
        answer = client.get(file)
        assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")


def test_the_page_has_nothing_inline_that_its_policy_would_have_to_allow(client: httpx2.Client) -> None:
    answer = client.get("/docs")
    page = Page(answer.text)

    assert page.inline == []
    assert not any(name == "style" or name.startswith("on") for name in page.attributes)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not any(word in policy for word in ("unsafe", "http", "*"))


def test_the_document_stands_where_the_page_says(client: httpx2.Client) -> None:
    page = client.get("/docs")

    document = client.get("/openapi.json")

    assert 'data-openapi-url="/openapi.json"' in page.text
    assert document.headers["Content-Type"] == "application/json"
    assert document.json()["openapi"].startswith("3.1")


def test_below_a_prefix_the_page_and_its_files_are_found(behind_proxy: httpx2.Client) -> None:
    page = behind_proxy.get("/docs").raise_for_status()

    assert f'data-openapi-url="{PREFIX}/openapi.json"' in page.text
    files = Page(page.text).files
    assert files
    for file in files:
        assert file.startswith(f"{PREFIX}/docs/assets/")
        assert behind_proxy.get(file.removeprefix(PREFIX)).status_code == 200


def test_below_a_prefix_authorize_and_try_it_out_call_through_the_proxy(
    behind_proxy: httpx2.Client, admin_email: str
) -> None:
    document = behind_proxy.get("/openapi.json", timeout=120).raise_for_status().json()

    (server,) = document["servers"]
    assert server["url"] == PREFIX
    (scheme,) = document["components"]["securitySchemes"].values()
    # Swagger UI takes it as relative to the server.
    token_path = urlsplit(urljoin(f"http://proxy.example{PREFIX}/", scheme["flows"]["password"]["tokenUrl"])).path
    assert token_path.startswith(f"{PREFIX}/")
    letter = {"username": admin_email, "password": PASSWORD}
    answer = behind_proxy.post(token_path.removeprefix(PREFIX), data=letter).raise_for_status()
    assert answer.json()["token_type"] == "bearer"


def test_a_proxy_that_does_not_strip_finds_everything_too(behind_proxy: httpx2.Client) -> None:
    for path in ("/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/health/live"):
        assert behind_proxy.get(f"{PREFIX}{path}").status_code == 200


def test_production_shows_neither_page_nor_document(server_env: dict[str, str]) -> None:
    production = {
        "APP__ENV": "production",
        "AUTH__SECRET": token_urlsafe(48),
        "AUTH__PROVIDERS": "",  # those of the tests speak plain HTTP
        "PAYMENTS__URL": "",  # as this one does
        "HTTP__ALLOWED_HOSTS": "127.0.0.1",
    }

    with running_server({**server_env, **production}) as server:
        statuses = [
            httpx2.get(f"{server.url}{path}", verify=False).status_code
            for path in ("/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/redoc")
        ]

    assert statuses == [404] * 4

"""What a mail looks like, and the ways that it can take."""

from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from functools import partial
from pathlib import Path

import pytest
from jinja2 import TemplateError

from src import config
from src.config import ConfigurationError, MailSettings, Settings, load_settings
from src.mail import rendering
from tests.support.mail import Mailbox, running_mail_server
from tests.support.service import Service, own_place
from tests.support.waiting import eventually

pytestmark = pytest.mark.long

TEMPLATES = sorted({path.stem for path in rendering.TEMPLATES.glob("*.txt")})
VALUES = {"token": "the-code", "minutes": "60", "hours": "72", "last_letters": "wxyz"} | {
    "provider": "Acme",
    "number": "AB12C-DE34F",
    "status": "placed",
    "lines": "2 x Lamp (LAMP-1): 69.80 EUR",
    "total": "69.80 EUR",
    "host": "receiver.example",
    "reason": "failing",
}


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with running_mail_server() as box:
        yield box


async def said(service: Service, text: str) -> bool:
    return text in service.server.output()


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_mail_says_the_same_in_text_and_in_html(template: str) -> None:
    content = rendering.render(template, VALUES)

    assert content.subject
    assert "\n" not in content.subject
    assert "the-code" not in content.subject  # subjects are shown on locked screens
    assert ("the-code" in content.text) == ("the-code" in content.html)
    assert "{{" not in content.text + content.html
    assert "http" not in content.text + content.html  # no link that somebody could bend, and no code in one


def test_what_is_written_into_html_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(mail=MailSettings(app_url='https://example.com/"><script>'))
    monkeypatch.setattr(config, "_current", settings)

    content = rendering.render("reset_password", VALUES | {"token": "<b>&"})

    assert "<b>&" in content.text
    assert "<b>&" not in content.html
    assert "<script>" not in content.html


def test_a_value_cannot_start_a_header_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Settings.model_validate({"app": {"name": "Under\r\nBcc: everybody@example.com"}})
    monkeypatch.setattr(config, "_current", named)

    assert rendering.render("reset_password", VALUES).subject.count("\n") == 0


def test_what_a_template_lacks_is_an_error_where_it_is_written() -> None:
    with pytest.raises(TemplateError):
        rendering.render("reset_password", {})
    with pytest.raises(TemplateError):
        rendering.render("no_such_mail", {})


def test_a_mail_has_the_headers_that_it_needs(box: Mailbox) -> None:
    sender = "Undercroft <no-reply@example.org>"
    with own_place("sqlite", MAIL__URL=box.url, MAIL__SENDER=sender) as place, place.service() as service:
        email = service.register()
        mail = box.wait_for(email)

    message = mail.message
    assert (message["From"], message["To"]) == ("Undercroft <no-reply@example.org>", email)
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Date"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    assert mail.code in mail.html


@pytest.mark.parametrize(
    ("address", "received"),
    [("bücher@example.com", "bücher@example.com"), ("info@bücher.example", "info@xn--bcher-kva.example")],
)
def test_letters_beyond_ascii_arrive(box: Mailbox, address: str, received: str) -> None:
    with own_place("sqlite", MAIL__URL=box.url) as place, place.service() as service:
        service.register(address)

        assert box.wait_for(received).code


async def test_a_password_is_not_sent_over_a_line_that_others_read(box: Mailbox) -> None:
    """Whoever asks for TLS gets it, or nothing is sent."""
    url = box.url.replace("smtp://", "smtp://user:password@") + "?tls=required"
    with own_place("sqlite", MAIL__URL=url, OUTBOX__MAX_ATTEMPTS="1") as place, place.service() as service:
        service.register()

        await eventually(partial(said, service, "given up"))

    assert box.arrived == []


async def test_without_a_mail_server_mails_lie_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mails"
    with own_place("sqlite", MAIL__URL=f"file:{folder}") as place, place.service() as service:
        email = service.register()
        service.log_in(email)

        await eventually(partial(said, service, "Mail written"))
        output = service.server.output()

    (file,) = folder.glob("*.eml")
    assert str(file) in output
    assert file.stat().st_mode & 0o077 == 0
    message = message_from_bytes(file.read_bytes(), policy=default)
    assert message["To"] == email
    assert email not in output


@pytest.mark.parametrize(
    "url", ["http://example.com", "smtp://", "smtp://h?tls=perhaps", "file://host/x", "file:", "h:25", ""]
)
def test_a_place_that_is_none_is_told_at_start(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MAIL__URL", url)

    with pytest.raises(ConfigurationError, match="MAIL__URL"):
        load_settings()

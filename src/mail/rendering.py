"""What a mail says: Jinja2 templates, a text and an HTML form of each."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from src.config import get_settings

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Content:
    subject: str
    text: str
    html: str


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, values: dict[str, str]) -> Content:
    """`<template>.txt`, whose first line is the subject, and `<template>.html`.

    Raises:
        jinja2.TemplateError: when a template or a value of it is not there.
    """
    settings = get_settings()
    known = {"service": settings.app.name, "app_url": settings.mail.app_url, **values}
    subject, _, text = _environment().get_template(f"{template}.txt").render(known).partition("\n")
    # One line, whatever was in a value: a second one would be a header of its own.
    subject = re.sub(r"\s+", " ", subject).strip()
    return Content(subject, text.strip() + "\n", _environment().get_template(f"{template}.html").render(known))

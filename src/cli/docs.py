"""The pages that the code writes about itself: the catalogue of error codes, and an example of all settings."""

import json
from enum import Enum
from pathlib import Path

from pydantic import SecretStr

from src.config import all_settings, setting_name
from src.shared.errors import ErrorCode, explain, http_status

_PROJECT = Path(__file__).parents[2]
_PUBLISHED = Path("docs/error-codes.json")
_COMMAND = "`python -m src docs` writes this page"


def write_pages(project: Path = _PROJECT) -> list[Path]:
    """The files, as they lie in the project."""
    for path, text in pages(project).items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text, encoding="utf-8")
    return list(pages(project))


def pages(project: Path = _PROJECT) -> dict[Path, str]:
    return {
        Path("docs/errors.md"): error_catalogue(),
        _PUBLISHED: published_codes(project / _PUBLISHED),
        Path(".env.example"): env_example(),
    }


def error_catalogue() -> str:
    """A table for people who write clients."""
    lines = [
        "# Error codes",
        "",
        "A refusal is `{code, msg, data}`. Branch on `code`, never on `msg`: codes are published and never change their",
        "meaning; the words may. Where no code of ours fits (an unknown path, a wrong method), `code` is the HTTP status.",
        f"{_COMMAND} from `src/shared/errors.py`.",
        "",
        "| code | name | HTTP | meaning | what to do |",
        "|---:|---|---:|---|---|",
    ]
    for code in sorted(ErrorCode):
        meaning, advice = (_cell(text) for text in explain(code))
        lines.append(f"| {code.value} | `{code.name}` | {http_status(code)} | {meaning} | {advice} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def published_codes(published: Path) -> str:
    """Code to name, for programs. What is published stays as it is: only what is new is added."""
    earlier: dict[str, str] = json.loads(published.read_text(encoding="utf-8")) if published.exists() else {}
    codes = {str(code.value): code.name for code in ErrorCode} | earlier
    return json.dumps(dict(sorted(codes.items())), indent=2) + "\n"


def env_example() -> str:
    """Each setting with what it means and its default; secrets have none."""
    lines = [
        "# All settings, each with its default. Copy this file to .env and take the # from what you change.",
        f"# {_COMMAND} from src/config.py.",
    ]
    heading = ""
    for (section, name), field in all_settings().items():
        if section != heading:
            heading = section
            lines += ["", f"## {section}"]
        lines += ["", f"# {field.description}", f"#{setting_name(section, name)}={_env_value(field.default)}"]
    return "\n".join(lines) + "\n"


def _env_value(default: object) -> str:
    match default:
        case None | SecretStr():
            return ""
        case bool():
            return str(default).lower()
        case Enum():
            return str(default.value)
        case tuple():
            return ",".join(str(part) for part in default)
        case _:
            return str(default)

"""The page about the ASVS cites tests that are there, shows something for each requirement, and counts rightly."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.support.server import PROJECT

PAGE = Path("docs/asvs.md")
TOLD = ("written down", "operator", "exception", "not applicable")

ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| ([12]) \| ([^|]+) \|([^|]*)\|$", re.MULTILINE)
ANY_ROW = re.compile(r"^\| \d+\.\d+.*$", re.MULTILINE)
LEFT_OUT = re.compile(r"^- V[\d.]+ [^(:]+ \((\d+)\): \S", re.MULTILINE)
FIGURE = re.compile(r"^\| ([a-z][a-z0-9 ]+) \| (\d+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ONLY_TESTS = re.compile(rf"{TEST.pattern}(?: {TEST.pattern})*")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def missing_tests(page: str, house: Path) -> list[str]:
    return [f"{path}::{name} is no test" for path, name in TEST.findall(page) if name not in functions_in(house / path)]


@cache
def functions_in(module: Path) -> set[str]:
    if not module.is_file():
        return set()
    body = ast.parse(module.read_text(encoding="utf-8")).body
    functions = (node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in functions if name.startswith("test_")}


def rows_that_show_nothing(page: str) -> list[str]:
    rows = [row.group() for row in ROW.finditer(page)]
    broken = [f"{line} is no row" for line in ANY_ROW.findall(page) if line not in rows]
    times = Counter(name for name, _ in found(page))
    twice = [f"{name} comes {times[name]} times" for name in times if times[name] > 1]
    return broken + twice + [f"{name} shows nothing" for name, shown_by in found(page) if kind_of(shown_by) is None]


def found(page: str) -> list[tuple[str, str]]:
    """(id, what it is shown by) of each requirement."""
    return [(name, shown_by.strip()) for name, _, _, shown_by in ROW.findall(page)]


def kind_of(shown_by: str) -> str | None:
    if ONLY_TESTS.fullmatch(shown_by):
        return "shown by a test"
    kind, _, reason = shown_by.partition(": ")
    return kind if kind in TOLD and reason else None


def figures_that_are_wrong(page: str) -> list[str]:
    said = {name: int(number) for name, number in FIGURE.findall(page)}
    kinds = Counter(kind_of(shown_by) for _, shown_by in found(page))
    counted = {kind: kinds[kind] for kind in ("shown by a test", *TOLD)}
    counted["left out by chapter"] = sum(int(number) for number in LEFT_OUT.findall(page))
    wrong = [f"{name} is {number}" for name, number in counted.items() if said.get(name) != number]
    levels = said.get("of level 1", 0) + said.get("of level 2", 0)
    return wrong + ([f"the levels together are {sum(counted.values())}"] if levels != sum(counted.values()) else [])


def links_that_lead_nowhere(page: str, folder: Path) -> list[str]:
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    return [
        f"{path}#{place} is nowhere"
        for path, place in LINK.findall(page)
        if not path.startswith("https:") and not (place in headings if not path else (folder / path).exists())
    ]


def faults_of(page: str, house: Path = PROJECT) -> list[str]:
    return [
        *missing_tests(page, house),
        *rows_that_show_nothing(page),
        *figures_that_are_wrong(page),
        *links_that_lead_nowhere(page, house / PAGE.parent),
    ]


def test_the_page_is_right() -> None:
    assert faults_of((PROJECT / PAGE).read_text(encoding="utf-8")) == []


SAMPLE = """
| of level 1 | 3 |
| of level 2 | 4 |
| shown by a test | 2 |
| written down | 1 |
| operator | 1 |
| exception | 1 |
| not applicable | 0 |
| left out by chapter | 2 |

- V9 Pigeons (2): none are kept.

| 1.1.1 | 1 | One | `tests/architecture/test_asvs.py::test_the_page_is_right` |
| 1.1.2 | 1 | Two | `tests/architecture/test_asvs.py::test_the_page_is_right` `tests/cli/test_docs.py::test_the_example_is_the_defaults` |
| 1.1.3 | 2 | Three | written down: [here](#the-place) |
| 1.2.1 | 2 | Four | operator: at the proxy |
| 1.2.10 | 2 | Five | exception: not yet |

### The place
"""


def test_a_page_that_is_right_has_no_faults() -> None:
    assert faults_of(SAMPLE) == []


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ("::test_the_example_is_the_defaults", "::test_gone", "tests/cli/test_docs.py::test_gone is no test"),
        ("::test_the_example_is_the_defaults", "::env_example", "tests/cli/test_docs.py::env_example is no test"),
        ("tests/cli/test_docs.py", "tests/cli/test_gone.py", "is no test"),
        ("::test_the_example_is_the_defaults", "", "1.1.2 shows nothing"),
        ("operator: at the proxy", "", "1.2.1 shows nothing"),
        ("operator: at the proxy", "operator: ", "1.2.1 shows nothing"),
        ("operator: at the proxy", "by hope: it will be", "1.2.1 shows nothing"),
        ("| 2 | Four |", "| 3 | Four |", "is no row"),
        ("| 2 | Four |", "| Four |", "is no row"),
        ("1.2.10", "1.2.1", "1.2.1 comes 2 times"),
        ("| exception | 1 |", "| exception | 2 |", "exception is 1"),
        ("| exception | 1 |\n", "", "exception is 1"),
        ("Pigeons (2)", "Pigeons (3)", "left out by chapter is 3"),
        ("| of level 2 | 4 |", "| of level 2 | 5 |", "the levels together are 7"),
        ("(#the-place)", "(#elsewhere)", "#elsewhere is nowhere"),
        ("(#the-place)", "(gone.md)", "gone.md# is nowhere"),
    ],
)
def test_a_fault_is_named(was: str, becomes: str, named: str) -> None:
    assert SAMPLE.count(was) == 1

    assert [fault for fault in faults_of(SAMPLE.replace(was, becomes)) if named in fault]

"""The patterns of the document and the patterns that run here are the same, line by line."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import PROJECT

DOCUMENT = PROJECT / "docs" / "patterns.md"
APPS = Path(__file__).parent / "apps"
# Beside the project where it grows: the user's own copy, which wins.
ORIGINAL = PROJECT.parent / "shared" / "patterns.md"


def chapters(document: str) -> Iterator[tuple[str, str]]:
    """Each code block with the chapter that it is in."""
    for chapter in re.split(r"^## ", document, flags=re.MULTILINE)[1:]:
        heading = chapter.partition("\n")[0].lower()
        for block in re.findall(r"```python\n(.*?)```", chapter, re.DOTALL):
            yield re.sub(r"\W", "_", heading), block


def lines(code: str) -> list[str]:
    return [" ".join(line.split()) for line in code.splitlines() if line.strip()]


def is_typed_in(code: str, block: str) -> bool:
    """Whether all lines of the block are in the code, in their order; other lines may stand between them."""
    rest = iter(lines(code))
    return all(line in rest for line in lines(block))


SNIPPETS = list(chapters(DOCUMENT.read_text()))


@pytest.mark.parametrize(
    ("chapter", "block"), SNIPPETS, ids=[f"{n}_{chapter}" for n, (chapter, _) in enumerate(SNIPPETS)]
)
def test_each_snippet_is_typed_in_the_module_of_its_chapter(chapter: str, block: str) -> None:
    places = [APPS / f"{chapter}.py"]
    if "class ErrorCode" in block:
        places = [PROJECT / "src" / "shared" / "errors.py"]  # the document names the file
    assert any(is_typed_in(place.read_text(), block) for place in places)


def test_the_document_has_all_its_snippets() -> None:
    assert len(SNIPPETS) == 10
    assert len({chapter for chapter, _ in SNIPPETS}) == 9


def test_a_line_that_differs_is_noticed() -> None:
    for chapter, block in SNIPPETS:
        wanted = lines(block)
        for changed in range(len(wanted)):
            typed = "\n".join([*wanted[:changed], f"{wanted[changed]}x", *wanted[changed + 1 :]])
            assert not is_typed_in(typed, block), f"{chapter}: {wanted[changed]}"


def test_pagination_with_sqlmodel_differs_in_the_import_only() -> None:
    (block,) = [block for chapter, block in SNIPPETS if chapter == "pagination"]
    imports, route = block.split("\n\n")
    typed = (APPS / "pagination_sqlmodel.py").read_text()
    assert "from sqlmodel import select" in lines(typed)
    assert is_typed_in(typed, route)
    assert lines(imports)[-1] in lines(typed)


@pytest.mark.skipif(not ORIGINAL.exists(), reason="the user's own copy lies beside the project only where it grows")
def test_the_document_is_the_users_own_word_for_word() -> None:
    assert DOCUMENT.read_bytes() == ORIGINAL.read_bytes()

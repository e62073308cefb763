"""docs/guide: each page has the program that the tests run, and the index has each page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guide"
INDEX = (GUIDE / "README.md").read_text()
PAGES = sorted(path.stem for path in GUIDE.glob("[a-z]*.md"))
PROGRAMS = sorted(path.stem for path in (ROOT / "examples" / "guide").glob("[a-z]*.py"))


def test_guide_has_a_page_for_each_program_and_the_index_has_all() -> None:
    assert PAGES == PROGRAMS
    assert sorted(re.findall(r"^\| \[\w+\]\((\w+)\.md\) \|", INDEX, re.MULTILINE)) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_guide_code_is_that_of_the_program(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (GUIDE / f"{page}.md").read_text(), re.DOTALL)
    assert blocks == [(ROOT / "examples" / "guide" / f"{page}.py").read_text()]


@pytest.mark.parametrize("page", [*PAGES, "README"])
def test_guide_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (GUIDE / f"{page}.md").read_text()):
        assert (GUIDE / link).exists(), link

import json
from pathlib import Path

import pytest

from examples.census.analysis import Figures, LongFunction, analyse

SOURCE = b'''\
"""What it is.

More.
"""
import os, sys
from a import b

# A comment.
class Thing:
    """One."""

    def short(self): return 1  # not a line of comment

    async def long(self, items):
        text = """
# no comment, and no docstring
"""
        if items and text or self:
            return [x for x in items if x]
        return (
            # a comment inside
            1 if text else 2
        )
'''


def test_sample_gives_its_figures() -> None:
    figures = analyse("a.py", SOURCE).figures
    assert figures == Figures(
        files=1,
        lines=23,
        code=13,
        docstring=4,
        comment=2,
        blank=4,
        functions=2,
        classes=1,
        imports=2,
        branches=5,
    )


def test_sample_gives_its_longest_function() -> None:
    assert analyse("a.py", SOURCE).longest == LongFunction(10, "a.py", "long")


def test_functions_of_one_length_give_the_first_by_name() -> None:
    census = analyse("a.py", b"def b(): pass\ndef a(): pass\n")
    assert census.longest == LongFunction(1, "a.py", "a")


def test_empty_file_counts_as_a_file() -> None:
    census = analyse("a.py", b"")
    assert (census.figures, census.longest, census.problem) == (Figures(files=1), None, None)


@pytest.mark.parametrize("package", sorted(Path(json.__file__).parent.glob("*.py")), ids=str)
def test_lines_of_a_real_file_are_each_of_one_kind(package: Path) -> None:
    figures = analyse(package.name, package.read_bytes()).figures
    kinds = figures.code + figures.docstring + figures.comment + figures.blank
    assert kinds == figures.lines == len(package.read_text().splitlines())


def test_form_feed_ends_no_line() -> None:
    figures = analyse("a.py", b"a = 1\n\x0c\nb = 2\x0c\n").figures
    assert (figures.lines, figures.code, figures.blank) == (3, 2, 1)


def test_declared_encoding_is_kept_to() -> None:
    census = analyse("a.py", "# -*- coding: latin-1 -*-\nx = 'ä'\n".encode("latin-1"))
    assert (census.problem, census.figures.code) == (None, 1)


@pytest.mark.parametrize(
    "source, problem",
    [
        (b"a = 1\ndef f(:\n", "SyntaxError: invalid syntax in line 2"),
        (b"x = '\xff'\n", "SyntaxError: "),
        (b"# coding: nothing\n", "SyntaxError: unknown encoding"),
        (b"a = 1\n\x00\n", ""),
        (b"-" * 100_000 + b"1", ""),
    ],
)
def test_file_that_does_not_parse_counts_its_lines_alone(source: bytes, problem: str) -> None:
    census = analyse("a.py", source)
    assert census.problem is not None
    assert census.problem.startswith(problem)
    assert census.figures == Figures(files=1, lines=len(source.splitlines()))


def test_figures_add_up_by_name() -> None:
    total = Figures(files=1, lines=3) + Figures(files=1, lines=4, branches=2)
    assert total == Figures(files=2, lines=7, branches=2)


def test_analysis_says_that_it_is_alive() -> None:
    calls: list[None] = []
    analyse("a.py", SOURCE, lambda: calls.append(None))
    assert len(calls) == 2

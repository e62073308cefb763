from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aetheris_client import DataConverter
from examples.census.analysis import Figures, FileCensus, LongFunction
from examples.census.tally import (
    LONGEST_KEPT,
    PROBLEMS_KEPT,
    TOP_LEVEL,
    Tally,
    largest_packages,
    tally,
)


def census(number: int) -> FileCensus:
    path = f"p{number % 3}/m{number}.py"
    figures = Figures(files=1, lines=number, functions=number % 5)
    longest = LongFunction(number % 4, path, "f") if number % 2 else None
    problem = "SyntaxError" if number % 7 == 0 else None
    return FileCensus(path, figures, longest, problem)


FILES = [census(number) for number in range(160)]


@given(st.permutations(FILES))
def test_tally_in_any_order_is_the_same(files: list[FileCensus]) -> None:
    assert tally(files) == tally(FILES)


def test_tally_of_many_files_stays_small() -> None:
    result = tally(FILES)
    assert (len(result.longest), len(result.problems)) == (LONGEST_KEPT, PROBLEMS_KEPT)
    assert (result.total.files, result.problem_count) == (160, 23)


def test_tally_sums_by_package() -> None:
    files = [census(1), census(4), replace(census(2), path="top.py")]
    result = tally(files)
    assert {name: figures.lines for name, figures in result.packages.items()} == {
        "p1": 5,
        TOP_LEVEL: 2,
    }


def test_tally_passes_through_a_payload() -> None:
    converter = DataConverter.default()
    original = tally(FILES)
    [copy] = converter.from_payloads(converter.to_payloads([original]), [Tally])
    assert copy == original


def test_packages_beyond_the_count_become_one() -> None:
    packages = {
        name: Figures(lines=lines) for name, lines in zip("abcd", (1, 4, 3, 2), strict=True)
    }
    ranked = largest_packages(packages, 3)
    assert [(name, figures.lines) for name, figures in ranked] == [
        ("b", 4),
        ("c", 3),
        ("(2 others)", 3),
    ]


def test_packages_that_fit_are_all_named() -> None:
    packages = {"a": Figures(lines=1), "b": Figures(lines=1)}
    assert [name for name, _ in largest_packages(packages, 2)] == ["a", "b"]

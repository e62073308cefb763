"""The sum of many files: it stays small, and does not depend on the order in which they come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from examples.census.analysis import Figures, FileCensus, LongFunction

TOP_LEVEL: Final = "(top level)"
LONGEST_KEPT: Final = 10
PROBLEMS_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that does not parse."""

    path: str
    reason: str


@dataclass(slots=True)
class Tally:
    """The files so far.

    Attributes:
        packages: By the first part of the path.
        longest: The longest functions, longest first; at most one of each file.
        problems: Files that do not parse, the first ones by path.
        problem_count: How many there are in all.
    """

    total: Figures = field(default_factory=Figures)
    packages: dict[str, Figures] = field(default_factory=dict[str, Figures])
    longest: list[LongFunction] = field(default_factory=list[LongFunction])
    problems: list[Problem] = field(default_factory=list[Problem])
    problem_count: int = 0

    def add(self, file: FileCensus) -> None:
        self.total += file.figures
        package = _package(file.path)
        self.packages[package] = self.packages.get(package, Figures()) + file.figures
        if file.longest is not None:
            self.longest.append(file.longest)
            self.longest.sort(key=lambda found: (-found.lines, found.path))
            del self.longest[LONGEST_KEPT:]
        if file.problem is not None:
            self.problem_count += 1
            self.problems.append(Problem(file.path, file.problem))
            self.problems.sort(key=lambda problem: problem.path)
            del self.problems[PROBLEMS_KEPT:]


def tally(files: Iterable[FileCensus]) -> Tally:
    """All of them."""
    result = Tally()
    for file in files:
        result.add(file)
    return result


def largest_packages(packages: Mapping[str, Figures], count: int) -> list[tuple[str, Figures]]:
    """The largest by lines, largest first; if there are more than `count`, the last stands for all
    the rest.
    """
    ranked = sorted(packages.items(), key=lambda item: (-item[1].lines, item[0]))
    if len(ranked) <= count:
        return ranked
    rest = ranked[count - 1 :]
    total = sum((figures for _, figures in rest), Figures())
    return [*ranked[: count - 1], (f"({len(rest)} others)", total)]


def _package(path: str) -> str:
    first, separator, _ = path.partition("/")
    return first if separator else TOP_LEVEL

"""Where answers are printed: as tables for people, as JSON for programs.

`json` prints one document, which for many items is an array; `jsonl` prints one line per item. Both
print items as they come, so that following a history works with either.
"""

import sys
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.text import Text

from aetheris_client.admin.plain import to_json

# Rich takes 80 columns where there is no terminal, and cuts ids; a pipe has no edge.
_PIPE_WIDTH = 240


class OutputFormat(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class Output:
    """Standard output in one format, and standard error for what is no answer."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.format = output_format
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        self._console = Console(width=width, highlight=False)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def is_for_people(self) -> bool:
        """Tables and sentences, not JSON."""
        return self.format is OutputFormat.TABLE

    def show(self, value: object, *render: Callable[[], RenderableType]) -> None:
        """Print one answer: the value as JSON, or what the functions make of it for people."""
        if self.is_for_people:
            for make in render:
                self._console.print(make(), soft_wrap=False)
        else:
            print(to_json(value, indent=self.format is OutputFormat.JSON))

    def line(self, text: str | Text) -> None:
        """Print one line for people, as long as it is."""
        self._console.print(text, soft_wrap=True, markup=False)

    def note(self, text: str) -> None:
        """Tell people something about the answer."""
        if self.is_for_people:
            self._errors.print(text, style="dim", markup=False)

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self._errors.print(Text.assemble(("error: ", "bold red"), text))

    def error_detail(self, text: str) -> None:
        """Say more of what went wrong."""
        self._errors.print(Text(f"  {text}"))

    def items(self) -> "ItemWriter":
        """Prints many answers as they come, as JSON."""
        return ItemWriter(self.format is OutputFormat.JSON)


class ItemWriter:
    """An array of items, or a line for each; what was printed is whole also if the command is
    interrupted.
    """

    def __init__(self, is_array: bool) -> None:
        self._is_array = is_array
        self._count = 0

    def __enter__(self) -> Self:
        if self._is_array:
            sys.stdout.write("[")
        return self

    def write(self, item: object) -> None:
        """Print one item, at once."""
        if self._is_array:
            sys.stdout.write("," if self._count else "")
            indented = to_json(item).replace("\n", "\n  ")
            sys.stdout.write(f"\n  {indented}")
        else:
            sys.stdout.write(to_json(item, indent=False) + "\n")
        self._count += 1
        sys.stdout.flush()

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_array:
            sys.stdout.write("\n]\n" if self._count else "]\n")

"""Where answers are printed: as tables for people, as JSON for programs.

`json` prints one document, which for many items is an array; `jsonl` prints one line per item. Both
print items as they come, so that following a history works with either.

Styles are for terminals alone (and never with NO_COLOR); a pipe has no edge, and gets plain text.
"""

import io
import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import TracebackType
from typing import BinaryIO, Self, TextIO

from rich.console import Console
from rich.text import Text

from aetheris_client.admin.layout import Block
from aetheris_client.admin.plain import to_json
from aetheris_client.admin.text import printable, printable_json


class OutputFormat(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class _Console(Console):
    """Prints what it is given: no markup, no emoji codes, no highlighting."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(
            stderr=stderr,
            # None leaves out bold and dim as well.
            color_system=None if os.environ.get("NO_COLOR") else "auto",
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=True,
        )

    def on_broken_pipe(self) -> None:
        """Left to the command, which knows the exit code."""
        raise BrokenPipeError


class Output:
    """Standard output in one format, and standard error for what is no answer."""

    def __init__(self, output_format: OutputFormat) -> None:
        self.format = output_format
        stdout: TextIO | io.TextIOWrapper[BinaryIO] = sys.stdout
        if isinstance(stdout, io.TextIOWrapper):
            # A terminal that has no such character shows its escape.
            stdout.reconfigure(errors="backslashreplace")
        self._console = _Console()
        self._errors = _Console(stderr=True)

    @property
    def is_for_people(self) -> bool:
        """Tables and sentences, not JSON."""
        return self.format is OutputFormat.TABLE

    @property
    def width(self) -> int | None:
        """The columns of the screen; None where there is no edge."""
        return self._console.width if sys.stdout.isatty() else None

    def show(self, value: object, *render: Callable[[], Block]) -> None:
        """Print one answer: the value as JSON, or what the functions make of it for people."""
        if self.is_for_people:
            for make in render:
                self.lines(make().lines(self.width))
        else:
            self.document(value)

    def line(self, text: str | Text) -> None:
        """Print one line for people, as long as it is."""
        self._console.print(text if isinstance(text, Text) else printable(text))

    def lines(self, lines: Iterable[Text]) -> None:
        """Print lines for people."""
        for line in lines:
            self.line(line)

    def document(self, value: object) -> None:
        """Print a value as JSON."""
        _write_json(to_json(value, indent=self.format is not OutputFormat.JSONL) + "\n")

    def note(self, text: str) -> None:
        """Tell people something about the answer."""
        if self.is_for_people:
            self._errors.print(printable(text), style="dim")

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self._errors.print(Text.assemble(("error: ", "bold red"), printable(text)))

    def error_detail(self, text: str) -> None:
        """Say more of what went wrong."""
        self._errors.print(f"  {printable(text)}")

    def discard(self) -> None:
        """Drop what is not printed yet: nobody reads it."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def items(self, before: str = "[", after: str = "]") -> "ItemWriter":
        """Prints many answers as they come, as JSON; in a document, between these."""
        return ItemWriter(self.format is OutputFormat.JSON, before, after)


class ItemWriter:
    """An array of items, or a line for each; what was printed is whole also if the command is
    interrupted.
    """

    def __init__(self, is_array: bool, before: str, after: str) -> None:
        self._is_array = is_array
        self._before = before
        self._after = after
        self._count = 0

    def __enter__(self) -> Self:
        if self._is_array:
            _write_json(self._before)
        return self

    def write(self, item: object) -> None:
        """Print one item, at once."""
        if self._is_array:
            indented = to_json(item).replace("\n", "\n  ")
            _write_json(f"{',' if self._count else ''}\n  {indented}")
        else:
            _write_json(to_json(item, indent=False) + "\n")
        self._count += 1
        sys.stdout.flush()

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nobody reads the end of what is closed already.
        if self._is_array and exception_type is not BrokenPipeError:
            _write_json(("\n" if self._count else "") + self._after + "\n")


def _write_json(document: str) -> None:
    sys.stdout.write(printable_json(document, sys.stdout.encoding))

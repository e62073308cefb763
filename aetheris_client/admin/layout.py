"""How answers stand on the screen: rows, and names with their values. Pure.

Nothing is ever cut, and nothing is broken inside a cell, so that ids can be copied: rows that are
wider than the screen are given in another form, and a value that is wider than the screen goes on
beyond its edge.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final, Protocol

from rich.cells import cell_len
from rich.text import Text

from aetheris_client.admin.text import styled

Cell = str | Text

_GAP: Final = 2
_INDENT: Final = 2


class Block(Protocol):
    """A part of an answer."""

    def lines(self, width: int | None) -> Iterator[Text]:
        """Its lines, on a screen of so many columns; None has no edge."""
        ...


class Sentence:
    """One line of words."""

    def __init__(self, text: str, style: str = "") -> None:
        self._text = styled(text, style)

    def lines(self, width: int | None) -> Iterator[Text]:
        yield self._text


class Fields:
    """Names and values, a line each."""

    def __init__(self, values: Sequence[tuple[str, Cell]]) -> None:
        self._values = values

    def lines(self, width: int | None) -> Iterator[Text]:
        edge = max((cell_len(name) for name, _ in self._values), default=0) + _GAP
        for name, value in self._values:
            yield Text.assemble(_padded(styled(name, "bold"), edge), _shown(value))


class Grid:
    """Rows under headings; where the screen is too narrow for them, each row as Fields."""

    def __init__(self, *columns: str, title: str | None = None) -> None:
        self._columns = columns
        self._title = title
        self._rows: list[list[Text]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add_row(self, *cells: Cell) -> None:
        """Add a row with a cell for each column."""
        self._rows.append([_shown(cell) for cell in cells])

    def lines(self, width: int | None) -> Iterator[Text]:
        if self._title is not None:
            yield styled(self._title, "italic")
        widths = [
            max(cell.cell_len for cell in column)
            for column in zip(self._heading(), *self._rows, strict=True)
        ]
        if width is None or _row_width(widths) <= width:
            yield _row(self._heading(), widths)
            yield from (_row(row, widths) for row in self._rows)
            return
        for index, row in enumerate(self._rows):
            if index:
                yield Text()
            yield from Fields(list(zip(self._columns, row, strict=True))).lines(width)

    def _heading(self) -> list[Text]:
        return [styled(column, "bold") for column in self._columns]


class RowStream:
    """Rows that are printed as they come, before the next ones are known.

    Columns begin with the widths that are usual, and grow. On a screen that is too narrow for them
    a row takes more than one line, broken between cells.
    """

    def __init__(self, columns: Sequence[tuple[str, int]], width: int | None) -> None:
        self._names = [name for name, _ in columns]
        self._widths = [max(usual, cell_len(name)) for name, usual in columns]
        self._limit = width if width is not None and _row_width(self._widths) > width else None

    def heading(self) -> Iterator[Text]:
        """The lines over all rows."""
        return self._lines([styled(name, "bold") for name in self._names])

    def row(self, *cells: Cell) -> Iterator[Text]:
        """The lines of the next row."""
        return self._lines([_shown(cell) for cell in cells])

    def _lines(self, cells: list[Text]) -> Iterator[Text]:
        if self._limit is not None:
            yield from _flowing(cells, self._limit)
            return
        self._widths = [
            max(width, cell.cell_len) for width, cell in zip(self._widths, cells, strict=True)
        ]
        yield _row(cells, self._widths)


def _flowing(cells: Sequence[Text], limit: int) -> Iterator[Text]:
    line = Text.assemble(cells[0])
    for cell in cells[1:]:
        if line.cell_len + _GAP + cell.cell_len > limit:
            yield line
            line = Text.assemble(" " * _INDENT, cell)
        else:
            line.append(" " * _GAP).append_text(cell)
    yield line


def _row(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    """Cells in columns; the last one is not padded, so that no line ends in spaces."""
    line = Text()
    for cell, width in zip_longest(cells, widths[:-1]):
        line.append_text(cell if width is None else _padded(cell, width + _GAP))
    return line


def _padded(text: Text, width: int) -> Text:
    return Text.assemble(text, " " * max(0, width - text.cell_len))


def _row_width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shown(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else styled(cell)

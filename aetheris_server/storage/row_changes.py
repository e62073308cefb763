"""Rows that are written beside the log, in a record's own transaction, and the statements for it.

A table that follows from the log says here, once, how its rows are written: `commit` knows no
table but the log. Nothing is written, bound or asked for a table that a batch has no rows of.
"""

from collections.abc import Callable, Collection, ItemsView, Sequence
from dataclasses import dataclass
from typing import Any, Generic, LiteralString, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class RowStatement(Generic[R]):
    """One way to write rows of one table: any number of them, as one statement.

    Attributes:
        sql: Its parameters are columns, `$1` the first, for `unnest`.
        bind: The columns of some rows, each as an array in binary form (`arrays`).
        key: Of a row that later ones with the same key replace: each must then say all that the
            statement writes. Rows are locked in the order of their keys. None: each is written.
        weigh: The bytes of a row's values that may be large; None for a table that has none.
    """

    sql: LiteralString
    bind: Callable[[Sequence[R]], list[bytes]]
    key: Callable[[R], str] | None = None
    weigh: Callable[[R], int] | None = None

    def columns_of(self, rows: Sequence[R]) -> list[bytes]:
        """The parameters that write some rows, of those with the same key the last."""
        if self.key is not None:
            last_by_key = {self.key(row): row for row in rows}
            rows = [last_by_key[key] for key in sorted(last_by_key)]
        return self.bind(rows)


class RowChanges:
    """Rows to write, by the statements that write them, in the order in which they were added."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[RowStatement[Any], list[Any]] = {}

    def add(self, statement: RowStatement[R], *rows: R) -> None:
        """Have a statement write rows, behind those that it has already."""
        found = self._rows.get(statement)
        if found is None:
            self._rows[statement] = [*rows]
        else:
            found.extend(rows)

    def extend(self, other: "RowChanges") -> None:
        """Add all that others write, behind what is here."""
        for statement, rows in other._rows.items():
            self.add(statement, *rows)

    def of(self, statement: RowStatement[R]) -> Sequence[R]:
        """The rows that a statement writes; empty for none."""
        return self._rows.get(statement, ())

    @property
    def statements(self) -> Collection[RowStatement[Any]]:
        """Those that have rows."""
        return self._rows.keys()

    def items(self) -> ItemsView[RowStatement[Any], list[Any]]:
        """Each statement that has rows, with them."""
        return self._rows.items()

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

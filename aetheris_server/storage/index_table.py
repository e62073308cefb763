"""What is known of a table that follows from the log: how it is written, and how far it may lag."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from aetheris_server.storage.row_changes import RowStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTable:
    """A table that follows from the log. Its rows have a `shard_id` and the `run_id` that they are
    about; its primary key begins with both.

    Attributes:
        name: Of the table.
        statements: What writes it, in the order in which a transaction runs them.
        lags: By column, the condition under which a live row `l` may differ from the row `r` that
            is made again. What it does not name is equal.
        ahead: The condition under which a live row `l` tells of records that the log, by `r`, does
            not have; None where no row does.
        complete: Fills in, in `{made}`, what follows from other rows, in `{live}` or there.
    """

    name: LiteralString
    statements: Sequence[RowStatement[Any]]
    lags: Mapping[str, LiteralString] = field(default_factory=dict[str, LiteralString])
    ahead: LiteralString | None = None
    complete: LiteralString | None = None

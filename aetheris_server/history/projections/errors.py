"""Why a projection could not be made again, or is not what the log says.

RebuildError
├── UnknownProjectionError   there is none of that name
├── ServersRunningError      servers have the shards, and would write what is being made
├── OutOfStepError           rows are not what the log says
└── BrokenRunsError          the rest is made; some runs cannot be read and kept their rows
"""

from collections.abc import Sequence


class RebuildError(Exception):
    """A projection could not be made again as a whole, or is not what the log says."""


class UnknownProjectionError(RebuildError):
    """There is no projection of that name; `known` are those that there are."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no projection is named {name!r}; there are: {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class ServersRunningError(RebuildError):
    """Servers have the shards, or another rebuild has: `addresses` of those that are alive. Nothing
    is half-written: each row is as it was, or what the log says.
    """

    def __init__(self, addresses: Sequence[str], shard_id: int | None = None) -> None:
        who = (
            f"servers at {', '.join(addresses)} are running"
            if addresses
            else "a server or another rebuild began"
        )
        where = f"; it took shard {shard_id}" if shard_id is not None else ""
        super().__init__(
            f"{who}{where}: expected none while a table is made again, since they write it too;"
            " stop them, wait a few seconds until their leases have run out, and repeat"
            " (--check may run beside them)"
        )
        self.addresses = tuple(addresses)
        self.shard_id = shard_id


class OutOfStepError(RebuildError):
    """Rows of a projection are not what the log says, or runs cannot be read."""

    def __init__(self, name: str, row_count: int, broken_count: int) -> None:
        super().__init__(
            f"{name} is out of step with the log: {row_count} rows differ,"
            f" {broken_count} runs cannot be read; without --check, and with the servers stopped,"
            " rebuild makes the rows again"
        )
        self.name = name
        self.row_count = row_count
        self.broken_count = broken_count


class BrokenRunsError(RebuildError):
    """Some runs cannot be read from the log and kept the rows that they had."""

    def __init__(self, name: str, broken_count: int) -> None:
        super().__init__(
            f"{name} is made again, but for {broken_count} runs that cannot be read;"
            " they kept the rows that they had"
        )
        self.name = name
        self.broken_count = broken_count

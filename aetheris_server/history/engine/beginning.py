"""An aggregate that begins with many records at once, folded ahead of the commit that writes them.

A commit never awaits, so what is folded in it holds up all else. This is folded a record at a time,
while nobody can find the aggregate yet; what is left to the commit costs by the record, not by what
is in it.
"""

from dataclasses import dataclass

from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.shard import Shard
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.row_changes import RowChanges


@dataclass(frozen=True, slots=True)
class _Folded:
    seq: int
    first_event_id: int
    event_count: int
    stored: bytes
    hash: bytes


class Beginning:
    """One in the making.

    Attributes:
        aggregate: Made for its first record, and in memory for nobody else.
        changes: The rows beside the log that its records bring; of its own row only what does not
            change with the commit.
    """

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
        self.changes = RowChanges()
        self._folded: list[_Folded] = []

    def take(self, record: log_pb2.LogRecord) -> None:
        """Fold its next record.

        Args:
            record: From its first on.
        """
        aggregate = self.aggregate
        first_event_id = aggregate.next_event_id
        stored = record.SerializeToString()
        aggregate.apply(record, stored)
        aggregate.observe(record)
        self._folded.append(
            _Folded(aggregate.seq, first_event_id, len(record.events), stored, aggregate.hash)
        )
        if aggregate.seq == 1:
            aggregate.add_row(self.changes, owes=False)
        elif aggregate.changes_row():
            aggregate.add_update(self.changes, owes=False)
        aggregate.project(record, self.changes)

    def to_log_rows(self, shard: Shard) -> list[LogRow]:
        """Its records' rows; takes the shard's next numbers."""
        key = self.aggregate.key
        return [
            LogRow(
                shard_id=shard.shard_id,
                shard_seq=shard.take_seq(),
                namespace_id=key.namespace_id,
                run_id=key.id,
                run_seq=folded.seq,
                first_event_id=folded.first_event_id,
                event_count=folded.event_count,
                record=folded.stored,
                hash=folded.hash,
            )
            for folded in self._folded
        ]

"""What a projection is: a table that follows from the log, and what each event and fact adds to it.

All of it is pure: a record that has been applied in, rows out. So the table can be made again from
the log at any time, and what a record does not concern costs it a look into a dict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.run import RunState
from aetheris_server.storage.index_table import IndexTable
from aetheris_server.storage.row_changes import RowChanges


@dataclass(frozen=True, slots=True)
class AppliedRecord:
    """A record of a run, with the state after it: to be read, not kept."""

    shard_id: int
    state: RunState
    record: log_pb2.LogRecord


OnProjectedEvent = Callable[[AppliedRecord, history_pb2.HistoryEvent, RowChanges], None]
OnProjectedFact = Callable[[AppliedRecord, log_pb2.Fact, RowChanges], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """One projection.

    Attributes:
        name: What `rebuild` is told.
        table: Its rows.
        is_index: Its rows are those by which the engine finds runs: one for each, added with the
            run's first record, and rewritten as well when only the engine's own columns change.
        events: By event type, what one adds. One that is buffered counts when it gets its id.
        facts: By name, as `fact_name` says it, what one adds.
    """

    name: str
    table: IndexTable
    is_index: bool = False
    events: Mapping[int, OnProjectedEvent] = field(default_factory=dict[int, OnProjectedEvent])
    facts: Mapping[str, OnProjectedFact] = field(default_factory=dict[str, OnProjectedFact])

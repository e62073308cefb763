"""Reading a run's committed events: from its tail in memory where they are, else from the log."""

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.run import LoadedRun
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import load_run_events

PAGE_SIZE = 256
_MAX_PAGE_BYTES = 4 * 1024 * 1024
_ROWS_PER_READ = 64


async def read_events(
    db: Database, run: LoadedRun, from_event_id: int, until_event_id: int, limit: int
) -> list[history_pb2.HistoryEvent]:
    """At most `limit` events with from_event_id <= id < until_event_id, in order, without gaps.

    Fewer where they are so large that more would not fit into a message; at least one if there is
    one. All of them are on disk: the caller has waited for that.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    until_event_id = min(until_event_id, from_event_id + limit)
    if until_event_id <= from_event_id:
        return []
    in_memory = run.tail.try_slice(from_event_id, until_event_id)
    if in_memory is not None:
        return _cut(in_memory)
    events: list[history_pb2.HistoryEvent] = []
    next_id, size = from_event_id, 0
    while next_id < until_event_id and size <= _MAX_PAGE_BYTES:
        rows = min(limit, _rows_per_read(run))
        records = await load_run_events(db, run.shard_id, run.key.run_id, next_id, rows)
        if not records:
            break
        size += sum(len(record.record) for record in records)
        events += [
            event
            for record in records
            for event in log_pb2.LogRecord.FromString(record.record).events
            if next_id <= event.event_id < until_event_id
        ]
        next_id = records[-1].first_event_id + records[-1].event_count
    return _cut(events)


def _rows_per_read(run: LoadedRun) -> int:
    """How many records have about the bytes of a page."""
    average = run.state.history_bytes // max(run.state.run_seq, 1)
    return max(min(_MAX_PAGE_BYTES // max(average, 1), _ROWS_PER_READ), 1)


def _cut(events: list[history_pb2.HistoryEvent]) -> list[history_pb2.HistoryEvent]:
    """The first of the events that fit into a page by their size; at least one."""
    size = 0
    for index, event in enumerate(events):
        size += event.ByteSize()
        if size > _MAX_PAGE_BYTES and index:
            return events[:index]
    return events

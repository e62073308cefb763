"""Reading a run's committed events: from its tail in memory where they are, else from the log."""

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import BrokenLogError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import RunRecord, load_run_events

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
        BrokenLogError: A record is missing, or is not the one that its row says.
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
            raise BrokenLogError(
                run.key.run_id, run.state.run_seq, f"event {next_id} in it or before it", "none"
            )
        for record in records:
            size += len(record.record)
            found = _events_from(run.key.run_id, record, next_id)
            events += [event for event in found if event.event_id < until_event_id]
            next_id = record.first_event_id + record.event_count
    return _cut(events)


def _events_from(run_id: str, record: RunRecord, next_id: int) -> list[history_pb2.HistoryEvent]:
    """The events of a record from `next_id` on, which it must have.

    A hole would be taken by a worker for the run's history, and by its code for what happened.
    """
    events = log_pb2.LogRecord.FromString(record.record).events
    found = [event for event in events if event.event_id >= next_id]
    until_id = record.first_event_id + record.event_count
    if [event.event_id for event in found] != list(range(next_id, max(until_id, next_id + 1))):
        raise BrokenLogError(
            run_id,
            record.run_seq,
            f"events from {next_id} on",
            f"those from {record.first_event_id} up to {until_id - 1}",
        )
    return found


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

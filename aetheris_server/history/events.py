"""Reading a run's committed events: from its tail in memory where they are, else from the log."""

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.run import LoadedRun
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import load_run_events

PAGE_SIZE = 256


async def read_events(
    db: Database, run: LoadedRun, from_event_id: int, until_event_id: int, limit: int
) -> list[history_pb2.HistoryEvent]:
    """At most `limit` events with from_event_id <= id < until_event_id, in order, without gaps.

    All of them are on disk: the caller has waited for that.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    until_event_id = min(until_event_id, from_event_id + limit)
    if until_event_id <= from_event_id:
        return []
    events = run.tail.try_slice(from_event_id, until_event_id)
    if events is not None:
        return events
    records = await load_run_events(db, run.shard_id, run.key.run_id, from_event_id, limit)
    return [
        event
        for record in records
        for event in log_pb2.LogRecord.FromString(record.record).events
        if from_event_id <= event.event_id < until_event_id
    ]

"""What a transition writes: the log row, the aggregate's own row, a snapshot.

Its own row is rewritten only when it closes, when what it tells of the aggregate itself changes, or
when its wake_time must: it must become earlier, or it has come. It is by the wall clock, as whoever
looks for it goes by that: an aggregate's own time may be ahead of it, and nothing must be late for
that. One that has closed has its row written with each record, so that the row alone says whether
it still owes something.
"""

from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.engine.committer import Commit
from aetheris_server.history.shard import Shard
from aetheris_server.history.times import earliest
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.shards import WakeRewrite
from aetheris_server.storage.snapshots import SnapshotRow
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_FAILED_SNAPSHOTS = counter("failed_snapshots", "Snapshots that were not made because of a fault.")


def to_log_row(
    shard: Shard,
    aggregate: Aggregate,
    first_event_id: int,
    record: log_pb2.LogRecord,
    stored: bytes,
) -> LogRow:
    """The log row of a record that has just been applied; takes the shard's next number."""
    key = aggregate.key
    return LogRow(
        shard_id=shard.shard_id,
        shard_seq=shard.take_seq(),
        namespace_id=key.namespace_id,
        run_id=key.id,
        run_seq=aggregate.seq,
        first_event_id=first_event_id,
        event_count=len(record.events),
        record=stored,
        hash=aggregate.hash,
    )


def try_snapshot_row(aggregate: Aggregate) -> SnapshotRow | None:
    """The snapshot of an aggregate as it is now; None if there is a fault in making it.

    The log has all that it says, so neither the aggregate nor one that takes its room need fail for
    it.
    """
    try:
        state = aggregate.to_snapshot()
    except Exception:  # noqa: BLE001 - logged whole
        key = aggregate.key
        _log.exception("an aggregate has no snapshot", kind=key.kind, id=key.id)
        _FAILED_SNAPSHOTS.inc()
        return None
    return SnapshotRow(
        shard_id=aggregate.shard_id,
        run_id=aggregate.key.id,
        run_seq=aggregate.seq,
        hash=aggregate.hash,
        state=state,
    )


def index_record(
    shard: Shard,
    aggregate: Aggregate,
    commit: Commit,
    deadline: datetime | None,
    shard_seq: int,
    now: datetime,
) -> bool:
    """Add to a commit what the row must say after the newest record, already applied.

    Args:
        shard: The aggregate's; notes whether it owes something now.
        aggregate: With the record applied.
        commit: That writes the record.
        deadline: The first durable deadline that the record has brought; None if it brought none.
        shard_seq: The record's.
        now: The aggregate's time, which has just been read.

    Returns:
        Whether it has just begun or closed.
    """
    owes, is_open = aggregate.owes(), aggregate.is_open
    shard.owing.note(aggregate.key, owes, shard_seq)
    if aggregate.seq == 1:
        aggregate.wake_time = _to_wall(aggregate, deadline)
        aggregate.add_row(commit.changes, owes and not is_open)
        if not is_open:
            shard.note_row_written(aggregate.key, owes)
        return True
    is_due = is_open and _takes_new_wake_time(aggregate, deadline, now)
    if is_open and not is_due and not aggregate.changes_row():
        return False
    aggregate.add_update(commit.changes, owes)
    shard.note_row_written(aggregate.key, owes)
    return not is_open


def index_beginning(
    shard: Shard,
    aggregate: Aggregate,
    commit: Commit,
    deadline: datetime | None,
    shard_seq: int,
) -> None:
    """Add to a commit what the row must say of one that has begun with many records.

    Args:
        shard: The aggregate's; notes whether it owes something now.
        aggregate: With all of them applied.
        commit: That writes them, and adds the row.
        deadline: Its first durable deadline; None for none.
        shard_seq: The last record's.
    """
    owes = aggregate.owes()
    shard.owing.note(aggregate.key, owes, shard_seq)
    aggregate.wake_time = _to_wall(aggregate, deadline)
    aggregate.add_update(commit.changes, owes)
    shard.note_row_written(aggregate.key, owes)


def _takes_new_wake_time(aggregate: Aggregate, deadline: datetime | None, now: datetime) -> bool:
    if _has_come(aggregate, now):
        # What has come but has not been looked at yet stays: a crash now must not forget it.
        aggregate.wake_time = _to_wall(aggregate, aggregate.next_deadline(now))
        return True
    first = earliest(aggregate.wake_time, _to_wall(aggregate, deadline))
    changes = first != aggregate.wake_time
    aggregate.wake_time = first
    return changes


def rewrite_wake_time(shard: Shard, aggregate: Aggregate, now: datetime) -> None:
    """Replace, with the shard's next settlement, a wake_time that came to nothing."""
    if aggregate.is_open and aggregate.wake_time is not None and _has_come(aggregate, now):
        new_time = _to_wall(aggregate, aggregate.next_deadline(now))
        key = aggregate.key
        shard.wake_rewrites[key] = WakeRewrite(key.id, aggregate.wake_time, new_time)
        aggregate.wake_time = new_time


def _has_come(aggregate: Aggregate, now: datetime) -> bool:
    return aggregate.wake_time is not None and aggregate.wake_time <= now - aggregate.time.lead


def _to_wall(aggregate: Aggregate, deadline: datetime | None) -> datetime | None:
    """What the wall clock shows when the aggregate's time gets to a deadline, as things stand."""
    return deadline - aggregate.time.lead if deadline is not None else None

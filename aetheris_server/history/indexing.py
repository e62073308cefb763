"""What a transition writes of a run's executions row, and what its shard notes of the run.

The row is rewritten only when the run closes or when its wake_time must change: it must become
earlier, or it has come.
"""

from datetime import datetime

from aetheris_server.history.committer import Commit
from aetheris_server.history.rows import to_execution_row
from aetheris_server.history.run import LoadedRun
from aetheris_server.history.shard import Shard, WakeRewrite
from aetheris_server.history.state.deadlines import next_deadline
from aetheris_server.history.state.obligations import owes_tasks
from aetheris_server.history.state.times import earliest, from_timestamp
from aetheris_server.storage.executions import ExecutionUpdate


def index_record(
    shard: Shard,
    run: LoadedRun,
    commit: Commit,
    deadline: datetime | None,
    shard_seq: int,
    now: datetime,
) -> bool:
    """Add to a commit what the row must say after the run's newest record, already applied.

    Args:
        shard: The run's; notes whether the run owes tasks now.
        run: With the record applied.
        commit: That writes the record.
        deadline: The first durable deadline that the record has brought; None if it brought none.
        shard_seq: The record's.
        now: The time.

    Returns:
        Whether the run has just been started or closed.
    """
    state = run.state
    owes = owes_tasks(state)
    shard.note_owing(run.key, owes, shard_seq)
    if state.run_seq == 1:
        run.wake_time = deadline
        commit.inserts.append(
            to_execution_row(shard.shard_id, state, deadline, repeats_id=run.repeats_id)
        )
        return True
    if state.is_open and not _takes_new_wake_time(run, deadline, now):
        return False
    close_event = state.close_event
    commit.updates.append(
        ExecutionUpdate(
            shard_id=shard.shard_id,
            run_id=run.key.run_id,
            status=state.status,
            close_time=from_timestamp(close_event.event_time) if close_event else None,
            wake_time=run.wake_time if state.is_open else None,
            history_length=state.next_event_id - 1,
            history_bytes=state.history_bytes,
            owes_tasks=owes,
        )
    )
    shard.note_row_written(run.key, owes)
    return not state.is_open


def _takes_new_wake_time(run: LoadedRun, deadline: datetime | None, now: datetime) -> bool:
    if run.wake_time is not None and run.wake_time <= now:
        # What has come but has not been looked at yet stays: a crash now must not forget it.
        run.wake_time = next_deadline(run.state, run.inflight, now)
        return True
    first = earliest(run.wake_time, deadline)
    changes = first != run.wake_time
    run.wake_time = first
    return changes


def rewrite_wake_time(shard: Shard, run: LoadedRun, now: datetime) -> None:
    """Replace, with the shard's next settlement, a wake_time that came to nothing."""
    if run.state.is_open and run.wake_time is not None and run.wake_time <= now:
        new_time = next_deadline(run.state, run.inflight, now)
        shard.wake_rewrites[run.key.run_id] = WakeRewrite(run.wake_time, new_time)
        run.wake_time = new_time

"""What a transition writes of a run's executions row, and what its shard notes of the run.

The row is rewritten only when the run closes or when its wake_time must change: it must become
earlier, or it has come. It is by the wall clock, as whoever looks for it goes by that: a run's own
time may be ahead of it, and nothing must be late for that.
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
        now: The run's time, which has just been read.

    Returns:
        Whether the run has just been started or closed.
    """
    state = run.state
    owes = owes_tasks(state)
    shard.note_owing(run.key, owes, shard_seq)
    if state.run_seq == 1:
        run.wake_time = _to_wall(run, deadline)
        commit.inserts.append(
            to_execution_row(shard.shard_id, state, run.wake_time, repeats_id=run.repeats_id)
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
    if _has_come(run, now):
        # What has come but has not been looked at yet stays: a crash now must not forget it.
        run.wake_time = _to_wall(run, next_deadline(run.state, run.inflight, now))
        return True
    first = earliest(run.wake_time, _to_wall(run, deadline))
    changes = first != run.wake_time
    run.wake_time = first
    return changes


def rewrite_wake_time(shard: Shard, run: LoadedRun, now: datetime) -> None:
    """Replace, with the shard's next settlement, a wake_time that came to nothing."""
    if run.state.is_open and run.wake_time is not None and _has_come(run, now):
        new_time = _to_wall(run, next_deadline(run.state, run.inflight, now))
        shard.wake_rewrites[run.key.run_id] = WakeRewrite(run.wake_time, new_time)
        run.wake_time = new_time


def _has_come(run: LoadedRun, now: datetime) -> bool:
    return run.wake_time is not None and run.wake_time <= now - run.time.lead


def _to_wall(run: LoadedRun, deadline: datetime | None) -> datetime | None:
    """What the wall clock shows when the run's time gets to a deadline, as things stand."""
    return deadline - run.time.lead if deadline is not None else None

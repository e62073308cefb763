"""What a transition writes: the log row, the run's executions row, a snapshot.

The executions row is rewritten only when the run closes or when its wake_time must change: it must
become earlier, or it has come. It is by the wall clock, as whoever looks for it goes by that: a
run's own time may be ahead of it, and nothing must be late for that.
"""

from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.engine.committer import Commit
from aetheris_server.history.run import LoadedRun
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.deadlines import next_deadline
from aetheris_server.history.state.obligations import owes_tasks
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import to_snapshot
from aetheris_server.history.state.times import earliest, from_duration, from_timestamp
from aetheris_server.rpc.search_attributes import encode_search_attributes
from aetheris_server.storage.execution_rows import (
    INSERT_EXECUTIONS,
    UPDATE_EXECUTIONS,
    ExecutionRow,
    ExecutionUpdate,
)
from aetheris_server.storage.executions import NewestRun
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.shards import WakeRewrite
from aetheris_server.storage.snapshots import SnapshotRow
from aetheris_server.storage.uuids import is_uuid
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_FAILED_SNAPSHOTS = counter("failed_snapshots", "Snapshots that were not made because of a fault.")

# What fits an entry of an index beside the ids; the frontend's own bound is lower by default.
_MAX_KEY_BYTES = 2_000


def check_storable(state: RunState) -> None:
    """Check what the row of a new run is to say besides its key, whoever has asked for the run.

    Raises:
        InvalidArgumentError: The store would refuse it, and with it all that is written beside it.
    """
    started = state.started
    _check_text("request_id", started.request_id)
    _check_text("workflow_type.name", started.workflow_type.name)
    _check_text("task_queue.name", started.task_queue.name)


def check_key(namespace_id: str, workflow_id: str) -> None:
    """Check that there can be runs of a workflow id.

    Raises:
        InvalidArgumentError: The store would refuse it, and with it all that is asked beside it.
    """
    if not is_uuid(namespace_id):
        raise InvalidArgumentError("namespace_id", "expected a UUID")
    _check_text("workflow_id", workflow_id)
    if len(workflow_id.encode()) > _MAX_KEY_BYTES:
        raise InvalidArgumentError("workflow_id", f"expected at most {_MAX_KEY_BYTES} bytes")


def _check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgumentError(field, "expected text without NUL characters")


def to_log_row(
    shard: Shard,
    state: RunState,
    first_event_id: int,
    record: log_pb2.LogRecord,
    stored: bytes,
) -> LogRow:
    """The log row of a record that has just been applied; takes the shard's next number."""
    return LogRow(
        shard_id=shard.shard_id,
        shard_seq=shard.take_seq(),
        namespace_id=state.key.namespace_id,
        run_id=state.key.run_id,
        run_seq=state.run_seq,
        first_event_id=first_event_id,
        event_count=len(record.events),
        record=stored,
        hash=state.hash,
    )


def to_execution_row(
    shard_id: int, state: RunState, wake_time: datetime | None, *, repeats_id: bool
) -> ExecutionRow:
    """The executions row of a run that has just been started."""
    started = state.started
    return ExecutionRow(
        shard_id=shard_id,
        namespace_id=state.key.namespace_id,
        workflow_id=state.key.workflow_id,
        run_id=state.key.run_id,
        first_execution_run_id=started.first_execution_run_id,
        start_request_id=started.request_id,
        workflow_type=started.workflow_type.name,
        task_queue=started.task_queue.name,
        status=state.status,
        start_time=state.start_time,
        execution_time=state.start_time + from_duration(started.first_workflow_task_backoff),
        history_length=state.next_event_id - 1,
        history_bytes=state.history_bytes,
        memo=started.memo.SerializeToString() if started.HasField("memo") else None,
        search_attributes=encode_search_attributes(started.search_attributes),
        wake_time=wake_time,
        repeats_id=repeats_id,
    )


def to_newest(state: RunState) -> NewestRun:
    """What the next start of the workflow id needs to know of a run."""
    close_event = state.close_event
    return NewestRun(
        run_id=state.key.run_id,
        status=state.status,
        start_request_id=state.started.request_id,
        first_execution_run_id=state.started.first_execution_run_id,
        start_time=state.start_time,
        close_time=from_timestamp(close_event.event_time) if close_event is not None else None,
    )


def try_snapshot_row(run: LoadedRun) -> SnapshotRow | None:
    """The snapshot of a run as it is now; None if there is a fault in making it.

    The log has all that it says, so neither the run nor one that takes its room need fail for it.
    """
    try:
        state = to_snapshot(run.state)
    except Exception:  # noqa: BLE001 - logged whole
        _log.exception("a run has no snapshot", run_id=run.key.run_id)
        _FAILED_SNAPSHOTS.inc()
        return None
    return SnapshotRow(
        shard_id=run.shard_id,
        run_id=run.key.run_id,
        run_seq=run.state.run_seq,
        hash=run.state.hash,
        state=state,
    )


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
    shard.owing.note(run.key, owes, shard_seq)
    if state.run_seq == 1:
        run.wake_time = _to_wall(run, deadline)
        commit.changes.add(
            INSERT_EXECUTIONS,
            to_execution_row(shard.shard_id, state, run.wake_time, repeats_id=run.repeats_id),
        )
        return True
    if state.is_open and not _takes_new_wake_time(run, deadline, now):
        return False
    close_event = state.close_event
    commit.changes.add(
        UPDATE_EXECUTIONS,
        ExecutionUpdate(
            shard_id=shard.shard_id,
            run_id=run.key.run_id,
            status=state.status,
            close_time=from_timestamp(close_event.event_time) if close_event else None,
            wake_time=run.wake_time if state.is_open else None,
            history_length=state.next_event_id - 1,
            history_bytes=state.history_bytes,
            owes_tasks=owes,
        ),
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
        run_id = run.key.run_id
        shard.wake_rewrites[run_id] = WakeRewrite(run_id, run.wake_time, new_time)
        run.wake_time = new_time


def _has_come(run: LoadedRun, now: datetime) -> bool:
    return run.wake_time is not None and run.wake_time <= now - run.time.lead


def _to_wall(run: LoadedRun, deadline: datetime | None) -> datetime | None:
    """What the wall clock shows when the run's time gets to a deadline, as things stand."""
    return deadline - run.time.lead if deadline is not None else None

"""A state as bytes and back.

The fold of a run's log from a snapshot on equals the fold from its start.
"""

from collections.abc import Iterator
from datetime import datetime

from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError, Message

from aetheris.api.v1 import workflow_pb2
from aetheris.server.v1 import state_pb2
from aetheris_server.errors import BrokenLogError, UnknownRecordError
from aetheris_server.history.state.apply import DELIVERIES
from aetheris_server.history.state.records import find_unknown
from aetheris_server.history.state.run import (
    ACTIVITY_BYTES,
    REQUEST_BYTES,
    ActivityState,
    RunKey,
    RunState,
    TimerState,
    WorkflowTaskState,
)
from aetheris_server.history.state.times import from_timestamp, to_timestamp

SNAPSHOT_VERSION = 1
"""Of the form that is written. It grows when a program from before could not read it right."""

_STATUSES = frozenset(workflow_pb2.WorkflowExecutionStatus.values())


def to_snapshot(state: RunState) -> bytes:
    """Everything of a state but its key, its run_seq and its hash, which are stored beside."""
    snapshot = state_pb2.RunSnapshot(
        started=state.started,
        start_time=to_timestamp(state.start_time),
        first_task_time=_stamp(state.first_task_time),
        run_deadline_time=_stamp(state.run_deadline_time),
        status=state.status,
        next_event_id=state.next_event_id,
        history_bytes=state.history_bytes,
        workflow_task=_from_task(state.workflow_task) if state.workflow_task else None,
        previous_started_event_id=state.previous_started_event_id,
        last_completed_event_id=state.last_completed_event_id,
        activities=[_from_activity(activity) for activity in state.activities.values()],
        timers=[
            state_pb2.TimerState(
                timer_id=timer.timer_id,
                started_event_id=timer.started_event_id,
                fire_time=to_timestamp(timer.fire_time),
            )
            for timer in state.timers.values()
        ],
        buffered_events=state.buffered_events,
        request_ids=sorted(state.request_ids),
        cancel_requested=state.cancel_requested,
        cancel_request_id=state.cancel_request_id,
        close_event=state.close_event,
        signal_count=state.signal_count,
        version=SNAPSHOT_VERSION,
        unhandled_signal_count=state.unhandled_signal_count,
    )
    return snapshot.SerializeToString(deterministic=True)


def from_snapshot(key: RunKey, run_seq: int, hash_: bytes, data: bytes) -> RunState:
    """The state that `to_snapshot` was given.

    Raises:
        BrokenLogError: These are not the bytes of a snapshot.
        UnknownRecordError: A newer program wrote it.
    """
    try:
        snapshot = state_pb2.RunSnapshot.FromString(data)
    except DecodeError as error:
        found = f"{len(data)} bytes: {error}"
        raise BrokenLogError(key.run_id, run_seq, "a snapshot", found) from None
    unknown = _find_unknown(snapshot)
    if unknown is not None:
        raise UnknownRecordError(key.run_id, run_seq, f"in the snapshot, {unknown}")
    state = RunState(
        key=key,
        started=snapshot.started,
        start_time=from_timestamp(snapshot.start_time),
        first_task_time=(
            from_timestamp(snapshot.first_task_time)
            if snapshot.HasField("first_task_time")
            else None
        ),
        run_deadline_time=(
            from_timestamp(snapshot.run_deadline_time)
            if snapshot.HasField("run_deadline_time")
            else None
        ),
        status=snapshot.status,
        run_seq=run_seq,
        hash=hash_,
        next_event_id=snapshot.next_event_id,
        history_bytes=snapshot.history_bytes,
        workflow_task=(
            _to_task(snapshot.workflow_task) if snapshot.HasField("workflow_task") else None
        ),
        previous_started_event_id=snapshot.previous_started_event_id,
        last_completed_event_id=snapshot.last_completed_event_id,
        buffered_events=list(snapshot.buffered_events),
        request_ids=set(snapshot.request_ids),
        signal_count=snapshot.signal_count,
        unhandled_signal_count=snapshot.unhandled_signal_count,
        cancel_requested=snapshot.cancel_requested,
        cancel_request_id=snapshot.cancel_request_id,
        close_event=snapshot.close_event if snapshot.HasField("close_event") else None,
    )
    for stored in snapshot.activities:
        activity = _to_activity(stored)
        state.activities[activity.scheduled_event_id] = activity
        state.activity_ids[activity.scheduled.activity_id] = activity.scheduled_event_id
        state.held_bytes += activity.byte_count
    for timer in snapshot.timers:
        state.timers[timer.timer_id] = TimerState(
            timer.timer_id, timer.started_event_id, from_timestamp(timer.fire_time)
        )
    state.held_bytes += sum(REQUEST_BYTES + len(request_id) for request_id in state.request_ids)
    state.buffered_bytes = sum(event.ByteSize() for event in state.buffered_events)
    return state


def _find_unknown(snapshot: state_pb2.RunSnapshot) -> str | None:
    if snapshot.version > SNAPSHOT_VERSION:
        return f"version {snapshot.version}"
    if snapshot.status not in _STATUSES:
        return f"the status {snapshot.status}"
    for activity in snapshot.activities:
        if activity.scheduled.delivery not in DELIVERIES:
            return f"the activity delivery {activity.scheduled.delivery}"
    found = (find_unknown(message) for message in _own_messages(snapshot))
    return next((unknown for unknown in found if unknown is not None), None)


def _own_messages(snapshot: state_pb2.RunSnapshot) -> Iterator[Message]:
    """Those that only servers write."""
    yield snapshot
    yield snapshot.started
    yield snapshot.workflow_task
    yield from snapshot.timers
    for activity in snapshot.activities:
        yield activity
        yield activity.scheduled


def _from_task(task: WorkflowTaskState) -> state_pb2.WorkflowTaskState:
    return state_pb2.WorkflowTaskState(
        scheduled_event_id=task.scheduled_event_id,
        attempt=task.attempt,
        scheduled_time=to_timestamp(task.scheduled_time),
        last_failure=task.last_failure,
    )


def _to_task(stored: state_pb2.WorkflowTaskState) -> WorkflowTaskState:
    return WorkflowTaskState(
        scheduled_event_id=stored.scheduled_event_id,
        attempt=stored.attempt,
        scheduled_time=from_timestamp(stored.scheduled_time),
        last_failure=stored.last_failure if stored.HasField("last_failure") else None,
    )


def _from_activity(activity: ActivityState) -> state_pb2.ActivityState:
    return state_pb2.ActivityState(
        scheduled_event_id=activity.scheduled_event_id,
        scheduled=activity.scheduled,
        scheduled_time=to_timestamp(activity.scheduled_time),
        attempt=activity.attempt,
        attempt_scheduled_time=to_timestamp(activity.attempt_scheduled_time),
        cancel_requested_event_id=activity.cancel_requested_event_id,
        heartbeat_details=activity.heartbeat_details,
        attempts=activity.attempts,
        started_identity=activity.started_identity,
        started_time=_stamp(activity.started_time),
    )


def _to_activity(stored: state_pb2.ActivityState) -> ActivityState:
    return ActivityState(
        scheduled_event_id=stored.scheduled_event_id,
        scheduled=stored.scheduled,
        scheduled_time=from_timestamp(stored.scheduled_time),
        attempt=stored.attempt,
        attempt_scheduled_time=from_timestamp(stored.attempt_scheduled_time),
        cancel_requested_event_id=stored.cancel_requested_event_id,
        heartbeat_details=(
            stored.heartbeat_details if stored.HasField("heartbeat_details") else None
        ),
        attempts=list(stored.attempts),
        started_identity=stored.started_identity,
        started_time=(
            from_timestamp(stored.started_time) if stored.HasField("started_time") else None
        ),
        byte_count=(
            ACTIVITY_BYTES
            + stored.scheduled.ByteSize()
            + sum(attempt.ByteSize() for attempt in stored.attempts)
            + stored.heartbeat_details.ByteSize()
        ),
    )


def _stamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    return to_timestamp(moment) if moment is not None else None

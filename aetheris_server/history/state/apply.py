"""The only code that changes a `RunState`.

`apply(state, record)` is the same on the way to the log and on the way back from it. An event that
was buffered is applied twice, when it is buffered and when it gets its id; each handler bears that.
What this program does not know it refuses: a state that leaves something out is a wrong state.
"""

import hashlib
from collections.abc import Callable

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.state.failures import trim
from aetheris_server.history.state.run import (
    ACTIVITY_BYTES,
    REQUEST_BYTES,
    ActivityState,
    RunKey,
    RunState,
    TimerState,
    WorkflowTaskState,
)
from aetheris_server.history.state.times import from_duration, from_timestamp

_MAX_KEPT_ATTEMPTS = 100

DELIVERIES = frozenset(workflow_pb2.ActivityDelivery.values())
"""The kinds of delivery of an activity that this program knows."""

_Apply = Callable[[RunState, history_pb2.HistoryEvent], None]


def chain_hash(previous: bytes, record: bytes) -> bytes:
    """The next link: sha256 over the previous one, the record's length and the record.

    The length has 8 bytes, big-endian.
    """
    return hashlib.sha256(previous + len(record).to_bytes(8, "big") + record).digest()


def new_state(key: RunKey, event: history_pb2.HistoryEvent) -> RunState:
    """The state before the record that `event`, a started event, is the first of."""
    started = event.workflow_execution_started_event_attributes
    start_time = from_timestamp(event.event_time)
    first_task_time = start_time + from_duration(started.first_workflow_task_backoff)
    run_timeout = from_duration(started.workflow_run_timeout)
    run_deadline = first_task_time + run_timeout if run_timeout else None
    if started.HasField("workflow_execution_expiration_time"):
        expiration = from_timestamp(started.workflow_execution_expiration_time)
        run_deadline = min(run_deadline, expiration) if run_deadline else expiration
    return RunState(
        key=key,
        started=started,
        start_time=start_time,
        first_task_time=first_task_time,
        run_deadline_time=run_deadline,
    )


def apply(state: RunState, record: log_pb2.LogRecord, stored: bytes) -> None:
    """Take one record into the state.

    Args:
        state: Changed in place.
        record: The run's next record.
        stored: Its bytes, as they are or will be in the log.

    Raises:
        UnknownRecordError: It has something that a newer program has written; the state is spoilt.
    """
    for event in record.events:
        state.next_event_id = event.event_id + 1
        _apply_event(state, event)
    for fact in record.facts:
        kind = fact.WhichOneof("fact")
        change = _FACTS.get(kind) if kind is not None else None
        if change is None:
            raise _unknown(state, f"the fact {kind}")
        change(state, fact, record.time)
    state.run_seq += 1
    state.hash = chain_hash(state.hash, stored)
    state.history_bytes += len(stored)


def _apply_event(state: RunState, event: history_pb2.HistoryEvent) -> None:
    handler = _EVENTS.get(event.event_type)
    if handler is None:
        raise _unknown(state, f"an event of type {event.event_type}")
    handler(state, event)


def _unknown(state: RunState, what: str) -> UnknownRecordError:
    return UnknownRecordError(state.key.run_id, state.run_seq + 1, what)


def _changes_nothing(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """What the event says is in the state already, or concerns only workers."""


def _workflow_task_scheduled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    state.workflow_task = WorkflowTaskState(
        scheduled_event_id=event.event_id,
        attempt=event.workflow_task_scheduled_event_attributes.attempt,
        scheduled_time=from_timestamp(event.event_time),
    )
    state.first_task_time = None


def _workflow_task_completed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    completed = event.workflow_task_completed_event_attributes
    state.previous_started_event_id = completed.started_event_id
    state.unhandled_signal_count = completed.unhandled_signal_count
    state.last_completed_event_id = event.event_id
    state.workflow_task = None


def _workflow_task_closed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    # What follows in the same record says whether, and as which attempt, it is tried again.
    state.workflow_task = None


def _activity_scheduled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.activity_task_scheduled_event_attributes
    if attributes.delivery not in DELIVERIES:
        raise _unknown(state, f"the activity delivery {attributes.delivery}")
    time = from_timestamp(event.event_time)
    byte_count = ACTIVITY_BYTES + attributes.ByteSize()
    state.held_bytes += byte_count
    state.activities[event.event_id] = ActivityState(
        scheduled_event_id=event.event_id,
        scheduled=attributes,
        scheduled_time=time,
        attempt=1,
        attempt_scheduled_time=time,
        byte_count=byte_count,
    )
    state.activity_ids[attributes.activity_id] = event.event_id


def _close_activity(state: RunState, scheduled_event_id: int) -> None:
    activity = state.activities.pop(scheduled_event_id, None)
    if activity is not None:
        del state.activity_ids[activity.scheduled.activity_id]
        state.held_bytes -= activity.byte_count


def _hold(state: RunState, activity: ActivityState, byte_count: int) -> None:
    """Count what an activity takes from now on, or, below 0, does not take any more."""
    activity.byte_count += byte_count
    state.held_bytes += byte_count


def _hold_details(state: RunState, activity: ActivityState, details: common_pb2.Payloads) -> None:
    known = activity.heartbeat_details
    _hold(state, activity, details.ByteSize() - (known.ByteSize() if known is not None else 0))
    activity.heartbeat_details = details


def _activity_completed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    _close_activity(state, event.activity_task_completed_event_attributes.scheduled_event_id)


def _activity_failed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    _close_activity(state, event.activity_task_failed_event_attributes.scheduled_event_id)


def _activity_timed_out(state: RunState, event: history_pb2.HistoryEvent) -> None:
    _close_activity(state, event.activity_task_timed_out_event_attributes.scheduled_event_id)


def _activity_cancelled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    _close_activity(state, event.activity_task_cancelled_event_attributes.scheduled_event_id)


def _activity_cancel_requested(state: RunState, event: history_pb2.HistoryEvent) -> None:
    scheduled_id = event.activity_task_cancel_requested_event_attributes.scheduled_event_id
    activity = state.activities.get(scheduled_id)
    # None: its end is buffered, because the worker asked before it could know.
    if activity is not None:
        activity.cancel_requested_event_id = event.event_id


def _timer_started(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_started_event_attributes
    state.timers[attributes.timer_id] = TimerState(
        timer_id=attributes.timer_id,
        started_event_id=event.event_id,
        fire_time=from_timestamp(event.event_time)
        + from_duration(attributes.start_to_fire_timeout),
    )


def _close_timer(state: RunState, timer_id: str, started_event_id: int) -> None:
    # The id may be that of a newer timer by the time a buffered event gets its number.
    timer = state.timers.get(timer_id)
    if timer is not None and timer.started_event_id == started_event_id:
        del state.timers[timer_id]


def _timer_fired(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_fired_event_attributes
    _close_timer(state, attributes.timer_id, attributes.started_event_id)


def _timer_cancelled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_cancelled_event_attributes
    _close_timer(state, attributes.timer_id, attributes.started_event_id)


def _signaled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    request_id = event.workflow_execution_signaled_event_attributes.request_id
    if request_id not in state.request_ids:
        state.request_ids.add(request_id)
        state.held_bytes += REQUEST_BYTES + len(request_id)
        state.signal_count += 1


def _cancel_requested(state: RunState, event: history_pb2.HistoryEvent) -> None:
    state.cancel_request_id = event.workflow_execution_cancel_requested_event_attributes.request_id
    state.cancel_requested = True


def _closes_as(status: "workflow_pb2.WorkflowExecutionStatus.ValueType") -> _Apply:
    def close(state: RunState, event: history_pb2.HistoryEvent) -> None:
        state.status = status
        state.close_event = event
        state.workflow_task = None
        state.first_task_time = None
        state.run_deadline_time = None
        state.held_bytes -= sum(activity.byte_count for activity in state.activities.values())
        state.activities.clear()
        state.activity_ids.clear()
        state.timers.clear()

    return close


_EVENTS: dict[int, _Apply] = {
    # The state before the first record has what the started event says.
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: _changes_nothing,
    history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED: _changes_nothing,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED: _changes_nothing,
    history_pb2.EVENT_TYPE_MARKER_RECORDED: _changes_nothing,
    history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED: _workflow_task_scheduled,
    history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: _workflow_task_completed,
    history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT: _workflow_task_closed,
    history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED: _workflow_task_closed,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: _activity_scheduled,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: _activity_completed,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED: _activity_failed,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: _activity_timed_out,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED: _activity_cancelled,
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED: _activity_cancel_requested,
    history_pb2.EVENT_TYPE_TIMER_STARTED: _timer_started,
    history_pb2.EVENT_TYPE_TIMER_FIRED: _timer_fired,
    history_pb2.EVENT_TYPE_TIMER_CANCELLED: _timer_cancelled,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: _signaled,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED: _cancel_requested,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: _closes_as(
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: _closes_as(
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: _closes_as(
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED: _closes_as(
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_CANCELLED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: _closes_as(
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    ),
}
"""What each event changes."""


def _event_buffered(state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    state.buffered_events.append(fact.event_buffered)
    state.buffered_bytes += fact.event_buffered.ByteSize()
    _apply_event(state, fact.event_buffered)


def _buffer_flushed(state: RunState, _fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    state.buffered_events.clear()
    state.buffered_bytes = 0


def _attempt_failed(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    failed = fact.activity_attempt_failed
    activity = state.activities[failed.scheduled_event_id]
    attempt = workflow_pb2.ActivityAttempt(
        attempt=failed.attempt,
        start_time=failed.started_time if failed.HasField("started_time") else None,
        end_time=time,
        identity=failed.identity,
        failure=trim(failed.failure),
        next_attempt_time=failed.next_attempt_time,
    )
    activity.attempts.append(attempt)
    _hold(state, activity, attempt.ByteSize())
    while len(activity.attempts) > _MAX_KEPT_ATTEMPTS:
        _hold(state, activity, -activity.attempts.pop(0).ByteSize())
    activity.attempt = failed.attempt + 1
    activity.attempt_scheduled_time = from_timestamp(failed.next_attempt_time)
    activity.started_identity = ""
    activity.started_time = None
    if failed.HasField("heartbeat_details"):
        _hold_details(state, activity, failed.heartbeat_details)


def _attempt_started(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    started = fact.activity_attempt_started
    activity = state.activities[started.scheduled_event_id]
    activity.started_identity = started.identity
    activity.started_time = from_timestamp(time)


def _attempt_not_delivered(
    state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp
) -> None:
    activity = state.activities[fact.activity_attempt_not_delivered.scheduled_event_id]
    activity.started_identity = ""
    activity.started_time = None


def _heartbeat_recorded(
    state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp
) -> None:
    heartbeat = fact.activity_heartbeat_recorded
    _hold_details(state, state.activities[heartbeat.scheduled_event_id], heartbeat.details)


def _workflow_task_retry_scheduled(
    state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp
) -> None:
    retry = fact.workflow_task_retry_scheduled
    state.workflow_task = WorkflowTaskState(
        scheduled_event_id=state.next_event_id,
        attempt=retry.attempt,
        scheduled_time=from_timestamp(retry.due_time),
        last_failure=trim(retry.last_failure),
    )


_FACTS: dict[str, Callable[[RunState, log_pb2.Fact, timestamp_pb2.Timestamp], None]] = {
    "event_buffered": _event_buffered,
    "buffer_flushed": _buffer_flushed,
    "activity_attempt_failed": _attempt_failed,
    "activity_attempt_started": _attempt_started,
    "activity_attempt_not_delivered": _attempt_not_delivered,
    "activity_heartbeat_recorded": _heartbeat_recorded,
    "workflow_task_retry_scheduled": _workflow_task_retry_scheduled,
}
"""What each fact changes."""

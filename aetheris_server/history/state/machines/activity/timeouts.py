"""When time alone changes an activity, and what it changes."""

from collections.abc import Iterator
from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.activity.answers import (
    append_attempt_failed,
    append_started,
    decide_next_attempt,
)
from aetheris_server.history.state.machines.activity.values import (
    ActivityState,
    expiration_time,
    is_free,
    is_held,
    schedule_to_start_time,
    started_deadline,
    waits_anew_until,
)
from aetheris_server.history.state.run import RunState

# Deadlines of the activity, not of one attempt.
_FINAL_TIMEOUTS = (
    failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START,
    failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE,
)


def deadlines(state: RunState, inflight: Inflight, now: datetime) -> Iterator[datetime]:
    """The durable ones of all open activities that nobody has met yet."""
    for activity in state.activities.values():
        expiration = expiration_time(activity)
        if expiration is not None:
            yield expiration
        if is_held(state, activity):
            continue
        start = schedule_to_start_time(activity)
        if start is not None and activity.started_time is None:
            # Of an attempt that a worker has it counts again if this host dies. One that waits
            # anew is looked at when that wait is over.
            is_waiting = inflight.taken_at is None and is_free(activity, inflight)
            if start > now or is_waiting:
                yield start
        if activity.scheduled_event_id in inflight.backing_off:
            yield activity.attempt_scheduled_time


def inflight_deadlines(state: RunState, inflight: Inflight) -> Iterator[float]:
    """Those of attempts that workers have, or may have had, by the clock for intervals."""
    for started in inflight.activities.values():
        if (deadline := started_deadline(started)) is not None:
            yield deadline[0]
    if inflight.taken_at is not None:
        for activity in state.activities.values():
            until = waits_anew_until(activity, inflight)
            if until is not None:
                yield until


def of_schedule(state: RunState, event: history_pb2.HistoryEvent) -> Iterator[datetime]:
    """Those of an activity that was scheduled, unless the same record has closed it."""
    activity = state.activities.get(event.event_id)
    if activity is not None:
        yield from _all_deadlines(activity)


def of_all(state: RunState) -> Iterator[datetime]:
    """Those of all open activities, whose times have changed."""
    for activity in state.activities.values():
        yield from _all_deadlines(activity)


def of_retry(state: RunState, fact: log_pb2.Fact) -> Iterator[datetime]:
    """Those of the attempt after a failed one."""
    activity = state.activities.get(fact.activity_attempt_failed.scheduled_event_id)
    if activity is not None:
        yield from _all_deadlines(activity)


def of_not_delivered(state: RunState, fact: log_pb2.Fact) -> Iterator[datetime]:
    """That which was met, or passed by, while a worker might have had the attempt."""
    activity = state.activities[fact.activity_attempt_not_delivered.scheduled_event_id]
    if (start := schedule_to_start_time(activity)) is not None:
        yield start


def retry_deadlines(state: RunState) -> Iterator[datetime]:
    """Those of all open activities; some do not count while the run is paused."""
    for activity in state.activities.values():
        yield from _all_deadlines(activity)


def of_change(state: RunState, scheduled_event_id: int) -> Iterator[datetime]:
    """Those of an activity that was changed from outside."""
    activity = state.activities.get(scheduled_event_id)
    if activity is not None:
        yield from _all_deadlines(activity)


def note_resumed(state: RunState, time: datetime) -> None:
    """The run was unpaused: its attempts have their whole time to find a worker again."""
    for activity in state.activities.values():
        activity.resume_time = time


def _all_deadlines(activity: ActivityState) -> Iterator[datetime]:
    for moment in (expiration_time(activity), schedule_to_start_time(activity)):
        if moment is not None:
            yield moment
    if activity.attempt > 1:
        yield activity.attempt_scheduled_time


def decide_due(draft: Draft, state: RunState, inflight: Inflight, at: float) -> None:
    """End, or try again, what has run into a deadline."""
    for activity in state.activities.values():
        timeout_type = _due_timeout(state, activity, inflight, draft.now, at)
        if timeout_type is not None:
            _append_timed_out(draft, inflight, activity, timeout_type)


def _due_timeout(
    state: RunState, activity: ActivityState, inflight: Inflight, now: datetime, at: float
) -> "failure_pb2.TimeoutType.ValueType | None":
    expiration = expiration_time(activity)
    if expiration is not None and expiration <= now:
        return failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    started = inflight.activities.get(activity.scheduled_event_id)
    if started is not None:
        deadline = started_deadline(started)
        return deadline[1] if deadline is not None and deadline[0] <= at else None
    if is_held(state, activity):
        return None
    start = schedule_to_start_time(activity)
    anew = waits_anew_until(activity, inflight)
    if start is not None and start <= now and (anew is None or anew <= at):
        return failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
    return None


def _append_timed_out(
    draft: Draft,
    inflight: Inflight,
    activity: ActivityState,
    timeout_type: "failure_pb2.TimeoutType.ValueType",
) -> None:
    """A deadline passed: try again where the kind of deadline and the policy allow it, or close."""
    started = inflight.activities.get(activity.scheduled_event_id)
    lost = activity.is_at_most_once and started is not None
    failure = _timeout_failure(activity, timeout_type)
    failure.timeout_failure_info.outcome_unknown = lost
    decision = decide_next_attempt(activity, failure, draft.now)
    if decision.next_attempt_time is not None and not lost:
        assert started is not None
        append_attempt_failed(
            draft,
            activity,
            failure,
            decision.next_attempt_time,
            started.taker.identity,
            started.started_time,
            None,
        )
        return
    retry_state = _retry_state(decision.state, timeout_type, lost)
    _add_cause(failure, activity, timeout_type, retry_state)
    _append_closed(draft, inflight, activity, failure, retry_state)


def _append_closed(
    draft: Draft,
    inflight: Inflight,
    activity: ActivityState,
    failure: failure_pb2.Failure,
    retry_state: "failure_pb2.RetryState.ValueType",
) -> None:
    started = inflight.activities.get(activity.scheduled_event_id)
    started_id = 0
    if started is not None:
        started_id = append_started(
            draft, inflight, activity, started.taker.identity, started.started_time
        )
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
        history_pb2.ActivityTaskTimedOutEventAttributes(
            failure=failure,
            scheduled_event_id=activity.scheduled_event_id,
            started_event_id=started_id,
            retry_state=retry_state,
        ),
    )
    draft.ensure_workflow_task()


def _add_cause(
    failure: failure_pb2.Failure,
    activity: ActivityState,
    timeout_type: "failure_pb2.TimeoutType.ValueType",
    retry_state: "failure_pb2.RetryState.ValueType",
) -> None:
    """Say what came before: the last attempt's deadline, or the failure of the one before it."""
    if retry_state == failure_pb2.RETRY_STATE_TIMEOUT and timeout_type not in _FINAL_TIMEOUTS:
        last = failure_pb2.Failure()
        last.CopyFrom(failure)
        failure.CopyFrom(_timeout_failure(activity, failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE))
        failure.message += ": no time is left for another attempt"
        failure.cause.CopyFrom(last)
    elif activity.last_failure is not None:
        failure.cause.CopyFrom(activity.last_failure)


def _retry_state(
    decided: "failure_pb2.RetryState.ValueType",
    timeout_type: "failure_pb2.TimeoutType.ValueType",
    lost: bool,
) -> "failure_pb2.RetryState.ValueType":
    """Why there is no other attempt, the same whether the last one ran into a deadline of the whole
    activity or the next one would have.
    """
    if lost:
        return failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE
    is_over = decided == failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE
    if is_over and timeout_type in _FINAL_TIMEOUTS:
        return failure_pb2.RETRY_STATE_TIMEOUT
    return decided


def _timeout_failure(
    activity: ActivityState, timeout_type: "failure_pb2.TimeoutType.ValueType"
) -> failure_pb2.Failure:
    name = failure_pb2.TimeoutType.Name(timeout_type).removeprefix("TIMEOUT_TYPE_")
    return failure_pb2.Failure(
        message=f"activity {name} timeout",
        source="server",
        timeout_failure_info=failure_pb2.TimeoutFailureInfo(
            timeout_type=timeout_type, last_heartbeat_details=activity.heartbeat_details
        ),
    )

"""The activity's machine.

    scheduled ──start──► started ──completed, cancelled──► closed
        ▲  │                │
        │  │ timed out,     │ failed, timed out: no attempt is left
        │  │ cancelled      └─────────────────────────────► closed
        │  └───────────────────────────────────────────────► closed
        └── failed, timed out: another attempt is left (a fact, not an event)

*Started* is in `Inflight`; an at-most-once activity's start is also a fact, on disk before its
worker gets the task. Only another fact, that the worker certainly did not get it, takes that back.
The started event is written right before the event that closes the activity.
"""

from datetime import datetime

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight, Poller, StartedActivity
from aetheris_server.history.state.retry import decide_retry
from aetheris_server.history.state.run import ActivityState, RunState
from aetheris_server.history.state.times import from_duration, to_timestamp

# Deadlines of the activity, not of one attempt.
_FINAL_TIMEOUTS = (
    failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START,
    failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE,
)


def is_startable(
    state: RunState, inflight: Inflight, scheduled_event_id: int, attempt: int, now: datetime
) -> bool:
    """Whether this attempt is the one that is due and that nobody has.

    One that is refused because it backs off is offered when its time has come.
    """
    activity = state.activities.get(scheduled_event_id)
    return activity is not None and activity.attempt == attempt and is_owed(activity, inflight, now)


def is_free(activity: ActivityState, inflight: Inflight) -> bool:
    """Whether nobody has, or may have, the current attempt."""
    return activity.scheduled_event_id not in inflight.activities and activity.started_time is None


def is_owed(activity: ActivityState, inflight: Inflight, now: datetime) -> bool:
    """Whether the current attempt is due, or has been, and nobody has, or may have, it."""
    return is_free(activity, inflight) and (
        activity.scheduled_event_id not in inflight.backing_off or activity.is_due(now)
    )


def start_activity(
    activity: ActivityState, inflight: Inflight, poller: Poller, now: datetime, at: float
) -> StartedActivity:
    """Give an activity's current attempt to a poller. The caller has checked `is_startable`.

    An at-most-once attempt stays started: that its poller has gone does not say that it had not
    got the task.
    """
    started = StartedActivity(
        scheduled_event_id=activity.scheduled_event_id,
        attempt=activity.attempt,
        poller=poller,
        started_time=now,
        started_at=at,
        last_heartbeat_time=now,
        last_heartbeat_at=at,
        task_queue=activity.scheduled.task_queue.name,
    )
    inflight.activities[activity.scheduled_event_id] = started
    inflight.backing_off.discard(activity.scheduled_event_id)
    return started


def decide_attempt_started(
    state: RunState, inflight: Inflight, activity: ActivityState, poller: Poller, now: datetime
) -> log_pb2.LogRecord:
    """Note, before the worker gets it, that an at-most-once attempt is given out."""
    draft = Draft(state, inflight, now)
    fact = draft.record.facts.add().activity_attempt_started
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    fact.identity = poller.identity
    return draft.record


def decide_not_delivered(
    state: RunState, inflight: Inflight, activity: ActivityState, now: datetime
) -> log_pb2.LogRecord:
    """An at-most-once attempt that was given out certainly did not reach its worker."""
    draft = Draft(state, inflight, now)
    fact = draft.record.facts.add().activity_attempt_not_delivered
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    return draft.record


def restore_inflight(
    state: RunState, inflight: Inflight, now: datetime, at: float, taken_at: float | None = None
) -> None:
    """Take what the state says into `inflight` after a load.

    The durable starts; silence is counted from now on. And what backs off: which of it was offered
    before is not known, so that what is due is offered once more.

    Args:
        state: As loaded.
        inflight: Changed in place.
        now: The time.
        at: The same, by the clock for intervals.
        taken_at: When this host took the shard; None if nobody had it before.
    """
    inflight.taken_at = taken_at
    if not state.is_open:
        return
    inflight.is_task_backing_off = (
        state.workflow_task is not None and state.workflow_task.is_transient
    )
    for activity in state.activities.values():
        if activity.started_time is not None:
            poller = Poller(activity.started_identity)
            started = start_activity(activity, inflight, poller, now, at)
            started.backdate(activity.started_time, now, at)
        elif activity.attempt > 1:
            inflight.backing_off.add(activity.scheduled_event_id)


def require_attempt(state: RunState, scheduled_event_id: int, attempt: int) -> ActivityState:
    """The activity that a worker's answer is about.

    The answer counts for the attempt, whichever start of it the worker had: work that outlived the
    server that gave it out is not lost.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    if not state.is_open:
        raise TaskNotFoundError("the run has closed")
    activity = state.activities.get(scheduled_event_id)
    if activity is None:
        raise TaskNotFoundError("the activity has closed")
    if activity.attempt != attempt:
        raise TaskNotFoundError(f"attempt {attempt} is over; the activity is at {activity.attempt}")
    return activity


def decide_completed(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: worker_service_pb2.RespondActivityTaskCompletedRequest,
    started_time: datetime,
    now: datetime,
) -> log_pb2.LogRecord:
    """The worker gave a result."""
    draft = Draft(state, inflight, now)
    started_id = append_started(draft, inflight, activity, request.identity, started_time)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
        history_pb2.ActivityTaskCompletedEventAttributes(
            result=request.result if request.HasField("result") else None,
            scheduled_event_id=activity.scheduled_event_id,
            started_event_id=started_id,
            identity=request.identity,
        ),
    )
    draft.ensure_workflow_task()
    return draft.record


def decide_cancelled(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: worker_service_pb2.RespondActivityTaskCancelledRequest,
    started_time: datetime,
    now: datetime,
) -> log_pb2.LogRecord:
    """The worker did as the request to cancel asked.

    Raises:
        InvalidArgumentError: Nobody asked.
    """
    if not activity.cancel_requested_event_id:
        raise InvalidArgumentError("task_token", "the activity was not asked to cancel")
    draft = Draft(state, inflight, now)
    started_id = append_started(draft, inflight, activity, request.identity, started_time)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED,
        history_pb2.ActivityTaskCancelledEventAttributes(
            details=request.details if request.HasField("details") else None,
            latest_cancel_requested_event_id=activity.cancel_requested_event_id,
            scheduled_event_id=activity.scheduled_event_id,
            started_event_id=started_id,
            identity=request.identity,
        ),
    )
    draft.ensure_workflow_task()
    return draft.record


def decide_failed(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: worker_service_pb2.RespondActivityTaskFailedRequest,
    started_time: datetime,
    now: datetime,
) -> log_pb2.LogRecord:
    """The worker failed: try again, or close."""
    draft = Draft(state, inflight, now)
    decision = decide_retry(
        activity.scheduled.retry_policy,
        request.failure,
        activity.attempt,
        expiration_time(activity),
        activity.cancel_requested_event_id != 0,
        now,
    )
    if decision.next_attempt_time is not None:
        details = (
            request.last_heartbeat_details if request.HasField("last_heartbeat_details") else None
        )
        _append_attempt_failed(
            draft,
            activity,
            request.failure,
            decision.next_attempt_time,
            request.identity,
            started_time,
            details,
        )
        return draft.record
    started_id = append_started(draft, inflight, activity, request.identity, started_time)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        history_pb2.ActivityTaskFailedEventAttributes(
            failure=request.failure,
            scheduled_event_id=activity.scheduled_event_id,
            started_event_id=started_id,
            identity=request.identity,
            retry_state=decision.state,
        ),
    )
    draft.ensure_workflow_task()
    return draft.record


def append_timed_out(
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
    decision = decide_retry(
        activity.scheduled.retry_policy,
        failure,
        activity.attempt,
        expiration_time(activity),
        activity.cancel_requested_event_id != 0,
        draft.now,
    )
    retry_state = _retry_state(decision.state, timeout_type, lost)
    if decision.next_attempt_time is not None and not lost:
        assert started is not None
        _append_attempt_failed(
            draft,
            activity,
            failure,
            decision.next_attempt_time,
            started.poller.identity,
            started.started_time,
            None,
        )
        return
    if retry_state == failure_pb2.RETRY_STATE_TIMEOUT and timeout_type not in _FINAL_TIMEOUTS:
        outer = _timeout_failure(activity, failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE)
        outer.message += ": no time is left for another attempt"
        outer.cause.CopyFrom(failure)
        failure = outer
    elif activity.last_failure is not None:
        failure.cause.CopyFrom(activity.last_failure)
    started_id = 0
    if started is not None:
        started_id = append_started(
            draft, inflight, activity, started.poller.identity, started.started_time
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


def decide_heartbeat(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    details: common_pb2.Payloads | None,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Keep what the next attempt should know; None if the heartbeat told nothing."""
    if details is None:
        return None
    draft = Draft(state, inflight, now)
    fact = draft.record.facts.add().activity_heartbeat_recorded
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    fact.details.CopyFrom(details)
    return draft.record


def expiration_time(activity: ActivityState) -> datetime | None:
    """When all attempts must be over; None is never."""
    timeout = from_duration(activity.scheduled.schedule_to_close_timeout)
    return activity.scheduled_time + timeout if timeout else None


def schedule_to_start_time(activity: ActivityState) -> datetime | None:
    """When the current attempt must have found a worker; None is never."""
    timeout = from_duration(activity.scheduled.schedule_to_start_timeout)
    return activity.attempt_scheduled_time + timeout if timeout else None


def waits_anew_until(activity: ActivityState, inflight: Inflight) -> float | None:
    """Until when an attempt that a worker may have had before this host took the shard waits for
    another, even if its `schedule_to_start_time` has passed; None if this host always had the run.
    """
    timeout = from_duration(activity.scheduled.schedule_to_start_timeout)
    if inflight.taken_at is None or not timeout or not is_free(activity, inflight):
        return None
    return inflight.taken_at + timeout.total_seconds()


def started_deadline(
    activity: ActivityState, started: StartedActivity
) -> tuple[float, "failure_pb2.TimeoutType.ValueType"] | None:
    """The first deadline of a started attempt, and its kind; None if it has none of its own."""
    candidates: list[tuple[float, failure_pb2.TimeoutType.ValueType]] = []
    start_to_close = from_duration(activity.scheduled.start_to_close_timeout).total_seconds()
    if start_to_close:
        candidates.append(
            (started.started_at + start_to_close, failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE)
        )
    heartbeat = from_duration(activity.scheduled.heartbeat_timeout).total_seconds()
    if heartbeat:
        candidates.append(
            (started.last_heartbeat_at + heartbeat, failure_pb2.TIMEOUT_TYPE_HEARTBEAT)
        )
    return min(candidates, default=None)


def append_started(
    draft: Draft,
    inflight: Inflight,
    activity: ActivityState,
    identity: str,
    started_time: datetime,
) -> int:
    """Write the started event of the attempt that is about to close; its id, 0 if buffered.

    `identity` is who answered, not always who was given the attempt last: see `require_attempt`.
    """
    started = inflight.activities.get(activity.scheduled_event_id)
    is_latest = started is not None and identity in ("", started.poller.identity)
    attributes = history_pb2.ActivityTaskStartedEventAttributes(
        scheduled_event_id=activity.scheduled_event_id,
        identity=started.poller.identity if started is not None and not identity else identity,
        attempt=activity.attempt,
        last_failure=activity.last_failure,
        started_time=to_timestamp(started_time),
        worker_version=started.poller.worker_version if started is not None and is_latest else "",
    )
    return draft.add_or_buffer(history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED, attributes)


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


def _append_attempt_failed(
    draft: Draft,
    activity: ActivityState,
    failure: failure_pb2.Failure,
    next_attempt_time: datetime,
    identity: str,
    started_time: datetime | None,
    heartbeat_details: common_pb2.Payloads | None,
) -> None:
    fact = draft.record.facts.add().activity_attempt_failed
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    fact.failure.CopyFrom(failure)
    fact.identity = identity
    if started_time is not None:
        fact.started_time.CopyFrom(to_timestamp(started_time))
    fact.next_attempt_time.CopyFrom(to_timestamp(next_attempt_time))
    if heartbeat_details is not None:
        fact.heartbeat_details.CopyFrom(heartbeat_details)

"""What workers answer for an activity's attempt, and what it comes to."""

from datetime import datetime

from aetheris.api.v1 import (
    common_pb2,
    failure_pb2,
    history_pb2,
    worker_service_pb2,
    workflow_pb2,
)
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.activity.values import ActivityState, expiration_time
from aetheris_server.history.state.retry import RetryDecision, decide_retry
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp


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


def require_by_id(state: RunState, activity_id: str) -> ActivityState:
    """The activity that an answer names by its id; the answer counts for its current attempt,
    whoever has that, and also where nobody has it.

    Raises:
        TaskNotFoundError: No open activity has the id.
    """
    if not state.is_open:
        raise TaskNotFoundError("the run has closed")
    for activity in state.activities.values():
        if activity.scheduled.activity_id == activity_id:
            return activity
    raise TaskNotFoundError(f"no open activity has the id {activity_id!r}")


def decide_activity_task_completed(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: worker_service_pb2.RespondActivityTaskCompletedRequest,
    started_time: datetime,
    now: datetime,
) -> log_pb2.LogRecord:
    """The worker gave a result."""
    draft = Draft(state, inflight, now)
    completed = history_pb2.ActivityTaskCompletedEventAttributes(
        result=request.result if request.HasField("result") else None, identity=request.identity
    )
    _append_answered(
        draft,
        inflight,
        activity,
        started_time,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
        completed,
    )
    return draft.record


def decide_activity_task_cancelled(
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
    cancelled = history_pb2.ActivityTaskCancelledEventAttributes(
        details=request.details if request.HasField("details") else None,
        latest_cancel_requested_event_id=activity.cancel_requested_event_id,
        identity=request.identity,
    )
    _append_answered(
        draft,
        inflight,
        activity,
        started_time,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED,
        cancelled,
    )
    return draft.record


def decide_activity_task_failed(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: worker_service_pb2.RespondActivityTaskFailedRequest,
    started_time: datetime,
    now: datetime,
) -> log_pb2.LogRecord:
    """The worker failed: try again, or close."""
    draft = Draft(state, inflight, now)
    decision = decide_next_attempt(activity, request.failure, now)
    if decision.next_attempt_time is not None:
        append_attempt_failed(
            draft,
            activity,
            request.failure,
            decision.next_attempt_time,
            request.identity,
            started_time,
            request.last_heartbeat_details if request.HasField("last_heartbeat_details") else None,
        )
        return draft.record
    failed = history_pb2.ActivityTaskFailedEventAttributes(
        failure=request.failure, identity=request.identity, retry_state=decision.state
    )
    _append_answered(
        draft,
        inflight,
        activity,
        started_time,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        failed,
    )
    return draft.record


def decide_next_attempt(
    activity: ActivityState, failure: failure_pb2.Failure, now: datetime
) -> RetryDecision:
    """Judge the attempt that failed.

    One that its worker broke off for a pause or a reset has another at once, whatever the policy
    says of their number; one that failed after a reset has, for it is the first of a new count.
    """
    policy, attempt = activity.scheduled.retry_policy, activity.counted_attempt
    interrupted = is_interrupted(activity, failure)
    if interrupted or activity.is_reset:
        unlimited = common_pb2.RetryPolicy()
        unlimited.CopyFrom(policy)
        unlimited.maximum_attempts = 0
        policy, attempt = unlimited, 1
    decision = decide_retry(
        policy,
        failure,
        attempt,
        expiration_time(activity),
        activity.cancel_requested_event_id != 0,
        now,
    )
    if interrupted and decision.next_attempt_time is not None:
        return decision._replace(next_attempt_time=now)
    return decision


def is_interrupted(activity: ActivityState, failure: failure_pb2.Failure) -> bool:
    """Whether a worker says that it broke the attempt off because of a pause or a reset, and there
    was one while it ran.
    """
    match failure.application_failure_info.type:
        case "ActivityPause":
            type_ = workflow_pb2.ACTIVITY_CHANGE_TYPE_PAUSED
            return any(
                change.type == type_
                and from_timestamp(change.time) >= activity.attempt_scheduled_time
                for change in activity.changes
            )
        case "ActivityReset":
            return activity.is_reset
        case _:
            return False


def _append_answered(
    draft: Draft,
    inflight: Inflight,
    activity: ActivityState,
    started_time: datetime,
    event_type: "history_pb2.EventType.ValueType",
    attributes: (
        history_pb2.ActivityTaskCompletedEventAttributes
        | history_pb2.ActivityTaskCancelledEventAttributes
        | history_pb2.ActivityTaskFailedEventAttributes
    ),
) -> None:
    """Write the started event, and the one by which its worker's answer closes the activity."""
    attributes.scheduled_event_id = activity.scheduled_event_id
    attributes.started_event_id = append_started(
        draft, inflight, activity, attributes.identity, started_time
    )
    draft.add_or_buffer(event_type, attributes)
    draft.ensure_workflow_task()


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
    is_latest = started is not None and identity in ("", started.taker.identity)
    attributes = history_pb2.ActivityTaskStartedEventAttributes(
        scheduled_event_id=activity.scheduled_event_id,
        identity=started.taker.identity if started is not None and not identity else identity,
        attempt=activity.counted_attempt,
        last_failure=activity.last_failure,
        started_time=to_timestamp(started_time),
        worker_version=started.taker.worker_version if started is not None and is_latest else "",
    )
    return draft.add_or_buffer(history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED, attributes)


def append_attempt_failed(
    draft: Draft,
    activity: ActivityState,
    failure: failure_pb2.Failure,
    next_attempt_time: datetime,
    identity: str,
    started_time: datetime | None,
    heartbeat_details: common_pb2.Payloads | None,
) -> None:
    """An attempt failed, and another is coming."""
    fact = draft.record.facts.add().activity_attempt_failed
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    fact.failure.CopyFrom(failure)
    fact.identity = identity
    if started_time is not None:
        fact.started_time.CopyFrom(to_timestamp(started_time))
    fact.next_attempt_time.CopyFrom(to_timestamp(next_attempt_time))
    fact.is_uncounted = is_interrupted(activity, failure)
    if heartbeat_details is not None:
        fact.heartbeat_details.CopyFrom(heartbeat_details)

"""Activities in snapshots, and as users see them."""

from collections.abc import Iterator
from datetime import datetime

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import state_pb2
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.activity.fold import ACTIVITY_BYTES, DELIVERIES
from aetheris_server.history.state.machines.activity.options import to_options
from aetheris_server.history.state.machines.activity.values import (
    ActivityState,
    StartedActivity,
    expiration_time,
    is_held,
)
from aetheris_server.history.state.pause import Pause
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp


def save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    """The open activities."""
    snapshot.activities.extend(_to_stored(activity) for activity in state.activities.values())


def _to_stored(activity: ActivityState) -> state_pb2.ActivityState:
    started_time = activity.started_time
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
        started_time=to_timestamp(started_time) if started_time is not None else None,
        resume_time=(
            to_timestamp(activity.resume_time) if activity.resume_time is not None else None
        ),
        pause=activity.pause.to_info() if activity.pause is not None else None,
        uncounted_attempts=activity.uncounted_attempts,
        reset_time=(to_timestamp(activity.reset_time) if activity.reset_time is not None else None),
        is_reset=activity.is_reset,
        changes=activity.changes,
    )


def load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    """The same, back."""
    for stored in snapshot.activities:
        activity = _from_stored(stored)
        state.activities[activity.scheduled_event_id] = activity
        state.activity_ids[activity.scheduled.activity_id] = activity.scheduled_event_id
        state.held_bytes += activity.byte_count


def _from_stored(stored: state_pb2.ActivityState) -> ActivityState:
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
        resume_time=(
            from_timestamp(stored.resume_time) if stored.HasField("resume_time") else None
        ),
        pause=Pause.from_info(stored.pause) if stored.HasField("pause") else None,
        uncounted_attempts=stored.uncounted_attempts,
        reset_time=from_timestamp(stored.reset_time) if stored.HasField("reset_time") else None,
        is_reset=stored.is_reset,
        changes=list(stored.changes),
        byte_count=(
            ACTIVITY_BYTES
            + stored.scheduled.ByteSize()
            + sum(attempt.ByteSize() for attempt in stored.attempts)
            + stored.heartbeat_details.ByteSize()
            + sum(change.ByteSize() for change in stored.changes)
        ),
    )


def find_unknown_activity(snapshot: state_pb2.RunSnapshot) -> str | None:
    """The first thing in stored activities that only a newer program knows."""
    for activity in snapshot.activities:
        if activity.scheduled.delivery not in DELIVERIES:
            return f"the activity delivery {activity.scheduled.delivery}"
        unknown = find_unknown(activity) or find_unknown(activity.scheduled)
        if unknown is not None:
            return unknown
    return None


def describe(
    state: RunState, inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    """The open activities, and who has them."""
    for activity in state.activities.values():
        info = _to_info(activity)
        started = inflight.activities.get(activity.scheduled_event_id)
        if started is not None:
            _add_started(info, activity, started)
        elif is_held(state, activity):
            info.state = workflow_pb2.PENDING_ACTIVITY_STATE_PAUSED
        elif activity.attempt > 1:
            info.next_attempt_time.CopyFrom(to_timestamp(activity.attempt_scheduled_time))
        response.pending_activities.append(info)


def _to_info(activity: ActivityState) -> workflow_pb2.PendingActivityInfo:
    scheduled = activity.scheduled
    expiration = expiration_time(activity)
    return workflow_pb2.PendingActivityInfo(
        activity_id=scheduled.activity_id,
        activity_type=scheduled.activity_type,
        state=workflow_pb2.PENDING_ACTIVITY_STATE_SCHEDULED,
        heartbeat_details=activity.heartbeat_details,
        attempt=activity.counted_attempt,
        maximum_attempts=scheduled.retry_policy.maximum_attempts,
        scheduled_time=to_timestamp(activity.scheduled_time),
        expiration_time=to_timestamp(expiration) if expiration is not None else None,
        last_failure=activity.last_failure,
        last_worker_identity=activity.attempts[-1].identity if activity.attempts else "",
        attempts=activity.attempts,
        task_queue=scheduled.task_queue.name,
        capabilities=scheduled.capabilities,
        scheduled_event_id=activity.scheduled_event_id,
        pause_info=activity.pause.to_info() if activity.pause is not None else None,
        changes=activity.changes,
        options=to_options(activity),
        is_reset=activity.is_reset,
    )


def _add_started(
    info: workflow_pb2.PendingActivityInfo, activity: ActivityState, started: StartedActivity
) -> None:
    info.state = (
        workflow_pb2.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        if activity.cancel_requested_event_id
        else workflow_pb2.PENDING_ACTIVITY_STATE_STARTED
    )
    info.last_worker_identity = started.taker.identity
    info.last_started_time.CopyFrom(to_timestamp(started.started_time))
    if started.last_heartbeat_time > started.started_time:
        info.last_heartbeat_time.CopyFrom(to_timestamp(started.last_heartbeat_time))


def waits(state: RunState, inflight: Inflight, now: datetime) -> Iterator[workflow_pb2.WaitReason]:
    """For whoever has an activity, for somebody to take it, for its next attempt or its unpause."""
    for activity in state.activities.values():
        yield _to_reason(activity, inflight, now)


def _to_reason(
    activity: ActivityState, inflight: Inflight, now: datetime
) -> workflow_pb2.WaitReason:
    failure, expiration = activity.last_failure, expiration_time(activity)
    reason = workflow_pb2.WaitReason(
        subject=activity.scheduled.activity_id,
        since_time=to_timestamp(activity.attempt_scheduled_time),
        until_time=to_timestamp(expiration) if expiration is not None else None,
        attempt=activity.counted_attempt,
        message=failure.message if failure is not None else "",
    )
    started = inflight.activities.get(activity.scheduled_event_id)
    if started is not None:
        reason.kind = workflow_pb2.WAIT_KIND_ACTIVITY_RUNNING
        reason.since_time.CopyFrom(to_timestamp(started.started_time))
        reason.identity = started.taker.identity
    elif activity.pause is not None:
        reason.kind = workflow_pb2.WAIT_KIND_ACTIVITY_PAUSED
        reason.since_time.CopyFrom(to_timestamp(activity.pause.time))
        reason.identity = activity.pause.identity
        reason.message = activity.pause.reason
    elif activity.scheduled_event_id in inflight.backing_off and not activity.is_due(now):
        reason.kind = workflow_pb2.WAIT_KIND_ACTIVITY_BACKING_OFF
        reason.until_time.CopyFrom(to_timestamp(activity.attempt_scheduled_time))
        reason.ClearField("since_time")
    else:
        reason.kind = workflow_pb2.WAIT_KIND_ACTIVITY_NOT_TAKEN
        reason.task_queue = activity.scheduled.task_queue.name
    return reason
